from __future__ import annotations

import errno

import pytest
from telehelper.core.flows import REFUSED, RESET, TIMED_OUT, UNREACHABLE
from telehelper.core.frames import FrameType, Opened, encode_opened
from telehelper.core.limits import Limits
from telehelper.core.tcp_dial import HOLD, PAUSES

from tests.core.builders import CREDIT, TCP6, Talk, credit_taken, dialing, syn_received

BOTH_FAMILIES = pytest.mark.parametrize("options", [{}, {"five_tuple": TCP6}], ids=["IPv4", "IPv6"])


class TestNearSide:
    def test_syn_again_is_not_dialed_again(self) -> None:
        talk = dialing()
        assert talk.syn() == []
        assert talk.near("A") == []
        assert talk.near("FA", text=b"early") == []
        assert talk.state == "DIALING"

    def test_application_gives_up(self) -> None:
        assert dialing().near("R") == ["-> RST ECONNRESET", "closed 1: reset by the application"]

    def test_reset_out_of_place_is_ignored(self) -> None:
        assert dialing().near("R", seq=2) == []

    def test_same_port_again_replaces_the_dial(self) -> None:
        talk = dialing()
        assert talk.syn(seq=5000) == ["-> RST ECONNRESET", "closed 1: replaced", "opened 2", "-> OPEN"]
        assert talk.stack.open_flows == 1

    def test_text_in_the_syn_is_left_to_be_sent_again(self) -> None:
        talk = Talk()
        assert talk.near("S", 0, text=b"fast open", options=talk.options) == ["opened 1", "-> OPEN"]
        assert talk.opened() == ["<< SA 0 1"]


class TestAnswers:
    @BOTH_FAMILIES
    def test_opened(self, options: dict[str, object]) -> None:
        talk = dialing(**options)
        talk.now += 0.5
        assert talk.opened(1000) == ["<< SA 0 1"]
        assert talk.window == 1000
        assert talk.state == "SYN_RECEIVED"
        record = talk.stack.snapshot(talk.now)[0]
        assert (record.flow, record.opened_at, record.connected_at) == (1, 100.0, 100.5)
        assert talk.stack.open_flows == 1

    @BOTH_FAMILIES
    def test_refused_is_reset_at_once(self, options: dict[str, object]) -> None:
        talk = dialing(**options)
        assert talk.coded(FrameType.REJECTED, errno.ECONNREFUSED) == ["<< RA 0 1", "closed 1: ECONNREFUSED"]
        assert talk.syn() == ["opened 2", "-> OPEN"]

    def test_black_hole_is_silent_and_stays_so(self) -> None:
        talk = dialing()
        assert talk.coded(FrameType.REJECTED, errno.ETIMEDOUT) == ["closed 1: ETIMEDOUT"]
        assert talk.syn() == ["drop: SYN to a black hole"]
        talk.wait(129)
        assert talk.syn() == ["drop: SYN to a black hole"]
        talk.wait(2)
        assert talk.syn() == ["opened 2", "-> OPEN"]

    def test_new_attempt_at_a_black_hole_is_dialed(self) -> None:
        talk = dialing()
        talk.coded(FrameType.REJECTED, errno.ETIMEDOUT)
        assert talk.syn(seq=1000) == ["opened 2", "-> OPEN"]

    def test_far_reset(self) -> None:
        assert dialing().coded(FrameType.RST, 0) == ["<< RA 0 1", "closed 1: reset by the cluster"]
        assert dialing().coded(FrameType.RST, 0, "gone") == ["<< RA 0 1", "closed 1: gone"]

    @pytest.mark.parametrize(
        "kind", [FrameType.DATA, FrameType.FIN, FrameType.OPEN, FrameType.CREDIT, FrameType.DATAGRAM]
    )
    def test_frames_that_break_the_rules(self, kind: FrameType) -> None:
        lines = dialing().far(kind, b"\0\0\0\1")
        assert lines == [
            "-> RST EPROTO",
            "<< RA 0 1",
            f"closed 1: protocol error: {kind.name} in DIALING",
        ]

    def test_malformed_answers(self) -> None:
        lines = dialing().far(FrameType.OPENED, b"abc")
        assert lines[-1] == "closed 1: protocol error: OPENED has 3 bytes, not 4 or 8"
        assert dialing().far(FrameType.REJECTED, b"")[-1].startswith("closed 1: protocol error: REJECTED")
        lines = dialing().opened(2**31 + 1)
        assert lines[:2] == ["-> RST EPROTO", "<< RA 0 1"]
        assert lines[-1].startswith("closed 1: protocol error: credit of")


