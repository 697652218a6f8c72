from __future__ import annotations

import pytest
from telehelper.core.rto import INITIAL_RTO, MAX_RTO, MAX_UNANSWERED, Rto


def test_doubles_to_a_bound_and_gives_up() -> None:
    assert Rto().deadline is None
    rto = Rto()
    rto.arm(0.0)
    rto.arm(5.0)  # it runs already
    assert rto.deadline == INITIAL_RTO
    gaps = []
    now = rto.deadline
    for _ in range(MAX_UNANSWERED):
        assert rto.expire(now)
        gaps.append(rto.deadline - now)
        now = rto.deadline
    assert gaps == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, MAX_RTO, MAX_RTO])
    assert not rto.expire(now)


def test_progress_starts_over() -> None:
    rto = Rto()
    rto.arm(0.0)
    rto.expire(0.2)
    rto.progress(1.0, outstanding=True)
    assert rto.deadline == 1.0 + INITIAL_RTO
    rto.progress(2.0, outstanding=False)
    assert rto.deadline is None


def test_answered_probes_go_on_for_ever() -> None:
    rto = Rto()
    rto.arm(0.0)
    for _ in range(100):
        assert rto.deadline is not None
        assert rto.expire(rto.deadline)
        rto.heard()
