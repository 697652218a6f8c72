"""The highest rate of small datagrams that arrive: one way, from here to the far end's counter.

A round sends at a steady rate and asks over TCP how many came. The first round sends as fast as it can; then the
interval between a rate that got through and one that did not is halved, by ratio, until it is narrow. Last, a longer
round at what was found is the result; where that one loses too much, a lower rate is tried.
"""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic.bench.udp_service import COUNT, KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.bench.dial import FarEnd

SIZE: Final = 200  # bytes of a datagram's payload
TOLERATED: Final = 0.01  # of all sent
ROUND, LAST_ROUND = 0.25, 1.0  # seconds of sending
MOST_ROUNDS: Final = 9  # of searching: 6 halve a factor of 20 to 5 %
NARROW: Final = 1.05  # ratio of the two ends of the interval
LAST_ROUNDS: Final = 4
BRIEF: Final = 0.4  # of a round's time
STEP_DOWN: Final = 0.85  # after a lossy last round
LOWEST: Final = 100.0  # datagrams/s; below, the search gives up
_BURST: Final = 32  # datagrams between two looks at the clock
_TICK: Final = 0.0002  # seconds; a pause of the pacer
_SETTLED: Final = 0.05  # seconds without a datagram: what is still to come is lost
_LONGEST_SETTLING: Final = 1.5  # seconds


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found."""

    sent: int
    received: int
    seconds: float

    @property
    def loss(self) -> float:
        """Fraction of the datagrams that did not arrive."""
        return 1 - self.received / self.sent if self.sent else 0.0

    @property
    def is_good(self) -> bool:
        """Whether the loss is tolerable."""
        return self.loss <= TOLERATED

    @property
    def sent_per_second(self) -> float:
        """The rate that was really offered."""
        return self.sent / self.seconds

    @property
    def received_per_second(self) -> float:
        """The rate that got through."""
        return self.received / self.seconds


def search(attempt: Callable[[float, float], Round], *, brief: bool = False) -> Round | None:
    """Find the highest tolerable rate.

    Parameters
    ----------
    attempt
        Called with datagrams per second, infinity for as many as possible, and seconds.
    brief
        Half of the rounds, each for `BRIEF` of the time.

    Returns
    -------
    Round | None
        The last one. None when nothing arrived at all. Its loss is above `TOLERATED` when no rate was found.
    """
    pace = BRIEF if brief else 1.0
    found = attempt(math.inf, pace * ROUND)
    if not found.received:
        return None
    good, bad = 0.0, found.sent_per_second
    if found.is_good:
        good = bad
    else:
        wanted = min(found.received_per_second, bad / NARROW)
        for _ in range(MOST_ROUNDS // 2 if brief else MOST_ROUNDS):
            found = attempt(wanted, pace * ROUND)
            if found.is_good:
                good = max(good, min(wanted, found.sent_per_second))
            else:
                bad = wanted
            wanted = math.sqrt(good * bad) if good else bad / 3
            if wanted < LOWEST or (good and bad / good < NARROW):
                break
    wanted = good or bad
    for _ in range(LAST_ROUNDS // 2 if brief else LAST_ROUNDS):
        found = attempt(wanted, pace * LAST_ROUND)
        if found.is_good:
            break
        wanted *= STEP_DOWN
    return found


class Sender:
    """Sends rounds and asks what came."""

    def __init__(self, far: FarEnd, port: int) -> None:
        self._asking = far.dial(port)
        self._sending = socket.socket(far.family, socket.SOCK_DGRAM)
        self._sending.connect(far.at(port))
        self.cpu = 0.0  # fraction of a core that the last round took to send

    def attempt(self, rate: float, seconds: float) -> Round:
        """Send one round: `rate` per second for `seconds`."""
        key = os.urandom(KEY)  # what is late of another round has another key
        datagram = key + bytes(SIZE - KEY)
        cpu = time.process_time()
        sent, took = self._send(datagram, rate, seconds)
        self.cpu = (time.process_time() - cpu) / took
        return Round(sent, self._received(key, sent), took)

    def _send(self, datagram: bytes, rate: float, seconds: float) -> tuple[int, float]:
        send, clock = self._sending.send, time.perf_counter
        begun, sent, took = clock(), 0, 0.0
        while took < seconds:
            due = min(_BURST, math.ceil(took * rate) - sent) if rate < math.inf else _BURST
            if due > 0:
                for _ in range(due):
                    send(datagram)
                sent += due
            else:
                time.sleep(_TICK)
            took = clock() - begun
        return sent, took

    def _received(self, key: bytes, sent: int) -> int:
        until = time.monotonic() + _LONGEST_SETTLING
        before = -1
        while True:
            self._asking.sendall(key)
            answer = self._asking.recv(COUNT.size, socket.MSG_WAITALL)
            if len(answer) < COUNT.size:
                raise ConnectionError("closed by the far end")
            (count,) = COUNT.unpack(answer)
            if count in (before, sent) or time.monotonic() > until:
                return int(count)
            before = count
            time.sleep(_SETTLED)

    def close(self) -> None:
        """Close both sockets."""
        self._asking.close()
        self._sending.close()