class TestWhatIsMeasured:
    def test_the_dial(self) -> None:
        talk = dialing()
        opened = encode_opened(1, Opened(CREDIT, 0.25))
        assert talk.far(opened.type, bytes(opened.payload)) == ["<< SA 0 1"]
        assert talk.record.dial == 0.25

    def test_a_dial_that_the_far_side_does_not_tell(self) -> None:
        assert syn_received().record.dial == -1

    @pytest.mark.parametrize(
        ("code", "failure"),
        [
            (errno.ECONNREFUSED, REFUSED),
            (errno.ETIMEDOUT, TIMED_OUT),
            (errno.EHOSTUNREACH, UNREACHABLE),
            (0, UNREACHABLE),
        ],
    )
    def test_rejections_are_failures(self, code: int, failure: str) -> None:
        talk = dialing()
        talk.coded(FrameType.REJECTED, code)
        assert talk.record.failure == failure

    def test_resets_are_and_change_no_other_failure(self) -> None:
        talk = dialing()
        talk.coded(FrameType.RST, 0)
        assert talk.record.failure == RESET
        talk = dialing()
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH)
        talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now))
        assert talk.record.failure == UNREACHABLE

    def test_who_gives_up_has_not_failed(self) -> None:
        talk = dialing()
        talk.near("R")
        assert talk.record.failure == ""

    def test_a_tunnel_that_does_not_answer(self) -> None:
        talk = dialing(limits=Limits(dial_timeout=1.0, dial_grace=1.0))
        talk.wait(2.1)
        assert talk.record.failure == TIMED_OUT


class TestUnreachable:
    @pytest.mark.parametrize(
        ("code", "icmp", "icmp6"),
        [
            (errno.EHOSTUNREACH, "3/1", "1/3"),
            (errno.ENETUNREACH, "3/0", "1/0"),
            (errno.EPERM, "3/13", "1/1"),
            (errno.EACCES, "3/13", "1/1"),
            (errno.EIO, "3/1", "1/3"),
            (0, "3/1", "1/3"),
        ],
    )
    def test_icmp_twice_then_a_reset(self, code: int, icmp: str, icmp6: str) -> None:
        for options, expected in (({}, icmp), ({"five_tuple": TCP6}, icmp6)):
            talk = dialing(**options)
            assert talk.coded(FrameType.REJECTED, code, "because") == []
            times = []
            for line in (
                [f"<< icmp {expected}"],
                [f"<< icmp {expected}"],
                ["<< RA 0 1", "closed 1: because"],
            ):
                assert talk.tick() == line
                times.append(talk.now - 100.0)
            assert times == pytest.approx([HOLD, HOLD + PAUSES[0], HOLD + sum(PAUSES)])
            assert talk.stack.snapshot(talk.now)[0].packets_down == 3
            assert talk.syn() == ["opened 2", "-> OPEN"]

    def test_the_first_is_sent_at_once_when_the_dial_took_its_time(self) -> None:
        talk = dialing()
        talk.now += 3
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH)
        assert talk.stack.next_timer() == talk.now
        assert talk.tick() == ["<< icmp 3/1"]
        assert talk.now == 103.0

    def test_a_reject_of_unknown_code(self) -> None:
        talk = dialing()
        talk.coded(FrameType.REJECTED, 9999)
        talk.wait(1)
        talk.wait(1)
        assert talk.wait(1)[-1] == "closed 1: rejected"

    def test_its_credit_is_free_at_once(self) -> None:
        talk = dialing()
        assert credit_taken(talk.stack) == CREDIT
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH)
        assert credit_taken(talk.stack) == 0

    def test_tunnel_that_does_not_answer(self) -> None:
        talk = dialing()
        assert talk.wait(34) == []
        assert talk.wait(2) == ["-> RST ETIMEDOUT"]
        assert talk.opened() == []  # crossed our RST
        assert talk.tick() == ["<< icmp 3/1"]
        assert talk.tick() == ["<< icmp 3/1"]
        assert talk.tick() == ["<< RA 0 1", "closed 1: the tunnel did not answer"]

    def test_near_ends_it_while_it_is_told(self) -> None:
        talk = dialing()
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH, "no route")
        assert talk.syn() == []  # the same one again: the answer is on its way
        assert talk.near("R") == ["closed 1: no route"]  # the far side has forgotten the flow: no RST for it
        talk = dialing()
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH, "no route")
        assert talk.syn(seq=7000) == ["closed 1: no route", "opened 2", "-> OPEN"]

    def test_the_tunnel_ends_while_it_is_told(self) -> None:
        talk = dialing()
        talk.coded(FrameType.REJECTED, errno.EHOSTUNREACH, "no route")
        lines = talk.take(talk.stack.reset_flows(None, "tunnel lost", talk.now))
        assert lines == ["<< RA 0 1", "closed 1: no route"]


def test_limits_are_the_dials() -> None:
    talk = Talk(limits=Limits(dial_timeout=1.0, dial_grace=0.5))
    talk.syn()
    assert talk.wait(1.4) == []
    assert talk.wait(0.2) == ["-> RST ETIMEDOUT"]


def test_growth_time_goes_with_the_flow() -> None:
    talk = Talk(limits=Limits(initial_credit=1000, maximum_credit=4000))
    talk.syn()
    talk.stack.set_path_rtt(0.001)  # found out while dialing
    talk.opened()
    talk.near("A")
    talk.data(b"x" * 500)
    talk.near("A", ack=501)
    talk.now += 0.01
    talk.data(b"x" * 500)
    assert talk.near("A", ack=1001) == ["-> CREDIT 500"]


def test_a_flow_that_was_opened_is_no_longer_dialed() -> None:
    talk = syn_received()
    talk.near("A")
    assert talk.wait(36) == []
    assert talk.state == "ESTABLISHED"
