"""Hostile packets and frames, near enough to be taken seriously, into a flow in any state.

Invariant: each input gives a list of actions; whatever is sent and not acknowledged has a timer that comes in time; what
is held never exceeds the windows granted; and left alone, what can end ends, without anything staying behind.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.core.actions import Drop
from telehelper.core.frames import Frame, FrameType, encode_coded
from telehelper.core.limits import Limits
from telehelper.core.packet import TcpTemplate, syn_options
from telehelper.core.rto import MAX_RTO
from telehelper.core.tcp_flow import TcpFlow

from tests.core.builders import BUILDERS, IRS, ISS, TCP, TCP6, Talk, credit_taken, describe, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.flows import FiveTuple

IPV6_UNSUMMED: Final = {10, 11, 12, 13, 17}  # version, traffic class, flow label; hop limit: RFC 8200 §3
LIMITS: Final = Limits(initial_credit=4096, maximum_credit=16_384)
NUMBERS: Final = st.sampled_from(
    [0, 1, 2, 3, 1461, 5000, 262_144, 2**31 - 1, 2**31, 2**32 - 1]
) | st.integers(0, 2**32 - 1)
OPTIONS: Final = st.sampled_from([b"", b"\2\4\0\0", b"\3\3\xff\0", b"\2\4\5\xb4\1\3\3\x0e"]) | st.binary(
    max_size=10
).map(lambda options: options.ljust(-len(options) % 4 + len(options), b"\0"))
SEGMENTS: Final = st.tuples(
    NUMBERS,
    NUMBERS,
    st.integers(0, 255),
    st.sampled_from([0, 1, 100, 65_535]),
    st.sampled_from([0, 1, 1460, 60_000]),
    OPTIONS,
)
FRAMES: Final = st.builds(
    Frame,
    st.sampled_from(FrameType),
    st.integers(1, 2),
    st.sampled_from([b"", b"\0", b"\0\0\x10\0", b"\xff\xff\xff\xff", bytes(1000), bytes(4096)]),
) | st.builds(
    encode_coded,
    st.sampled_from([FrameType.REJECTED, FrameType.RST]),
    st.just(1),
    st.sampled_from([0, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, 65_535]),
)
INPUTS: Final = SEGMENTS | FRAMES | st.floats(0, 20) | st.binary(max_size=80)


def apply(talk: Talk, item: object) -> None:
    if isinstance(item, Frame):
        talk.take(talk.stack.receive_frame(item, talk.now))
    elif isinstance(item, float):
        talk.wait(item)
    elif isinstance(item, bytes):
        talk.take(talk.stack.receive_packet(item, talk.now))
    else:
        assert isinstance(item, tuple)
        seq, ack, flags, window, size, options = item
        packet = talk.template.segment(
            (IRS + seq) & 0xFFFFFFFF,
            (ISS + ack) & 0xFFFFFFFF,
            flags,
            window,
            (bytes(size),),
            size,
            options,
        )
        talk.take(talk.stack.receive_packet(whole(packet), talk.now))
    assert all(describe(action) for action in talk.actions)


def check(talk: Talk) -> None:
    stack, held = talk.stack, 0
    for flow in stack._tcp.values():
        held += flow._issuer.window if flow._issuer._pool is not None else 0
        if isinstance(flow, TcpFlow):
            sender = flow._sender
            assert sender.buffer.size <= flow._issuer.window
            assert sender.una <= sender.nxt <= sender.sent
            if sender.is_outstanding or sender.is_stuck:
                assert flow.deadline is not None
        if flow.deadline is not None:
            due = stack.next_timer()
            assert due is not None
            assert due <= flow.deadline <= talk.now + max(MAX_RTO, LIMITS.dial_timeout + LIMITS.dial_grace)
    assert credit_taken(stack) == held


@settings(max_examples=300, deadline=None)
@given(
    build=st.sampled_from(list(BUILDERS.values())),
    five_tuple=st.sampled_from([TCP, TCP6]),
    options=st.sampled_from([syn_options(1460, 7), syn_options(64, None), b""]),
    gso=st.booleans(),
    inputs=st.lists(INPUTS, max_size=30),
)
def test_hostile_inputs_in_every_state(
    build: Callable[..., Talk], five_tuple: FiveTuple, options: bytes, gso: bool, inputs: list[object]
) -> None:
    talk = build(five_tuple=five_tuple, options=options, gso=gso, limits=LIMITS)
    for item in inputs:
        apply(talk, item)
        check(talk)
    for _ in range(100):  # near falls silent; what waits for it is given up
        talk.tick()
        check(talk)
    assert talk.stack.next_timer() is None
    for flow in talk.stack._tcp.values():
        assert isinstance(flow, TcpFlow)
        assert not flow._sender.is_outstanding
    talk.stack.reset_flows(None, "end", talk.now)
    assert (talk.stack.open_flows, credit_taken(talk.stack)) == (0, 0)


@given(st.integers(0, 61), st.integers(0, 255), st.sampled_from([TCP, TCP6]))
def test_a_corrupt_packet_is_dropped(at: int, value: int, five_tuple: FiveTuple) -> None:
    """One byte of a good segment was changed; a checksum finds it, unless it is in what IPv6 has none for."""
    talk = BUILDERS["ESTABLISHED"](five_tuple=five_tuple)
    template = TcpTemplate(talk.key, 1460, offload=False)
    seq, ack = (IRS + 1) & 0xFFFFFFFF, (ISS + 1) & 0xFFFFFFFF
    data = bytearray(whole(template.segment(seq, ack, 24, 512, (b"hi",), 2)))
    at = 10 + at % (len(data) - 10)
    is_whole = data[at] == value or (
        five_tuple == TCP6 and at in IPV6_UNSUMMED and (at > 10 or value >> 4 == 6)
    )
    data[at] = value
    lines = talk.take(talk.stack.receive_packet(bytes(data), talk.now))
    if is_whole:
        assert lines == ["-> DATA b'hi'", "<< A 1 3"]
    else:
        assert all(isinstance(action, Drop) for action in talk.actions)
    assert talk.state == "ESTABLISHED"
