"""Some minutes of flows, bulk, names and reconnects leave no memory, descriptor, flow or thread behind; every byte is right.

CI gives it three, beside the other tests (.ci/test.py); thirty are by hand: python -m tests.soak.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import run
from tests.soak.long import GROWTH, Looks
from tests.soak.looking import Process

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = float(os.environ.get("TELEMAGIC_SOAK_SECONDS", "20"))


@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
def test_nothing_grows() -> None:
    with private_runtime(), start(owned=True) as cluster:
        print(run(cluster, f"from tests.soak import long; long.main({SECONDS})", SECONDS + 150))  # noqa: T201  # the figures


def looks(rows: Iterable[tuple[float, int, int, int]]) -> Looks:
    return Looks("netd", Process(os.getpid()), list(rows))


def test_what_grows_is_told() -> None:
    steady = [(float(at), 1000, 7, 1) for at in range(10)]
    assert looks(steady).problems(4.0) == []
    assert looks([*steady[:6], *((float(at), 1000 + GROWTH * 2, 7, 1) for at in range(6, 10))]).problems(
        4.0
    ) == [f"netd: memory went from 1000 to {1000 + GROWTH * 2}"]
    leaking = [(float(at), 1000, 7 + at, 1 + at) for at in range(10)]
    assert [line.split(" went")[0] for line in looks(leaking).problems(2.0)] == [
        "netd: descriptors",
        "netd: threads",
    ]


def test_what_comes_and_goes_does_not_grow() -> None:
    rows = [(float(at), 1000, 31 + (at * 7) % 19, 2 + at % 3) for at in range(30)]
    assert looks(rows).problems(0.0) == []
    leaking = [
        (at, memory, fds + int(at) // 8, threads) for at, memory, fds, threads in rows
    ]  # one in eight rounds
    assert [line.split(" went")[0] for line in looks(leaking).problems(0.0)] == ["netd: descriptors"]


def test_what_is_taken_while_warming_up_is_not_counted() -> None:
    rows = [(0.0, 1000, 7, 1), (1.0, GROWTH * 3, 30, 9), (2.0, GROWTH * 3, 30, 9), (3.0, GROWTH * 3, 30, 9)]
    assert looks(rows).problems(1.0) == []
    assert looks(rows).line(1.0).startswith("| netd | 0.0 | ")


def test_a_process_is_looked_at() -> None:
    one = looks([])
    one.look(1.0)
    assert one.rows[0][1] > 1_000_000
    assert one.rows[0][2:] >= (3, 1)
