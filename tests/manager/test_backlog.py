"""The bound of what is queued down, by arithmetic alone."""

from __future__ import annotations

from telehelper.core.frames import MAX_DATA, Frame, FrameType
from telehelper.core.mux import HEADER_SIZE, Mux
from telehelper.manager.backlog import (
    CARRIER_BACKLOG,
    FLOW_BACKLOG,
    PIECE,
    SMALL_PIECE,
    Backlog,
    CarrierBacklog,
)
from telehelper.tcp_stream import READ_BUFFER

MIB = 1024 * 1024


def fill(carrier: CarrierBacklog, mux: Mux, flows: range) -> None:
    """Read for each flow as long as it may: services that send for ever, a carrier that takes nothing."""
    reading = set(flows)
    while reading:
        for flow in list(reading):
            size = carrier.room(flow)
            if size:
                mux.send(Frame(FrameType.DATA, flow, bytes(size)))
            else:
                reading.discard(flow)


def drain(mux: Mux) -> None:
    while mux.take(MIB):
        pass


def test_pieces_suit_both_ends_of_a_carrier() -> None:
    assert PIECE % 1460 == 0
    assert 4 * (PIECE + HEADER_SIZE) <= READ_BUFFER < 4 * (MAX_DATA + HEADER_SIZE)


def test_one_flow_stops_at_its_own_bound() -> None:
    mux = Mux(0.0)
    backlog = Backlog()
    carrier = CarrierBacklog(backlog, mux)
    fill(carrier, mux, range(1, 2))
    assert FLOW_BACKLOG <= mux.queued <= FLOW_BACKLOG + PIECE
    assert carrier.room(2) == PIECE
    assert carrier.has_room()
    drain(mux)
    assert carrier.room(1) == PIECE
    carrier.settle()
    assert backlog.queued == 0


def test_carrier_that_has_its_share_reads_small_pieces_for_flows_with_nothing_queued() -> None:
    mux = Mux(0.0)
    carrier = CarrierBacklog(Backlog(), mux)
    bulk = range(1, 100)
    while mux.queued < CARRIER_BACKLOG:
        for flow in bulk:
            if carrier.room(flow):
                mux.send(Frame(FrameType.DATA, flow, bytes(PIECE)))
    assert not any(carrier.room(flow) for flow in bulk if mux.queued_of(flow))
    assert carrier.room(1000) == SMALL_PIECE
    mux.send(Frame(FrameType.DATA, 1000, b"a short answer"))
    assert carrier.room(1000) == 0
    assert carrier.room(1001) == SMALL_PIECE


def test_ten_thousand_flows_of_one_carrier_are_bounded() -> None:
    mux = Mux(0.0)
    backlog = Backlog()
    carrier = CarrierBacklog(backlog, mux)
    fill(carrier, mux, range(1, 10_001))
    assert mux.queued <= 2 * CARRIER_BACKLOG + PIECE
    assert not carrier.has_room()
    drain(mux)
    assert carrier.has_room()
    assert all(carrier.room(flow) == PIECE for flow in (1, 5000, 10_000))


def test_many_carriers_share_and_something_is_left_for_the_next() -> None:
    size = 16 * MIB
    backlog = Backlog(size)
    carriers: list[tuple[CarrierBacklog, Mux]] = []
    for n in range(1, 65):
        mux = Mux(0.0)
        carrier = CarrierBacklog(backlog, mux)
        carriers.append((carrier, mux))
        assert carrier.room(1) == PIECE  # whatever the others have
        fill(carrier, mux, range(1, 33))
        assert mux.queued >= HEADER_SIZE + PIECE
        assert backlog.queued <= size + n * (HEADER_SIZE + PIECE)
    assert backlog.queued == sum(mux.queued for _, mux in carriers) or backlog.queued >= size // 2
    for carrier, _ in carriers:
        carrier.close()
        carrier.close()  # harmless
    assert backlog.queued == 0


def test_carrier_that_is_lost_gives_its_part_back() -> None:
    backlog = Backlog()
    stalled, other = Mux(0.0), Mux(0.0)
    lost = CarrierBacklog(backlog, stalled)
    fill(lost, stalled, range(1, 1000))
    lost.settle()
    assert backlog.queued == stalled.queued > CARRIER_BACKLOG
    lost.close()
    assert backlog.queued == 0
    assert CarrierBacklog(backlog, other).share == CARRIER_BACKLOG
