"""Builders for the terminator's tests: a stack with one flow in a wanted state, and actions as short lines.

A packet is written ``<< flags seq ack [text]`` with numbers counted from the initial ones, a frame ``-> TYPE …``.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from telehelper.core.actions import Drop, FlowClosed, FlowOpened, LocalDatagram, SendFrame, SendPacket
from telehelper.core.datagram import make_datagram
from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Frame, FrameType, Proto, decode_coded, decode_u32, encode_coded, encode_u32
from telehelper.core.packet import Datagram, Segment, TcpTemplate, parse, syn_options, to_key
from telehelper.core.stack import Stack

if TYPE_CHECKING:
    from telehelper.core.actions import Action
    from telehelper.core.flows import FlowRecord
    from telehelper.core.limits import Limits

NEAR: Final = IPv4Address("198.18.1.1")
FAR: Final = IPv4Address("198.18.0.9")
NEAR6: Final = IPv6Address("fd00::1")
FAR6: Final = IPv6Address("fd00::9")
TCP: Final = FiveTuple(Proto.TCP, NEAR, 40000, FAR, 5432)
TCP6: Final = FiveTuple(Proto.TCP, NEAR6, 40000, FAR6, 5432)
UDP: Final = FiveTuple(Proto.UDP, NEAR, 40000, FAR, 514)
UDP6: Final = FiveTuple(Proto.UDP, NEAR6, 40000, FAR6, 514)
IRS: Final = 2**32 - 3  # the near side's initial number: wraps after two bytes
ISS: Final = 2**32 - 5
CREDIT: Final = 262_144
MSS: Final = 1460
LETTERS: Final = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def whole(packet: SendPacket) -> bytes:
    return b"".join(packet.buffers)


def letters(flags: int) -> str:
    return "".join(letter for letter, bit in LETTERS.items() if flags & bit)


def describe(action: Action) -> str:
    match action:
        case SendPacket():
            return describe_packet(whole(action))
        case SendFrame(frame):
            return describe_frame(frame)
        case FlowOpened(flow, _):
            return f"opened {flow}"
        case FlowClosed(flow, reason):
            return f"closed {flow}: {reason}"
        case Drop(reason):
            return f"drop: {reason}"
        case LocalDatagram(five_tuple, payload):
            return f"local {five_tuple.dport} {payload!r}"


def describe_packet(data: bytes) -> str:
    packet = parse(data)
    if isinstance(packet, Segment):
        seq = (packet.seq - ISS) & 0xFFFFFFFF if packet.seq else 0
        ack = (packet.ack - IRS) & 0xFFFFFFFF if packet.flags & 16 else 0
        text = f" {bytes(packet.text)!r}" if 0 < len(packet.text) < 20 else ""
        size = f" {len(packet.text)} bytes" if len(packet.text) >= 20 else ""
        return f"<< {letters(packet.flags)} {seq} {ack}{text}{size}"
    if isinstance(packet, Datagram):
        return f"<< udp {bytes(packet.text)!r}"
    at = 30 if data[10] >> 4 == 4 else 50
    return f"<< icmp {data[at]}/{data[at + 1]}"


def describe_frame(frame: Frame) -> str:
    match frame.type:
        case FrameType.DATA | FrameType.DATAGRAM:
            payload = bytes(frame.payload)
            shown = repr(payload) if len(payload) < 20 else f"{len(payload)} bytes"
            return f"-> {frame.type.name} {shown}"
        case FrameType.RST:
            return f"-> RST {errno.errorcode.get(decode_coded(frame)[0], '0')}"
        case FrameType.CREDIT:
            return f"-> CREDIT {decode_u32(frame)}"
        case _:
            return f"-> {frame.type.name}"


class Talk:
    """A stack, the near side as wire bytes, the far side as frames. Each call returns the lines of its actions."""

    def __init__(
        self,
        five_tuple: FiveTuple = TCP,
        *,
        gso: bool = True,
        limits: Limits | None = None,
        options: bytes | None = None,
        resolver: tuple[IPv4Address, int] | None = None,
    ) -> None:
        self.stack = Stack(isn=lambda: ISS, gso=gso, limits=limits, resolver=resolver)
        self.now = 100.0
        self.key = to_key(five_tuple)
        self.options = syn_options(MSS, 7) if options is None else options
        self.template = TcpTemplate(self.key, MSS, offload=True)
        self.actions: list[Action] = []
        self.flow = 1

    def take(self, actions: list[Action]) -> list[str]:
        self.actions = actions
        return [describe(action) for action in actions]

    def near(
        self,
        flags: str,
        seq: int = 1,
        ack: int = 1,
        text: bytes = b"",
        window: int = 512,
        options: bytes = b"",
    ) -> list[str]:
        """Receive a segment; the window is counted in 128 bytes (the scale is 7)."""
        bits = sum(LETTERS[letter] for letter in flags)
        wire_ack = (ISS + ack) & 0xFFFFFFFF if "A" in flags else 0
        packet = self.template.segment(
            (IRS + seq) & 0xFFFFFFFF, wire_ack, bits, window, (text,), len(text), options
        )
        return self.take(self.stack.receive_packet(whole(packet), self.now))

    def syn(self, seq: int = 0) -> list[str]:
        return self.near("S", seq, options=self.options)

    def far(self, kind: FrameType, payload: bytes = b"", flow: int | None = None) -> list[str]:
        frame = Frame(kind, self.flow if flow is None else flow, payload)
        return self.take(self.stack.receive_frame(frame, self.now))

    def opened(self, credit: int = CREDIT) -> list[str]:
        return self.far(FrameType.OPENED, credit.to_bytes(4, "big"))

    def credit(self, n: int) -> list[str]:
        return self.take(self.stack.receive_frame(encode_u32(FrameType.CREDIT, self.flow, n), self.now))

    def coded(self, kind: FrameType, code: int, text: str = "") -> list[str]:
        return self.take(self.stack.receive_frame(encode_coded(kind, self.flow, code, text), self.now))

    def data(self, payload: bytes) -> list[str]:
        return self.far(FrameType.DATA, payload)

    def eof(self) -> list[str]:
        return self.far(FrameType.FIN)

    def tick(self) -> list[str]:
        """Let time pass until a timer causes something; next_timer() may be too early, never too late."""
        lines: list[str] = []
        while not lines and (when := self.stack.next_timer()) is not None:
            self.now = max(self.now, when)
            lines = self.take(self.stack.handle_timer(self.now))
        return lines

    def wait(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.take(self.stack.handle_timer(self.now))

    def datagram(self, payload: bytes, key: bytes | None = None) -> list[str]:
        packet = make_datagram(key or self.key, payload)
        return self.take(self.stack.receive_packet(whole(packet), self.now))

    @property
    def state(self) -> str:
        return self.stack.snapshot(self.now)[-1].state

    @property
    def record(self) -> FlowRecord:
        """The only flow's record, closed or not."""
        return self.stack.snapshot(self.now)[-1]

    @property
    def window(self) -> int:
        """Of the last packet sent, in bytes."""
        for action in reversed(self.actions):
            if isinstance(action, SendPacket):
                packet = parse(whole(action))
                assert isinstance(packet, Segment)
                return packet.window << (0 if packet.flags & 2 else 9)
        raise AssertionError("no packet was sent")


