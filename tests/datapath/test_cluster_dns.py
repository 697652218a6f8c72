"""Questions to the cluster's DNS server as transcripts of frames; one flow of UDP, one of TCP for each long answer."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from telehelper.core.frames import Frame, FrameType, Proto, decode_open, encode_coded, encode_u32
from telehelper.datapath import cluster_dns
from telehelper.datapath.cluster_dns import DNS_PORT, OWN_FLOWS, ClusterDns

OURS, SERVER, OTHER = ip_address("198.19.240.0"), ip_address("198.18.0.10"), ip_address("198.18.0.11")
QUERY = b"\x01\x02question"


class Bench:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.forgotten: list[int] = []
        self.answers: list[bytes] = []
        self.failed: list[int] = []
        self.dns = ClusterDns(
            self.frames.append, self.forgotten.append, self.answers.append, self.failed.append
        )
        self.dns.set_server(OURS, SERVER)

    def ask(self, query: bytes = QUERY, *, stream: bool = True) -> int:
        """Ask, and return the flow that was opened or used."""
        self.frames.clear()
        self.dns.ask(query, stream)
        return self.frames[-1].flow

    def kinds(self) -> list[str]:
        found = [frame.type.name for frame in self.frames]
        self.frames.clear()
        return found


@pytest.fixture
def it() -> Bench:
    return Bench()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def test_datagrams_share_one_flow(it: Bench) -> None:
    assert it.ask(stream=False) == OWN_FLOWS
    opened = decode_open(it.frames[0])
    assert (opened.protocol, opened.src, opened.dst, opened.dport) == (Proto.UDP, OURS, SERVER, DNS_PORT)
    assert it.ask(stream=False) == OWN_FLOWS
    assert it.kinds() == ["DATAGRAM"]
    it.dns.receive_frame(Frame(FrameType.DATAGRAM, OWN_FLOWS, b"answer"))
    assert it.answers == [b"answer"]


def test_without_a_server_questions_are_lost() -> None:
    it = Bench()
    it.dns = ClusterDns(it.frames.append, it.forgotten.append, it.answers.append, it.failed.append)
    it.dns.ask(QUERY, stream=True)
    it.dns.ask(QUERY, stream=False)
    assert it.frames == []


def test_a_question_over_tcp(it: Bench) -> None:
    flow = it.ask()
    opened = decode_open(it.frames[0])
    assert (opened.protocol, opened.dst, opened.dport, opened.credit) == (Proto.TCP, SERVER, 53, 65537)
    it.frames.clear()
    it.dns.receive_frame(encode_u32(FrameType.OPENED, flow, 65536))
    assert it.frames == [Frame(FrameType.DATA, flow, framed(QUERY))]
    it.frames.clear()
    wire = framed(b"a long answer")
    for i in range(len(wire)):
        assert it.answers == []
        it.dns.receive_frame(Frame(FrameType.DATA, flow, wire[i : i + 1]))
    assert it.answers == [b"a long answer"]
    assert (it.kinds(), it.forgotten, it.failed) == (["RST"], [flow], [])
    it.dns.receive_frame(Frame(FrameType.DATA, flow, b"more"))
    assert it.answers == [b"a long answer"]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (encode_coded(FrameType.REJECTED, 0, errno.ECONNREFUSED), []),
        (encode_coded(FrameType.RST, 0, errno.ECONNRESET), []),
        (Frame(FrameType.FIN, 0), ["RST"]),
    ],
)
def test_what_cannot_be_asked_over_tcp_is_told(it: Bench, frame: Frame, said: list[str]) -> None:
    flow = it.ask()
    it.frames.clear()
    it.dns.receive_frame(frame._replace(flow=flow))
    assert it.failed == [0x0102]
    assert it.kinds() == said
    assert it.forgotten == [flow]


def test_a_carrier_that_goes_takes_its_flows(it: Bench) -> None:
    datagrams, stream = it.ask(stream=False), it.ask()
    it.dns.flows_lost({datagrams, stream, 5})
    assert it.failed == [0x0102]
    assert it.ask(stream=False) not in (datagrams, stream)
    assert it.kinds() == ["OPEN", "DATAGRAM"]


def test_asked_again_it_gives_up_the_first_try(it: Bench) -> None:
    first = it.ask()
    second = it.ask()
    assert it.kinds() == ["RST", "OPEN"]
    assert (it.forgotten, second != first) == ([first], True)


def test_only_so_many_at_once(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_dns, "MAX_STREAMS", 2)
    flows = [it.ask(bytes([i, 0]) + b"q") for i in range(3)]
    assert it.forgotten == flows[:1]


def test_another_server_ends_all_flows(it: Bench) -> None:
    flows = [it.ask(stream=False), it.ask()]
    it.frames.clear()
    it.dns.set_server(OURS, SERVER)
    assert it.kinds() == []
    it.dns.set_server(OURS, OTHER)
    assert it.kinds() == ["RST", "RST"]
    assert it.forgotten == flows
    it.ask()
    assert decode_open(it.frames[0]).dst == OTHER
