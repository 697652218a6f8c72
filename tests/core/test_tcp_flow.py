from __future__ import annotations

import errno

import pytest
from telehelper.core.actions import SendPacket
from telehelper.core.flows import RESET
from telehelper.core.frames import FrameType, encode_timing
from telehelper.core.limits import Limits
from telehelper.core.packet import Segment, parse, parse_syn_options, syn_options

from tests.core.builders import (
    BUILDERS,
    CREDIT,
    MSS,
    TCP6,
    close_wait,
    closing,
    dialing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    syn_received,
    time_wait,
    whole,
)


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_reach_their_state(name: str) -> None:
    assert BUILDERS[name]().state == name
    assert BUILDERS[name](five_tuple=TCP6).state == name


class TestSynReceived:
    def test_options_answer_those_of_the_syn(self) -> None:
        for offered, expected in (
            (syn_options(1400, 7), (1400, 9)),
            (syn_options(9000, None), (MSS, None)),
            (b"", (536, None)),
        ):
            talk = dialing(options=offered)
            talk.opened()
            packet = talk.actions[0]
            assert isinstance(packet, SendPacket)
            segment = parse(whole(packet))
            assert isinstance(segment, Segment)
            assert parse_syn_options(segment.options) == expected

    def test_opened_twice(self) -> None:
        assert syn_received().opened()[-1] == "closed 1: protocol error: OPENED in SYN_RECEIVED"

    def test_rejected_after_opened(self) -> None:
        lines = syn_received().coded(FrameType.REJECTED, errno.ECONNREFUSED)
        assert lines[-1] == "closed 1: protocol error: REJECTED in SYN_RECEIVED"

    def test_syn_again_is_answered_again(self) -> None:
        assert syn_received().syn() == ["<< SA 0 1"]

    def test_lost_syn_ack_is_repeated_and_given_up(self) -> None:
        talk = syn_received()
        for _ in range(7):
            assert talk.tick() == ["<< SA 0 1"]
        assert talk.tick() == [
            "-> RST ETIMEDOUT",
            "<< RA 1 1",
            "closed 1: the application's side does not answer",
        ]

    def test_wrong_acknowledgement_is_reset(self) -> None:
        talk = syn_received()
        assert talk.near("A", ack=7) == ["<< R 7 0"]
        assert talk.state == "SYN_RECEIVED"

    def test_reset_by_near(self) -> None:
        assert syn_received().near("R") == ["-> RST ECONNRESET", "closed 1: reset by the application"]

    def test_text_with_the_first_acknowledgement(self) -> None:
        assert syn_received().near("PA", text=b"hi") == ["-> DATA b'hi'", "<< A 1 3"]

    def test_far_speaks_first_and_ends(self) -> None:
        talk = syn_received()
        assert talk.data(b"banner") == []
        assert talk.eof() == []
        assert talk.near("A") == ["<< FPA 1 1 b'banner'"]
        assert talk.state == "FIN_WAIT_1"

    def test_credit_is_not_announced_yet(self) -> None:
        assert syn_received().credit(1_000_000) == []


class TestWhatIsMeasured:
    def test_the_service_s_own_time(self) -> None:
        talk = established()
        assert talk.record.wait == -1
        assert talk.far(FrameType.TIMING, bytes(encode_timing(1, 0.25).payload)) == []
        assert talk.record.wait == 0.25

    def test_timing_comes_before_data(self) -> None:
        talk = established()
        talk.data(b"x")
        lines = talk.far(FrameType.TIMING, bytes(4))
        assert lines[-1] == "closed 1: protocol error: TIMING after DATA"
        assert established().far(FrameType.TIMING, b"abc")[-1].startswith("closed 1: protocol error: TIMING")

    def test_first_and_last_byte(self) -> None:
        talk = established()
        talk.near("PA", text=b"hello")
        asked = talk.now
        assert (talk.record.first_byte_at, talk.record.last_byte_at) == (None, asked)
        talk.now += 1
        talk.data(b"a")
        talk.now += 1
        talk.data(b"b")
        assert (talk.record.first_byte_at, talk.record.last_byte_at) == (asked + 1, asked + 2)
        talk.now += 1
        talk.near("PA", text=b"hello", ack=3)  # nothing new
        assert talk.record.last_byte_at == asked + 2

    def test_a_reset_by_the_cluster_is_a_failure_unless_near_was_done(self) -> None:
        talk = established()
        talk.coded(FrameType.RST, errno.ECONNRESET)
        assert talk.record.failure == RESET
        talk = close_wait()
        talk.coded(FrameType.RST, errno.ECONNRESET)
        assert talk.record.failure == ""

    def test_a_reset_by_the_application_is_none(self) -> None:
        talk = established()
        talk.near("R")
        assert talk.record.failure == ""


