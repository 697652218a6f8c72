"""A session's pool gives no more than its part, and no more than there is; all of it comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.credit import FLOOR, INITIAL_WINDOW, CreditIssuer, CreditPool
from telehelper.manager.session_pool import SESSION_SIZE, SessionPool


def test_one_session_leaves_half_of_the_growth_to_others() -> None:
    shared = CreditPool()
    greedy, other = SessionPool(shared), SessionPool(shared)
    while greedy.take_growth(2**40):
        pass
    assert greedy.taken <= SESSION_SIZE // 2 == shared.size // 4
    assert other.take_growth(2**40) >= shared.size // 32


def test_a_flow_always_gets_the_floor() -> None:
    pool = SessionPool(CreditPool(0), 0)
    assert pool.take_first(INITIAL_WINDOW) == FLOOR
    assert pool.take_growth(100) == 0


@given(
    st.integers(0, 2**20), st.integers(0, 2**20), st.lists(st.tuples(st.booleans(), st.integers(0, 2**20)))
)
def test_what_was_taken_is_the_same_in_both_and_comes_back(
    all_of_it: int, part: int, takes: list[tuple[bool, int]]
) -> None:
    shared = CreditPool(all_of_it)
    pool = SessionPool(shared, part)
    first = sum(pool.take_first(wanted) for is_first, wanted in takes if is_first)
    grown = sum(pool.take_growth(wanted) for is_first, wanted in takes if not is_first)
    assert pool.taken == shared.taken == first + grown
    pool.give_back(first, grown)
    assert pool.taken == shared.taken == 0


def test_a_flow_that_ends_gives_back_to_both() -> None:
    shared = CreditPool()
    pool = SessionPool(shared)
    issuer = CreditIssuer(pool=pool)
    assert pool.taken == shared.taken == issuer.window
    issuer.close()
    assert pool.taken == shared.taken == 0
