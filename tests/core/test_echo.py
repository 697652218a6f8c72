from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.actions import SendPacket
from telehelper.core.echo import decode_echo, encode_echo
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import FrameType, Proto, decode_open
from telehelper.core.icmp import make_echo_reply
from telehelper.core.limits import Limits
from telehelper.core.packet import IcmpMessage, parse, reverse, to_key
from telehelper.core.stack import Stack
from telehelper.errors import TunnelError

from tests.core.builders import FAR, FAR6, NEAR, NEAR6, Talk, whole

if TYPE_CHECKING:
    from telehelper.core.frames import Frame

PING = FiveTuple(Proto.ICMP, NEAR, 0x1234, FAR, 0)
PING6 = FiveTuple(Proto.ICMP, NEAR6, 0x1234, FAR6, 0)


def request_bytes(five_tuple: FiveTuple, sequence: int, data: bytes) -> bytes:
    """Make of a reply the request that it answers, checksum included."""
    key = to_key(five_tuple)
    packet = bytearray(whole(make_echo_reply(key[:-4] + key[-2:] + key[-4:-2], sequence, data)))
    at, old, new = (30, 0, 8) if len(key) == 12 else (50, 129, 128)
    packet[at] = new
    check = int.from_bytes(packet[at + 2 : at + 4], "big") - (new - old << 8)
    packet[at + 2 : at + 4] = (check % 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


class Ping(Talk):
    """A stack that is pinged."""

    def __init__(self, five_tuple: FiveTuple = PING, **options: object) -> None:
        super().__init__(five_tuple, **options)  # type: ignore[arg-type]  # passed through
        self.five_tuple = five_tuple

    def ping(self, sequence: int, data: bytes = b"hello") -> list[str]:
        packet = request_bytes(self.five_tuple, sequence, data)
        return self.take(self.stack.receive_packet(packet, self.now))

    def reply(self, sequence: int, data: bytes = b"hello", code: int = 0) -> list[str]:
        return self.far(FrameType.DATAGRAM, encode_echo(sequence, data, code))

    @property
    def heard(self) -> IcmpMessage:
        """The message that the near side got last."""
        action = self.actions[0]
        assert isinstance(action, SendPacket)
        message = parse(whole(action))
        assert isinstance(message, IcmpMessage)
        return message


def opened(five_tuple: FiveTuple = PING) -> Ping:
    ping = Ping(five_tuple)
    assert ping.ping(1) == ["opened 1", "-> OPEN", r"-> DATAGRAM b'\x00\x00\x00\x01hello'"]
    assert ping.state == "DIALING"
    assert ping.opened(0) == []
    assert ping.state == "OPEN"
    return ping


@pytest.mark.parametrize(("five_tuple", "kind"), [(PING, 0), (PING6, 129)])
def test_a_reply_has_identifier_sequence_and_data(five_tuple: FiveTuple, kind: int) -> None:
    ping = opened(five_tuple)
    assert ping.ping(2, b"") == [r"-> DATAGRAM b'\x00\x00\x00\x02'"]
    ping.reply(1)
    key = to_key(five_tuple)
    assert ping.heard == IcmpMessage(reverse(key)[:-4], kind, 0, memoryview(b"\x12\x34\0\1hello"))
    ping.reply(2, b"")
    assert bytes(ping.heard.body) == b"\x12\x34\0\2"
    record = ping.stack.snapshot(ping.now)[0]
    assert (record.bytes_up, record.bytes_down, record.packets_up, record.packets_down) == (5, 5, 2, 2)


@pytest.mark.parametrize("five_tuple", [PING, PING6])
def test_open_says_whom_to_ping(five_tuple: FiveTuple) -> None:
    ping = Ping(five_tuple)
    ping.ping(1)
    frame: Frame = ping.actions[1].frame  # type: ignore[union-attr]  # a SendFrame
    assert decode_open(frame)[:5] == five_tuple
    assert ping.stack.snapshot(ping.now)[0].five_tuple == five_tuple


def test_each_identifier_is_a_flow() -> None:
    ping = opened()
    ping.five_tuple = PING._replace(sport=0x4321)
    assert ping.ping(1)[0] == "opened 2"
    ping.flow = 2
    ping.reply(1)
    assert bytes(ping.heard.body[:2]) == b"\x43\x21"


def test_a_udp_flow_of_the_same_numbers_is_another() -> None:
    ping = opened()
    assert ping.datagram(b"x", to_key(PING))[0] == "opened 2"
    assert ping.ping(2)[0].startswith("-> DATAGRAM")


@pytest.mark.parametrize(("five_tuple", "line"), [(PING, "<< icmp 3/1"), (PING6, "<< icmp 1/3")])
def test_unreachable_is_told_of_the_very_request(five_tuple: FiveTuple, line: str) -> None:
    ping = opened(five_tuple)
    ping.ping(2)
    assert ping.reply(2, b"", errno.EHOSTUNREACH) == [line]
    cited = bytes(ping.heard.body[4:])
    assert cited[-4:] == b"\x12\x34\0\2"
    assert ping.reply(1) != []  # the flow goes on
    assert ping.stack.open_flows == 1


def test_a_manager_that_may_not_ping_means_silence() -> None:
    ping = Ping()
    ping.ping(1)
    assert ping.coded(FrameType.REJECTED, errno.EPROTONOSUPPORT, "may not ping") == []
    assert ping.ping(2) == ["drop: echo"]
    ping.now += 50
    assert ping.ping(3) == ["drop: echo"]
    assert ping.stack.drops == {"echo": 2}
    assert ping.wait(59) == []
    assert ping.wait(2) == ["closed 1: may not ping"]
    assert [record.reason for record in ping.stack.snapshot(ping.now)] == ["may not ping"]


@pytest.mark.parametrize("kind", [FrameType.REJECTED, FrameType.RST])
def test_refused(kind: FrameType) -> None:
    assert opened().coded(kind, errno.EACCES) == ["<< icmp 3/13", "closed 1: EACCES"]
    assert opened().coded(kind, errno.ENETUNREACH, "no way") == ["<< icmp 3/0", "closed 1: no way"]
    assert opened().coded(kind, errno.ETIMEDOUT) == ["closed 1: ETIMEDOUT"]
    assert opened().coded(kind, 0, "idle") == ["closed 1: idle"]


def test_idle() -> None:
    ping = opened()
    assert ping.wait(59) == []
    ping.reply(1)
    assert ping.wait(59) == []
    ping.ping(2)
    assert ping.wait(59) == []
    assert ping.wait(2) == ["-> RST 0", "closed 1: idle"]
    assert ping.ping(3)[0] == "opened 2"


def test_frames_that_break_the_rules() -> None:
    for kind, payload in ((FrameType.DATAGRAM, b"abc"), (FrameType.DATA, b"x"), (FrameType.RST, b"x")):
        assert opened().far(kind, payload)[0] == "-> RST EPROTO"


def test_too_long_a_reply() -> None:
    assert opened().reply(1, bytes(65_508)) == ["drop: echo too long"]
    ping = opened()
    ping.reply(1, bytes(65_507))
    assert len(ping.heard.body) == 65_511


def test_carrier_dies() -> None:
    ping = opened()
    assert ping.take(ping.stack.reset_flows([1], "carrier lost", ping.now)) == ["closed 1: carrier lost"]
    assert ping.ping(2)[0] == "opened 2"


def test_our_own_address_is_not_pinged_and_does_not_answer() -> None:
    ping = Ping(resolver=(FAR, 53))
    assert ping.ping(1) == ["drop: echo"]


def test_flow_table_full() -> None:
    assert Ping(limits=Limits(flows=0)).ping(1) == ["drop: flow table full"]


@given(code=st.integers(0, 65_535), sequence=st.integers(0, 65_535), data=st.binary(max_size=100))
def test_codec(code: int, sequence: int, data: bytes) -> None:
    payload = encode_echo(sequence, memoryview(data), code)
    assert decode_echo(memoryview(payload)) == (code, sequence, memoryview(data))


@given(st.binary(max_size=10))
def test_any_payload_is_an_echo_or_an_error(payload: bytes) -> None:
    try:
        assert decode_echo(payload)[2] == payload[4:]
    except TunnelError:
        assert len(payload) < 4  # either outcome is right


@given(st.lists(st.tuples(st.sampled_from(FrameType), st.binary(max_size=8)), max_size=8))
def test_any_frames(frames: list[tuple[FrameType, bytes]]) -> None:
    ping = Ping()
    assert isinstance(ping.stack, Stack)
    for sequence, (kind, payload) in enumerate(frames):
        ping.ping(sequence)
        ping.far(kind, payload, ping.stack._last_number)
    ping.stack.reset_flows(None, "end", ping.now)
    assert ping.stack.open_flows == 0