class TestEstablished:
    def test_text_up(self) -> None:
        talk = established()
        assert talk.near("PA", text=b"hello") == ["-> DATA b'hello'", "<< A 1 6"]
        assert talk.window == (CREDIT - 5) // 512 * 512

    def test_text_down_and_its_credit(self) -> None:
        talk = established()
        assert talk.data(b"x" * 65_536) == [f"<< PA 1 1 {44 * MSS} bytes", "<< PA 64241 1 1296 bytes"]
        assert talk.data(b"y") == []  # the window is full
        assert talk.near("A", ack=1 + 44 * MSS) == ["<< PA 65537 1 b'y'"]
        assert talk.near("A", ack=65_538) == ["-> CREDIT 65537"]
        assert talk.stack.next_timer() is not None  # cancelled only when it comes
        assert talk.tick() == []

    def test_duplicate_and_overlapping_text(self) -> None:
        talk = established()
        talk.near("PA", text=b"abc")
        assert talk.near("PA", text=b"abc") == ["<< A 1 4"]
        assert talk.near("PA", text=b"abcde") == ["-> DATA b'de'", "<< A 1 6"]

    def test_gap_is_asked_for_again(self) -> None:
        talk = established()
        assert talk.near("PA", seq=4, text=b"def") == ["<< A 1 1"]
        assert talk.near("FA", seq=4) == ["<< A 1 1"]

    def test_keep_alive_is_answered(self) -> None:
        assert established().near("A", seq=0) == ["<< A 1 1"]

    def test_no_acknowledgement_no_text(self) -> None:
        assert established().near("P", text=b"abc") == []

    def test_acknowledgement_of_what_was_not_sent(self) -> None:
        assert established().near("PA", ack=2, text=b"abc") == ["<< A 1 1"]

    def test_old_acknowledgement_changes_nothing_but_text_counts(self) -> None:
        talk = established()
        talk.data(b"abc")
        talk.near("A", ack=4)
        assert talk.near("PA", ack=2, window=0, text=b"x") == ["-> DATA b'x'", "<< A 4 2"]
        assert talk.data(b"d") == ["<< PA 4 2 b'd'"]

    def test_window_is_credit(self) -> None:
        talk = syn_received()
        talk.near("A")
        for at in range(0, CREDIT, 32_768):
            talk.near("PA", seq=1 + at, text=b"x" * 32_768)
        assert talk.window == 0
        assert talk.near("PA", seq=1 + CREDIT, text=b"y") == [f"<< A 1 {1 + CREDIT}"]
        assert talk.near("A", seq=CREDIT) == [f"<< A 1 {1 + CREDIT}"]  # Linux's window probe
        assert talk.credit(65_536) == [f"<< A 1 {1 + CREDIT}"]
        assert talk.window == 65_536
        assert talk.credit(512) == []
        assert talk.near("FA", seq=1 + CREDIT) == ["-> FIN", f"<< A 1 {2 + CREDIT}"]
        assert talk.credit(1_000_000) == []

    def test_near_window_closes_and_is_probed(self) -> None:
        talk = established()
        talk.near("A", window=0)
        assert talk.data(b"abc") == []
        for _ in range(30):
            assert talk.tick() == ["<< A 0 1"]
            assert talk.near("A", window=0) == []
        assert talk.near("A", window=512) == ["<< PA 1 1 b'abc'"]
        assert talk.tick() == ["<< PA 1 1 b'abc'"]

    def test_probes_without_answer_end_the_flow(self) -> None:
        talk = established()
        talk.near("A", window=0)
        talk.data(b"abc")
        for _ in range(7):
            assert talk.tick() == ["<< A 0 1"]
        assert talk.tick()[-1] == "closed 1: the application's side does not answer"

    def test_lost_text_is_sent_again_from_the_first(self) -> None:
        talk = established()
        talk.data(b"a" * 65_536)
        talk.near("A", ack=1, window=2000)
        assert talk.tick() == [f"<< PA 1 1 {44 * MSS} bytes", "<< PA 64241 1 1296 bytes"]
        assert talk.near("A", ack=65_537) == ["-> CREDIT 65536"]

    def test_far_overruns_its_credit(self) -> None:
        talk = established()
        for _ in range(4):
            talk.data(b"x" * 65_536)
        lines = talk.data(b"x")
        assert lines[0] == "-> RST EPROTO"
        assert lines[-1] == "closed 1: protocol error: 1 bytes came with a credit of 0"

    def test_empty_data_and_credit_beyond_all_bounds(self) -> None:
        assert established().data(b"")[0] == "-> RST EPROTO"
        talk = established()
        assert talk.credit(2**31)[0] == "-> RST EPROTO"

    def test_reset_rules(self) -> None:
        talk = established()
        assert talk.near("R", seq=0) == []  # before the window
        assert talk.near("R", seq=2 + CREDIT) == []  # behind it
        assert talk.near("R", seq=100) == ["<< A 1 1"]  # in it: challenged
        assert talk.near("RA", seq=1) == ["-> RST ECONNRESET", "closed 1: reset by the application"]

    def test_syn_is_challenged(self) -> None:
        talk = established()
        assert talk.syn() == ["<< A 1 1"]
        assert talk.syn(seq=77) == ["<< A 1 1"]

    def test_far_reset(self) -> None:
        talk = established()
        assert talk.coded(FrameType.RST, errno.ECONNRESET, "gone") == ["<< RA 1 1", "closed 1: gone"]

    def test_without_offload_segments_fit_the_mtu_and_are_summed(self) -> None:
        talk = established(gso=False)
        lines = talk.data(b"x" * 3000)
        assert lines == [
            "<< PA 1 1 1460 bytes",
            "<< PA 1461 1 1460 bytes",
            "<< PA 2921 1 80 bytes",
        ] or lines == [
            "<< PA 1 1 1460 bytes",
            "<< PA 1461 1 1460 bytes",
        ]
        assert all(whole(a)[0] == 0 for a in talk.actions if isinstance(a, SendPacket))

    def test_a_short_way_needs_no_large_window(self) -> None:
        talk = established(limits=Limits(initial_credit=1000, maximum_credit=4000))
        talk.stack.set_path_rtt(0.001)
        talk.data(b"x" * 500)
        talk.near("A", ack=501)
        talk.now += 0.01
        talk.data(b"x" * 500)
        assert talk.near("A", ack=1001) == ["-> CREDIT 500"]  # no growth


