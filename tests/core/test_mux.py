from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.frames import MAX_DATA, MAX_PAYLOAD, Frame, FrameDecoder, FrameType, encode
from telehelper.core.mux import (
    DEAD_AFTER,
    FIRST_PING,
    HEADER_SIZE,
    MAX_CONTROL,
    MAX_DATAGRAM_QUEUE,
    MAX_PONGS,
    MAX_QUEUE_FOR_DATAGRAMS,
    PING_INTERVAL,
    PROBE_TIMEOUT,
    QUANTUM,
    SMALL,
    Mux,
)
from telehelper.errors import LocalProtocolError, TunnelError

ALL = 1 << 30  # a budget for everything
FIN = FrameType.FIN


def data(flow: int, payload: bytes = b"x") -> Frame:
    return Frame(FrameType.DATA, flow, payload)


def datagram(flow: int, payload: bytes = b"x") -> Frame:
    return Frame(FrameType.DATAGRAM, flow, payload)


def ping(number: int) -> Frame:
    return Frame(FrameType.PING, 0, number.to_bytes(8, "big"))


def pong(number: int) -> Frame:
    return Frame(FrameType.PONG, 0, number.to_bytes(8, "big"))


def taken(mux: Mux, budget: int = ALL) -> list[Frame]:
    return FrameDecoder().feed(b"".join(mux.take(budget)))


# --- sending: order ---


def test_nothing_queued_nothing_taken() -> None:
    assert Mux(0.0).take(ALL) == []


def test_control_goes_first_in_its_order() -> None:
    mux = Mux(0.0)
    hello, credit = Frame(FrameType.HELLO, 0, b"\0\1token"), Frame(FrameType.CREDIT, 2, bytes(4))
    for frame in (data(1), hello, data(1, b"y"), credit):
        mux.send(frame)
    assert taken(mux) == [hello, credit, data(1), data(1, b"y")]
    assert mux.queued == 0


def test_flows_take_turns_and_fin_stays_behind_data() -> None:
    mux = Mux(0.0)
    big = bytes(MAX_DATA)
    for frame in (data(1, big), data(1, big), Frame(FIN, 1), data(2), data(2, b"y"), Frame(FIN, 2)):
        mux.send(frame)
    assert taken(mux) == [
        data(1, big),
        data(2),
        data(2, b"y"),
        Frame(FIN, 2),
        data(1, big),
        Frame(FIN, 1),
    ]


def test_turns_are_of_bytes_not_frames() -> None:
    mux = Mux(0.0)
    for _ in range(300):
        mux.send(data(1, bytes(1000)))
    mux.send(data(2, bytes(MAX_DATA)))
    order = [frame.flow for frame in taken(mux)]
    assert QUANTUM // 1010 <= order.index(2) <= QUANTUM // 1000


def test_flow_goes_on_where_it_stopped() -> None:
    mux = Mux(0.0)
    for i in range(4):
        mux.send(data(1, bytes([i]) * 50_000))
        mux.send(data(2, bytes([i]) * 50_000))
    got = [(f.flow, f.payload[0]) for _ in range(8) for f in taken(mux, 1)]
    assert got == [(flow, i) for i in range(4) for flow in (1, 2)]


def test_budget_is_kept_roughly_and_one_frame_always_goes() -> None:
    mux = Mux(0.0)
    for _ in range(10):
        mux.send(data(1, bytes(MAX_DATA)))
    assert len(taken(mux, 1)) == 1
    assert len(taken(mux, 2 * MAX_DATA)) == 2
    for _ in range(3):
        mux.send(Frame(FrameType.CREDIT, 1, bytes(4)))
    assert [frame.type for frame in taken(mux, 13)] == [FrameType.CREDIT] * 2
    assert mux.queued == 7 * (MAX_DATA + 8) + 12


def test_payloads_are_not_copied_but_for_small_ones() -> None:
    mux = Mux(0.0)
    big, small = bytearray(SMALL + 1), memoryview(b"small")
    mux.send(Frame(FrameType.DATA, 1, big))
    mux.send(Frame(FrameType.DATA, 1, small))
    header, payload, joined = mux.take(ALL)
    assert payload is big
    assert (len(header), joined[-5:]) == (8, b"small")


# --- sending: RST and dropping ---


def test_reset_overtakes_and_drops_what_its_flow_has_queued() -> None:
    mux = Mux(0.0)
    rst = Frame(FrameType.RST, 1, b"\0\x68")
    for frame in (data(1), data(2), Frame(FIN, 1), rst):
        mux.send(frame)
    assert taken(mux) == [rst, data(2)]


