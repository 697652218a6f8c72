"""How long one small exchange takes: on a connection that is there, and on one that must be made first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic.bench.meter import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemagic.bench.dial import FarEnd

REQUEST: Final = bytes(64)  # and the answer
MOST: Final = 200_000  # samples; on loopback seconds' worth
MOST_CONNECTS: Final = 2_000  # see telemagic.bench.timewait
_WARM_UP: Final = 100  # samples that are not counted, or a tenth of all if that is less


@dataclass(frozen=True, slots=True)
class Latency:
    """Two percentiles in seconds, and of how many samples."""

    p50: float
    p99: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[int]) -> Latency:
        """Take nanoseconds, in the order they were measured."""
        counted = sorted(samples[min(_WARM_UP, len(samples) // 10) :])
        return cls(percentile(counted, 0.5) / 1e9, percentile(counted, 0.99) / 1e9, len(counted))


def request_response(far: FarEnd, port: int, *, seconds: float, most: int = MOST) -> Latency:
    """Ask and await the answer, one after the other, on one connection."""
    with far.dial(port) as connection:
        send, receive, clock = connection.sendall, connection.recv, time.perf_counter_ns
        samples: list[int] = []
        until = clock() + int(seconds * 1e9)
        size = left = len(REQUEST)
        while len(samples) < most:
            begun = clock()
            send(REQUEST)
            left = size
            while left:
                got = len(receive(left))
                if not got:
                    raise ConnectionError("closed by the far end")
                left -= got
            now = clock()
            samples.append(now - begun)
            if now > until:
                break
    return Latency.of(samples)


def connect_and_first_byte(far: FarEnd, port: int, *, seconds: float, most: int = MOST_CONNECTS) -> Latency:
    """Connect, send a byte, get it back, close; one after the other. Closing is not in the time."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    until = clock() + int(seconds * 1e9)
    while len(samples) < most:
        begun = clock()
        with far.dial(port) as connection:
            connection.sendall(b"?")
            if not connection.recv(1):
                raise ConnectionError("closed by the far end")
            now = clock()
        samples.append(now - begun)
        if now > until:
            break
    return Latency.of(samples)
