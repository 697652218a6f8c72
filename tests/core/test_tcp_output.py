from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.core.credit import CreditPool
from telehelper.core.flows import FlowStats
from telehelper.core.limits import Limits, Terms
from telehelper.core.packet import Segment, syn_options, to_key
from telehelper.core.seq import Seq
from telehelper.core.tcp_output import TcpOutput
from telehelper.core.tcp_receive import SHIFT, Receiver

from tests.core.builders import IRS, ISS, TCP, TCP6, describe

if TYPE_CHECKING:
    from telehelper.core.actions import Action
    from telehelper.core.flows import FiveTuple


def output(options: bytes, five_tuple: FiveTuple = TCP) -> tuple[TcpOutput, Receiver, FlowStats]:
    receiver, stats = Receiver(IRS), FlowStats(1, five_tuple, 0.0)
    syn = Segment(to_key(five_tuple), IRS, 0, 2, 1000, memoryview(b""), options)
    return TcpOutput(syn, receiver, stats, Terms(Limits(), CreditPool(), 1500, True)), receiver, stats


def test_agreed_in_the_syn() -> None:
    out, receiver, _ = output(syn_options(1400, 7))
    assert (out.mss, out.shift, receiver.shift) == (1400, 7, SHIFT)
    out, receiver, _ = output(syn_options(9000, None), TCP6)
    assert (out.mss, out.shift, receiver.shift) == (1440, 0, 0)


def test_a_near_side_that_offers_scale_zero_still_gets_ours() -> None:
    out, receiver, _ = output(syn_options(1400, 0))
    assert (out.shift, receiver.shift) == (0, SHIFT)


def test_segments_and_their_count() -> None:
    out, _, stats = output(b"")
    actions: list[Action] = []
    out.is_ack_due = True
    out.send_syn(Seq(ISS), actions)
    out.send(Seq(ISS + 1), 16, actions, (b"ab", b"c"), 3)
    assert not out.is_ack_due
    out.send_reset(Seq(ISS + 4), actions)
    out.send_bare_reset((ISS + 9) & 0xFFFFFFFF, actions)
    assert [describe(action) for action in actions] == [
        "<< SA 0 1",
        "<< A 1 1 b'abc'",
        "<< RA 4 1",
        "<< R 9 0",
    ]
    assert stats.packets_down == 4