def test_dropping_a_flow_forgets_its_data_only() -> None:
    mux = Mux(0.0)
    credit = Frame(FrameType.CREDIT, 1, bytes(4))
    for frame in (data(1), credit, data(2)):
        mux.send(frame)
    assert (mux.queued_of(1), mux.queued_of(3)) == (9, 0)
    mux.drop_flow(1)
    mux.drop_flow(3)
    assert mux.queued == 12 + 9
    assert taken(mux) == [credit, data(2)]


def test_datagrams_beyond_the_queue_are_dropped_and_counted() -> None:
    mux = Mux(0.0)
    for _ in range(5):
        mux.send(datagram(1, bytes(60_000)))
        mux.send(datagram(2))
    assert mux.dropped_datagrams == 1
    assert mux.queued_of(1) <= MAX_DATAGRAM_QUEUE
    assert len(taken(mux)) == 9


# --- sending: misuse ---


@pytest.mark.parametrize(
    "frame",
    [
        data(0),
        Frame(FrameType.HELLO, 1, b"\0\1"),
        ping(1),
        pong(1),
        Frame(FrameType.PING, 1, bytes(8)),
        data(1, b""),
        data(1, bytes(MAX_DATA + 1)),
        Frame(FIN, 1, b"x"),
        datagram(1, bytes(MAX_PAYLOAD + 1)),
        Frame(FrameType.OPEN, 1, bytes(MAX_PAYLOAD + 1)),
    ],
)
def test_misuse_is_our_bug_and_changes_nothing(frame: Frame) -> None:
    mux = Mux(0.0)
    with pytest.raises(LocalProtocolError):
        mux.send(frame)
    assert (mux.queued, mux.take(ALL)) == (0, [])


@pytest.mark.parametrize("frame", [data(1), Frame(FIN, 1), datagram(1)])
def test_nothing_follows_a_fin(frame: Frame) -> None:
    mux = Mux(0.0)
    mux.send(Frame(FIN, 1))
    with pytest.raises(LocalProtocolError, match="after FIN"):
        mux.send(frame)
    assert taken(mux) == [Frame(FIN, 1)]


# --- receiving ---


def test_frames_come_out_however_they_are_cut() -> None:
    frames = [data(1, b"hello"), ping(7), Frame(FIN, 1), pong(3), datagram(2, b"")]
    stream = b"".join(encode(frame) for frame in frames)
    whole, piecewise = Mux(0.0), Mux(0.0)
    expected = [frames[0], frames[2], frames[4]]
    assert whole.receive_data(stream, 1.0) == expected
    got: list[Frame] = []
    for i in range(len(stream)):
        got += piecewise.receive_data(stream[i : i + 1], 1.0)
        assert piecewise.at_boundary() == (i + 1 in {13, 29, 37, 53, 61})
    assert got == expected
    assert taken(whole) == taken(piecewise) == [pong(7)]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n", encode(Frame(FrameType.PING, 0, b"short"))])
def test_garbage_is_the_far_sides_fault(garbage: bytes) -> None:
    with pytest.raises(TunnelError):
        Mux(0.0).receive_data(garbage, 0.0)


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(received: bytes) -> None:
    try:
        frames = Mux(0.0).receive_data(received, 0.0)
    except TunnelError:
        return
    assert all(isinstance(frame, Frame) for frame in frames)


# --- time ---


def test_heartbeat_measures_the_round_trip_smoothly() -> None:
    mux = Mux(100.0)
    assert mux.next_timer() == 100.0 + FIRST_PING
    mux.handle_timer(100.0)  # too early: nothing happens
    mux.handle_timer(100.2)
    mux.send(data(1))
    assert taken(mux) == [ping(1), data(1)]
    assert mux.rtt is None
    mux.receive_data(encode(pong(1)), 100.21)
    assert mux.rtt == pytest.approx(0.01)
    mux.receive_data(encode(pong(1)), 100.5)  # twice: ignored
    mux.handle_timer(103.2)
    mux.receive_data(encode(pong(1)), 103.3)  # an old one: ignored
    mux.receive_data(encode(pong(2)), 103.3)
    assert mux.rtt == pytest.approx(0.01 + 0.09 / 8)
    assert mux.min_rtt == pytest.approx(0.01)


def test_dead_after_silence_and_found_out_in_time() -> None:
    mux = Mux(0.0)
    now, died = 0.0, None
    while died is None:
        now = mux.next_timer()
        mux.handle_timer(now)
        died = now if mux.is_dead(now) else None
    assert died == DEAD_AFTER < 10
    assert [frame.type for frame in taken(mux)] == [FrameType.PING] * 3


def test_any_byte_is_a_sign_of_life() -> None:
    mux = Mux(0.0)
    mux.receive_data(b"\5", 8.0)
    mux.receive_data(b"", 12.0)  # but no byte is none
    assert not mux.is_dead(8.0 + DEAD_AFTER - 0.01)
    assert mux.is_dead(8.0 + DEAD_AFTER)


