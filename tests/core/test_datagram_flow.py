from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING

from telehelper.core.datagram_flow import DatagramFlow
from telehelper.core.flows import FlowStats
from telehelper.core.frames import Frame, FrameType, decode_open, encode_coded, encode_u32
from telehelper.core.limits import Limits
from telehelper.core.packet import to_key

from tests.core.builders import UDP, describe

if TYPE_CHECKING:
    from telehelper.core.actions import Action


class Plain(DatagramFlow):
    """The least that a kind of flow must say."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.seen: list[object] = []
        super().__init__(FlowStats(7, UDP, 100.0), to_key(UDP), b"head", Limits(), 60.0, self.count)

    def count(self, reason: str, _out: list[Action]) -> None:
        self.drops[reason] += 1

    def _receive_payload(
        self, payload: bytes | bytearray | memoryview, now: float, out: list[Action]
    ) -> None:
        self.seen.append(bytes(payload))
        self._drop("nothing", out)

    def _refuse(self, code: int, reason: str, out: list[Action]) -> None:
        self.seen.append((code, reason))
        self._close(reason, out)


def take(out: list[Action]) -> list[str]:
    lines = [describe(action) for action in out]
    out.clear()
    return lines


def test_from_dialing_to_idle() -> None:
    flow, out = Plain(), []  # type: tuple[Plain, list[Action]]
    flow.open(out)
    opening = out[1].frame  # type: ignore[union-attr]  # a SendFrame
    assert decode_open(opening)[:5] == UDP
    assert take(out) == ["opened 7", "-> OPEN"]
    assert (flow.state_name, flow.deadline, flow.stats.connected_at) == ("DIALING", 160.0, None)
    flow.receive_frame(encode_u32(FrameType.OPENED, 7, 0), 101.0, out)
    assert (flow.state_name, flow.deadline, flow.stats.connected_at) == ("OPEN", 160.0, 101.0)
    flow.receive_frame(Frame(FrameType.DATAGRAM, 7, b"x"), 102.0, out)
    assert (flow.seen, flow.deadline, flow.drops) == ([b"x"], 162.0, {"nothing": 1})
    flow.handle_timer(162.0, out)
    assert take(out) == ["-> RST 0", "closed 7: idle"]
    assert (flow.state_name, flow.deadline, flow.reason, flow.is_closed) == ("CLOSED", None, "idle", True)


def test_refusals_are_the_kinds_own_affair() -> None:
    for kind in (FrameType.REJECTED, FrameType.RST):
        for code, text, reason in (
            (errno.EACCES, "policy", "policy"),
            (errno.EACCES, "", "EACCES"),
            (0, "", "reset by the cluster"),
        ):
            flow, out = Plain(), []  # type: tuple[Plain, list[Action]]
            flow.receive_frame(encode_coded(kind, 7, code, text), 101.0, out)
            assert flow.seen == [(code, reason)]
            assert take(out) == [f"closed 7: {reason}"]


def test_a_refusal_is_a_failure_if_there_is_a_reason() -> None:
    for code, failure in ((errno.ECONNREFUSED, "refused"), (errno.EACCES, "unreachable"), (0, "")):
        flow, out = Plain(), []  # type: tuple[Plain, list[Action]]
        flow.receive_frame(encode_coded(FrameType.RST, 7, code), 101.0, out)
        assert flow.stats.failure == failure


def test_the_other_ends() -> None:
    flow, out = Plain(), []  # type: tuple[Plain, list[Action]]
    flow.abort("carrier lost", out)
    assert take(out) == ["closed 7: carrier lost"]
    flow = Plain()
    flow.reject(out)
    assert take(out) == ["-> RST ECONNREFUSED", "closed 7: closed by the application"]


def test_frames_that_break_the_rules() -> None:
    for frame, what in (
        (Frame(FrameType.FIN, 7), "FIN on a flow of datagrams"),
        (Frame(FrameType.RST, 7, b"x"), "RST has 1 bytes"),
    ):
        flow, out = Plain(), []  # type: tuple[Plain, list[Action]]
        flow.receive_frame(frame, 101.0, out)
        assert take(out) == ["-> RST EPROTO", f"closed 7: protocol error: {what}"]
