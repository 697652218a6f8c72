"""The search on made-up links, and the sender against a real counter."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

import pytest

from telemagic.bench import udp_rate
from telemagic.bench.dial import FarEnd
from telemagic.bench.udp_rate import Round, Sender, search
from telemagic.bench.udp_service import COUNT, KEY, KEYS, UdpCounter
from tests.bench import far

if TYPE_CHECKING:
    from collections.abc import Iterator

FASTEST = 400_000.0  # datagrams per second that the made-up sender can send


class Link:
    """Carries so many datagrams per second and loses what is more; under overload only `collapsed` of it."""

    def __init__(self, capacity: float, *, collapsed: float = 1.0, hiccups: int = 0) -> None:
        self.capacity = capacity
        self.collapsed = collapsed
        self.hiccups = hiccups  # so many long rounds lose 5 % whatever the rate
        self.rounds: list[tuple[float, float]] = []

    def attempt(self, rate: float, seconds: float) -> Round:
        self.rounds.append((rate, seconds))
        offered = min(rate, FASTEST)
        through = offered if offered <= self.capacity else self.capacity * self.collapsed
        if seconds == udp_rate.LAST_ROUND and self.hiccups:
            self.hiccups -= 1
            through *= 0.95
        return Round(round(offered * seconds), round(through * seconds), seconds)


@pytest.mark.parametrize("capacity", [1_000, 20_000, 77_777, 250_000, 390_000])
@pytest.mark.parametrize("collapsed", [1.0, 0.5, 0.1])
def test_the_search_comes_near_the_limit_from_below(capacity: float, collapsed: float) -> None:
    link = Link(capacity, collapsed=collapsed)
    found = search(link.attempt)
    assert found
    assert found.is_good
    assert 0.9 * capacity <= found.received_per_second <= capacity * 1.001
    assert sum(seconds for _, seconds in link.rounds) <= 4.0


def test_a_link_faster_than_the_sender_takes_two_rounds() -> None:
    link = Link(1e9)
    found = search(link.attempt)
    assert found == Round(int(FASTEST), int(FASTEST), 1.0)
    assert [rate for rate, _ in link.rounds] == [math.inf, FASTEST]


def test_a_last_round_that_loses_is_tried_again_slower() -> None:
    link = Link(100_000, hiccups=2)
    found = search(link.attempt)
    assert found
    assert found.is_good
    assert 0.6 * 100_000 < found.received_per_second < 0.8 * 100_000


def test_what_always_loses_is_told_with_its_loss() -> None:
    rounds = []

    def attempt(rate: float, seconds: float) -> Round:
        rounds.append(rate)
        offered = round(min(rate, FASTEST) * seconds)
        return Round(offered, offered * 9 // 10, seconds)

    found = search(attempt)
    assert found
    assert not found.is_good
    assert found.loss == pytest.approx(0.1, abs=0.01)
    assert len(rounds) <= 1 + udp_rate.MOST_ROUNDS + udp_rate.LAST_ROUNDS


@pytest.mark.parametrize("capacity", [20_000, 250_000])
def test_a_brief_search_is_rough_and_is_short(capacity: float) -> None:
    link = Link(capacity)
    found = search(link.attempt, brief=True)
    assert found
    assert 0.5 * capacity <= found.received_per_second <= capacity * 1.001
    assert sum(seconds for _, seconds in link.rounds) <= 1.4


def test_a_link_that_carries_nothing_is_found_in_one_round() -> None:
    link = Link(0)
    assert search(link.attempt) is None
    assert len(link.rounds) == 1


def test_a_round_of_nothing_has_lost_nothing() -> None:
    assert Round(0, 0, 1.0).loss == 0.0


# --- the real ones -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counter() -> Iterator[int]:
    """Run a far end, and give its counter's port."""
    with far.running("--no-iperf3") as ports:
        yield ports.udp


def test_a_slow_round_arrives_whole(counter: int) -> None:
    sender = Sender(FarEnd.find("127.0.0.1"), counter)
    try:
        found = sender.attempt(2_000, 0.1)
    finally:
        sender.close()
    assert found.received == found.sent > 0
    assert found.sent <= found.seconds * 2_000 + 1  # a busy machine may make it slower, never faster
    assert found.seconds >= 0.1


def test_an_unpaced_round_is_faster_and_counts_what_came(counter: int) -> None:
    sender = Sender(FarEnd.find("127.0.0.1"), counter)
    try:
        found = sender.attempt(math.inf, 0.05)
        assert sender.cpu > 0
    finally:
        sender.close()
    assert 0 < found.received <= found.sent


def test_rounds_do_not_count_each_others_datagrams(counter: int) -> None:
    sender = Sender(FarEnd.find("127.0.0.1"), counter)
    try:
        rounds = [sender.attempt(1_000, 0.02) for _ in range(3)]
    finally:
        sender.close()
    assert [found.received for found in rounds] == [found.sent for found in rounds]


def test_nobody_there_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        with pytest.raises(ConnectionRefusedError):
            Sender(FarEnd.find("127.0.0.1"), unused.getsockname()[1])


class Script:
    """A receiver that has these datagrams, and then ends the counter's loop."""

    def __init__(self, *datagrams: bytes) -> None:
        self._left = iter(datagrams)

    def setsockopt(self, *_: object) -> None:
        pass

    def recv_into(self, buffer: bytearray) -> int:
        for datagram in self._left:
            buffer[: len(datagram)] = datagram
            return len(datagram)
        raise EOFError


def key(number: int) -> bytes:
    return number.to_bytes(KEY, "big")


def counted(*datagrams: bytes) -> dict[bytes, int]:
    service = UdpCounter()
    with pytest.raises(EOFError):
        service.count(Script(*datagrams))
    return service.counts


def test_a_counter_counts_by_the_first_bytes_and_ignores_what_has_none() -> None:
    assert counted(key(1), key(2) + b"more", b"short", b"", key(1) + b"else") == {key(1): 2, key(2): 1}


def test_a_counter_forgets_the_oldest_key() -> None:
    found = counted(*(key(number) for number in range(KEYS + 1)), key(1))
    assert len(found) == KEYS
    assert key(0) not in found
    assert found[key(1)] == 2


def test_half_a_key_is_no_question() -> None:
    service = UdpCounter()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(key(1) + b"half")
        ours.shutdown(socket.SHUT_WR)
        service.answer(theirs)
        assert ours.recv(100) == COUNT.pack(0)