def dialing(**options: object) -> Talk:
    talk = Talk(**options)  # type: ignore[arg-type]  # passed through
    assert talk.syn() == ["opened 1", "-> OPEN"]
    return talk


def syn_received(**options: object) -> Talk:
    talk = dialing(**options)
    assert talk.opened() == ["<< SA 0 1"]
    return talk


def established(**options: object) -> Talk:
    talk = syn_received(**options)
    assert talk.near("A") == []
    return talk


def close_wait(**options: object) -> Talk:
    talk = established(**options)
    assert talk.near("FA") == ["-> FIN", "<< A 1 2"]
    return talk


def fin_wait_1(**options: object) -> Talk:
    talk = established(**options)
    assert talk.eof() == ["<< FPA 1 1"]
    return talk


def fin_wait_2(**options: object) -> Talk:
    talk = fin_wait_1(**options)
    assert talk.near("A", ack=2) == []
    return talk


def closing(**options: object) -> Talk:
    talk = fin_wait_1(**options)
    assert talk.near("FA") == ["-> FIN", "<< A 2 2"]
    return talk


def last_ack(**options: object) -> Talk:
    talk = close_wait(**options)
    assert talk.eof() == ["<< FPA 1 2"]
    return talk


def time_wait(**options: object) -> Talk:
    talk = fin_wait_2(**options)
    assert talk.near("FA", ack=2) == ["-> FIN", "<< A 2 2"]
    return talk


def credit_taken(stack: Stack) -> int:
    """Return the bytes that all flows together may make us hold: the sum of their windows."""
    return stack._terms.pool.taken


BUILDERS: Final = {
    "DIALING": dialing,
    "SYN_RECEIVED": syn_received,
    "ESTABLISHED": established,
    "CLOSE_WAIT": close_wait,
    "FIN_WAIT_1": fin_wait_1,
    "FIN_WAIT_2": fin_wait_2,
    "CLOSING": closing,
    "LAST_ACK": last_ack,
    "TIME_WAIT": time_wait,
}
