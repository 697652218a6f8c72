"""What a connected tunnel costs when nothing happens: processor time, and memory per idle flow."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telemagic.bench import processes
from telemagic.bench.children import first_line, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

HELPERS: Final = ("telehelper.datapath", "telehelper.netd")
MANAGER: Final = "telehelper.manager"
_SETTLE: Final = 0.3  # seconds after connecting, and after the last flow was opened
_HOLD_TIMEOUT: Final = 60.0  # seconds for all flows; 10,000 take about four


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel's processes, as directories of /proc; the data plane first."""

    near: tuple[Path, ...]
    far: tuple[Path, ...]

    @classmethod
    def find(cls, manager_network: int) -> Tunnel:
        """Find them: data plane and netd in the caller's network namespace, the manager in that of its pod."""
        return cls(tuple(helpers()), tuple(processes.find(MANAGER, manager_network)))


def helpers() -> list[Path]:
    """Return the data plane and netd of the caller's network namespace, in this order."""
    here = processes.own_network()
    return [found for module in HELPERS for found in processes.find(module, here)]


@dataclass(frozen=True, slots=True)
class Idle:
    """Fractions of a core: of data plane and netd, and of the manager."""

    near: float
    far: float


def idle(tunnel: Tunnel, seconds: float) -> Idle:
    """Measure for some seconds what the processes use of a core."""
    time.sleep(_SETTLE)
    before = [processes.cpu_seconds(found) for found in (tunnel.near, tunnel.far)]
    began = time.perf_counter()
    time.sleep(seconds)
    after = [processes.cpu_seconds(found) for found in (tunnel.near, tunnel.far)]
    took = time.perf_counter() - began
    return Idle(*((now - then) / took for then, now in zip(before, after, strict=True)))


def bytes_per_flow(tunnel: Tunnel, hold: Callable[[int], Sequence[str]], count: int) -> tuple[float, float]:
    """Return by how much data plane and manager, each, grow per flow when there are `count` more.

    Some flows come before, and stay: they use up what is free inside the two, so that the others show in full.

    Parameters
    ----------
    hold
        Gives the command that opens so many flows and keeps them.
    """
    with _held(hold, max(1, count // 10)):
        before = [processes.memory(found) for found in (tunnel.near[:1], tunnel.far)]
        with _held(hold, count):
            after = [processes.memory(found) for found in (tunnel.near[:1], tunnel.far)]
    near, far = ((now - then) / count for then, now in zip(before, after, strict=True))
    return near, far


@contextlib.contextmanager
def _held(hold: Callable[[int], Sequence[str]], count: int) -> Iterator[None]:
    with running(hold(count)) as process:
        first_line(process, "holding", _HOLD_TIMEOUT)
        time.sleep(_SETTLE)
        yield
