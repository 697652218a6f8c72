"""What a program of this machine sees of a destination that refuses, cannot be reached, or does not answer."""

from __future__ import annotations

from typing import Final

import pytest

from tests.netns.near_side import run

pytestmark = pytest.mark.netns

BOTH_FAMILIES: Final = pytest.mark.parametrize("family", [4, 6])
# Seconds; far beyond what any of the answers may take, below the first repetition of a SYN (1 s) where that matters.
SOON: Final = 0.9


@BOTH_FAMILIES
def test_a_connect_that_blocks_says_why(family: int) -> None:
    lines, facts = run(
        f"""
for port in (REFUSED, NO_ROUTE):
    start = time.monotonic()
    try:
        connect(port, None)
    except OSError as error:
        print(errno.errorcode[error.errno], time.monotonic() - start < {SOON})
""",
        family=family,
    )
    assert lines == ["ECONNREFUSED True", "EHOSTUNREACH True"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "ECONNREFUSED"], ["CLOSED", "EHOSTUNREACH"]]


@BOTH_FAMILIES
def test_a_program_that_polls_hears_why_at_the_latest_from_its_first_call(family: int) -> None:
    """IPv4's ICMP error wakes poll(2) before it is the socket's error; see tcp_dial. What follows is honest."""
    lines, _ = run(
        """
for port in (REFUSED, NO_ROUTE) * 20:
    try:
        s = connect(port, 20)
        s.recv(1)
    except OSError as error:
        print(errno.errorcode.get(error.errno))
""",
        family=family,
    )
    assert lines == ["ECONNREFUSED", "EHOSTUNREACH"] * 20


def test_where_icmp_is_not_heard_there_is_a_reset() -> None:
    """As behind a firewall: the socket takes nothing with a TTL below 60, and the ICMP error cites its SYN with 10."""
    lines, _ = run(
        f"""
start = time.monotonic()
try:
    connect(NO_ROUTE, None, before=[(socket.IPPROTO_IP, socket.IP_TTL, 10), (socket.IPPROTO_IP, 21, 60)])  # IP_MINTTL
except OSError as error:
    print(errno.errorcode[error.errno], time.monotonic() - start < {SOON})
"""
    )
    assert lines == ["ECONNREFUSED True"]


@BOTH_FAMILIES
def test_a_black_hole_is_one_and_is_not_dialed_again(family: int) -> None:
    lines, facts = run(
        """
try:
    connect(BLACK_HOLE, 1.5)
except TimeoutError:
    print("timed out")
""",
        family=family,
    )
    assert lines == ["timed out"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "ETIMEDOUT"]]
    assert facts["drops"]["SYN to a black hole"] >= 1  # repeated after a second