class TestEnds:
    def test_near_first(self) -> None:
        talk = close_wait()
        assert talk.near("FA") == ["<< A 1 2"]
        assert talk.near("PA", text=b"old") == ["<< A 1 2"]
        assert talk.data(b"reply") == ["<< PA 1 2 b'reply'"]
        assert talk.eof() == ["<< FPA 6 2"]
        assert talk.state == "LAST_ACK"
        assert talk.near("A", seq=2, ack=6) == []
        assert talk.near("A", seq=2, ack=7) == ["closed 1: closed"]
        assert talk.stack.open_flows == 0

    def test_far_first(self) -> None:
        talk = fin_wait_1()
        assert talk.near("PA", text=b"more") == ["-> DATA b'more'", "<< A 2 5"]
        assert talk.near("A", seq=5, ack=2) == []
        assert talk.state == "FIN_WAIT_2"
        assert talk.near("FA", seq=5, ack=2) == ["-> FIN", "<< A 2 6"]
        assert talk.state == "TIME_WAIT"
        assert talk.tick() == ["closed 1: closed"]

    def test_fin_and_its_acknowledgement_in_one_segment(self) -> None:
        talk = fin_wait_1()
        assert talk.near("FA", ack=2) == ["-> FIN", "<< A 2 2"]
        assert talk.state == "TIME_WAIT"

    def test_both_at_once(self) -> None:
        talk = closing()
        assert talk.near("FA") == ["<< A 2 2"]
        assert talk.near("A", seq=2, ack=2) == []
        assert talk.state == "TIME_WAIT"
        talk.wait(2.1)
        assert talk.state == "CLOSED"

    def test_fin_again_in_last_ack(self) -> None:
        assert last_ack().near("FA") == ["<< A 2 2"]

    def test_time_wait_answers_and_starts_again(self) -> None:
        talk = time_wait()
        talk.wait(1.5)
        assert talk.near("FA", ack=2) == ["<< A 2 2"]
        assert talk.wait(1.5) == []
        assert talk.state == "TIME_WAIT"
        assert talk.wait(1.5) == ["closed 1: closed"]

    def test_time_wait_makes_way_for_a_new_connection(self) -> None:
        talk = time_wait()
        assert talk.syn(seq=1) == ["<< A 2 2"]
        assert talk.syn(seq=100) == ["closed 1: replaced", "opened 2", "-> OPEN"]

    def test_lost_fin_is_sent_again(self) -> None:
        talk = fin_wait_1()
        assert talk.tick() == ["<< FPA 1 1"]

    def test_fin_waits_for_the_window(self) -> None:
        talk = established()
        talk.near("A", window=0)
        assert talk.eof() == []
        assert talk.tick() == ["<< A 0 1"]
        assert talk.near("A", window=1) == ["<< FPA 1 1"]

    def test_far_must_not_go_on_after_its_fin(self) -> None:
        assert fin_wait_1().data(b"x")[0] == "-> RST EPROTO"
        assert fin_wait_2().eof()[-1] == "closed 1: protocol error: a second FIN"

    def test_no_credit_after_the_far_fin(self) -> None:
        talk = established()
        talk.data(b"x" * 65_536)
        talk.eof()
        assert talk.near("A", ack=64_241) == ["<< FPA 65537 1"]
        assert talk.near("A", ack=65_538) == []

    @pytest.mark.parametrize("name", BUILDERS)
    def test_reset_by_either_side_in_every_state(self, name: str) -> None:
        talk = BUILDERS[name]()
        seq = 2 if name in {"CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"} else 1
        assert talk.near("R", seq=seq)[-1] == "closed 1: reset by the application"
        assert talk.state == "CLOSED"
        talk = BUILDERS[name]()
        assert talk.coded(FrameType.RST, 0)[-1] == "closed 1: reset by the cluster"
        assert talk.near("A") == ["<< R 1 0"]