def test_having_stood_still_is_not_the_far_sides_silence() -> None:
    mux = Mux(0.0)
    mux.handle_timer(FIRST_PING)
    mux.handle_timer(60.0)
    assert not mux.is_dead(60.0)
    assert mux.is_dead(60.0 + PING_INTERVAL)


def test_a_probe_asks_at_once_and_does_not_wait_long() -> None:
    mux = Mux(0.0)
    mux.handle_timer(FIRST_PING)
    mux.take(1000)
    mux.probe(1.0)
    assert mux.next_timer() <= 1.0
    mux.handle_timer(1.0)
    assert mux.queued  # a PING
    mux.handle_timer(1.0 + PROBE_TIMEOUT - 0.1)
    assert not mux.is_dead(1.0 + PROBE_TIMEOUT - 0.1)
    assert mux.is_dead(1.0 + PROBE_TIMEOUT)


def test_a_probe_that_is_answered_changes_nothing() -> None:
    mux, far = Mux(0.0), Mux(0.0)
    mux.probe(1.0)
    mux.handle_timer(1.0)
    far.receive_data(b"".join(mux.take(1000)), 1.1)
    mux.receive_data(b"".join(far.take(1000)), 1.2)
    assert not mux.is_dead(1.2 + DEAD_AFTER - 0.1)
    assert mux.is_dead(1.2 + DEAD_AFTER)


def test_a_probe_gives_nobody_more_time() -> None:
    mux = Mux(0.0)
    mux.probe(DEAD_AFTER - 1)
    assert mux.is_dead(DEAD_AFTER)


def test_far_side_that_does_not_read_is_dead() -> None:
    mux = Mux(0.0)
    for _ in range(MAX_CONTROL + 1):
        mux.send(Frame(FrameType.CREDIT, 1, bytes(4)))
    assert mux.is_dead(0.0)


def test_flood_of_pings_is_answered_within_bounds() -> None:
    mux = Mux(0.0)
    stream = b"".join(encode(ping(i)) for i in range(MAX_PONGS + 3))
    mux.receive_data(stream, 0.0)
    assert mux.dropped_pongs == 3
    assert taken(mux) == [pong(i) for i in range(MAX_PONGS)]
    mux.receive_data(encode(ping(99)), 0.0)
    assert taken(mux) == [pong(99)]


# --- the whole ---


_SENT = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([1, 100, SMALL + 1, MAX_DATA]), st.booleans()), max_size=40
)


@settings(max_examples=50, deadline=None)
@given(_SENT, st.integers(1, 300_000), st.integers(4_000, 200_000))
def test_every_flow_arrives_whole_and_in_order(
    sent: list[tuple[int, int, bool]], budget: int, chunk: int
) -> None:
    near, far = Mux(0.0), Mux(0.0)
    expected: dict[int, bytes] = {}
    got: dict[int, bytes] = {}

    def carry() -> None:
        stream = b"".join(near.take(budget))
        for at in range(0, len(stream), chunk):
            for frame in far.receive_data(stream[at : at + chunk], 0.0):
                got[frame.flow] = got.get(frame.flow, b"") + bytes(frame.payload)

    for number, (flow, size, now) in enumerate(sent):
        payload = bytes([number]) * size
        near.send(data(flow, payload))
        expected[flow] = expected.get(flow, b"") + payload
        if now:
            carry()
    while near.queued:
        carry()
    assert got == expected
    assert near.take(budget) == []


def test_constants_fit_each_other() -> None:
    assert MAX_DATA <= QUANTUM
    assert FIRST_PING < PING_INTERVAL
    assert len(encode(Frame(FIN, 1))) == HEADER_SIZE


def test_reset_that_comes_in_drops_what_its_flow_has_queued() -> None:
    mux = Mux(0.0)
    for flow in (1, 2, 3):
        mux.send(Frame(FrameType.DATA, flow, b"x" * 100))
    reset = Frame(FrameType.RST, 2, b"\0\0")
    assert mux.receive_data(encode(reset), 0.0) == [reset]
    assert [mux.queued_of(flow) for flow in (1, 2, 3)] == [108, 0, 108]
    assert [frame.flow for frame in FrameDecoder().feed(b"".join(mux.take(10_000)))] == [1, 3]


def test_datagrams_of_many_flows_are_bounded_together() -> None:
    mux = Mux(0.0)
    flows = MAX_QUEUE_FOR_DATAGRAMS // 60_000 + 10
    for flow in range(1, flows + 1):
        mux.send(Frame(FrameType.DATAGRAM, flow, bytes(60_000)))
    assert mux.dropped_datagrams > 0
    assert mux.queued <= MAX_QUEUE_FOR_DATAGRAMS + 60_008
    mux.send(Frame(FrameType.DATA, 1, b"x"))  # who has credit is not affected
    assert mux.queued_of(1) == 60_008 + 9
