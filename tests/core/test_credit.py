from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.credit import (
    FLOOR,
    GROWTH_TIME,
    INITIAL_WINDOW,
    MAX_CREDIT,
    MAX_WINDOW,
    MIN_GROWTH_TIME,
    POOL_SIZE,
    CreditBalance,
    CreditIssuer,
    CreditPool,
    growth_time,
)
from telehelper.errors import LocalProtocolError, TunnelError

KIB = 1024


def test_balance_is_spent_and_granted() -> None:
    balance = CreditBalance(100)
    balance.spend(60)
    balance.grant(10)
    assert balance.available == 50
    assert CreditBalance().available == 0


def test_spending_more_than_granted_is_our_bug() -> None:
    balance = CreditBalance(100)
    with pytest.raises(LocalProtocolError, match="101 bytes with a credit of 100"):
        balance.spend(101)
    assert balance.available == 100


def test_absurd_grant_is_refused() -> None:
    balance = CreditBalance(MAX_CREDIT)
    with pytest.raises(TunnelError, match="over the limit"):
        balance.grant(1)
    with pytest.raises(TunnelError):
        CreditBalance(MAX_CREDIT + 1)


def test_credit_goes_out_in_batches_of_a_quarter() -> None:
    issuer = CreditIssuer(100 * KIB)
    assert issuer.initial == 100 * KIB
    issuer.received(100 * KIB)
    assert issuer.consumed(24 * KIB, 0.0) == 0
    assert issuer.consumed(KIB, 0.0) == 25 * KIB
    assert issuer.held == 75 * KIB


def test_window_doubles_when_consumed_fast_up_to_its_maximum() -> None:
    issuer = CreditIssuer(100, maximum=300)
    windows = []
    for _ in range(3):
        issuer.received(100)
        assert issuer.consumed(100, 5.0) >= 100
        windows.append(issuer.window)
    assert windows == [200, 200, 300]


def test_window_stays_when_consumed_slowly() -> None:
    issuer = CreditIssuer(100)
    for i in range(10):
        issuer.received(50)
        assert issuer.consumed(50, i * GROWTH_TIME) == 50
    assert issuer.window == 100


def test_short_way_needs_no_large_window() -> None:
    issuer = CreditIssuer(100)
    issuer.growth_time = growth_time(0.002)
    issuer.received(100)
    issuer.consumed(10, 0.0)
    issuer.consumed(90, 0.005)  # fast, but not for this way
    assert issuer.window == 100
    assert growth_time(None) == growth_time(10.0) == GROWTH_TIME
    assert growth_time(0.0) == MIN_GROWTH_TIME
    assert growth_time(0.01) == 0.02


def test_far_side_must_not_overrun_its_credit() -> None:
    issuer = CreditIssuer(100)
    issuer.received(60)
    with pytest.raises(TunnelError, match="41 bytes came with a credit of 40"):
        issuer.received(41)


def test_consuming_what_never_came_is_our_bug() -> None:
    issuer = CreditIssuer(100)
    issuer.received(60)
    with pytest.raises(LocalProtocolError, match="61 bytes consumed of 60"):
        issuer.consumed(61, 0.0)


@given(
    st.integers(1, 1000),
    st.integers(0, 5000),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2)), max_size=60),
)
def test_two_ends_agree_and_never_starve(
    initial: int, more: int, steps: list[tuple[float, float, float]]
) -> None:
    """Whatever is sent and consumed when, the receiver is never overrun, and all consumed means credit left."""
    issuer = CreditIssuer(initial, initial + more)
    balance = CreditBalance(issuer.initial)
    now = 0.0
    for send, consume, pause in steps:
        now += pause
        n = int(send * balance.available)
        balance.spend(n)
        issuer.received(n)
        balance.grant(issuer.consumed(int(consume * issuer.held), now))
        assert balance.available + issuer.held <= issuer.window <= initial + more
    balance.grant(issuer.consumed(issuer.held, now))
    assert balance.available > 0


def fast(issuer: CreditIssuer, rounds: int = 10) -> CreditIssuer:
    """Let a flow consume whole windows in no time."""
    for _ in range(rounds):
        issuer.received(issuer.window - issuer.held)
        issuer.consumed(issuer.held, 0.0)
    return issuer


class TestPool:
    def test_a_flow_alone_gets_all_it_wants_and_gives_it_back(self) -> None:
        pool = CreditPool()
        issuer = fast(CreditIssuer(pool=pool))
        assert (issuer.initial, issuer.window) == (INITIAL_WINDOW, MAX_WINDOW)
        assert pool.taken == MAX_WINDOW
        issuer.close()
        issuer.close()  # by two ways of ending
        assert pool.taken == 0

    def test_first_windows_shrink_as_the_pool_fills_but_never_below_the_floor(self) -> None:
        pool = CreditPool()
        windows = [CreditIssuer(pool=pool).initial for _ in range(10_000)]
        assert windows[:256] == [INITIAL_WINDOW] * 256
        assert windows == sorted(windows, reverse=True)
        assert windows[1200:] == [FLOOR] * 8800
        assert pool.taken <= POOL_SIZE + 10_000 * FLOOR

    def test_a_window_that_wants_less_than_the_floor_gets_what_it_wants(self) -> None:
        assert CreditIssuer(100, pool=CreditPool(0)).initial == 100

    def test_large_flows_that_stall_take_nothing_from_new_ones(self) -> None:
        pool = CreditPool()
        stalled = [fast(CreditIssuer(pool=pool)) for _ in range(100)]
        assert sum(issuer.window - issuer.initial for issuer in stalled) <= POOL_SIZE // 2
        assert CreditIssuer(pool=pool).initial == INITIAL_WINDOW

    def test_idle_flows_take_nothing_from_a_busy_one(self) -> None:
        pool = CreditPool()
        for _ in range(10_000):
            CreditIssuer(pool=pool)
        busy = CreditIssuer(pool=pool)
        assert busy.initial == FLOOR
        assert fast(busy, 12).window == MAX_WINDOW

    def test_a_full_pool_lets_no_window_grow_until_there_is_room(self) -> None:
        pool = CreditPool(4 * INITIAL_WINDOW)
        first = fast(CreditIssuer(pool=pool), 100)
        second = CreditIssuer(pool=pool)
        small = fast(second, 1).window
        first.close()
        assert fast(second, 1).window > small

    @given(
        st.integers(0, 1 << 24),
        st.lists(st.tuples(st.sampled_from(["open", "fast", "close"]), st.integers(0, 9)), max_size=80),
    )
    def test_the_bound_holds_and_nothing_is_lost(self, size: int, steps: list[tuple[str, int]]) -> None:
        """Whatever opens, grows and ends: taken = sum of windows <= size + flows * FLOOR."""
        pool, flows = CreditPool(size), list[CreditIssuer]()
        for what, index in steps:
            if what == "open":
                flows.append(CreditIssuer(pool=pool))
            elif index < len(flows) and what == "fast":
                fast(flows[index], 1)
            elif index < len(flows):
                flows.pop(index).close()
            assert pool.taken == sum(issuer.window for issuer in flows) <= size + len(flows) * FLOOR
            assert all(issuer.window >= FLOOR for issuer in flows)


def test_defaults() -> None:
    assert (INITIAL_WINDOW, MAX_WINDOW) == (256 * KIB, 16 * KIB * KIB)
    assert CreditIssuer().initial == INITIAL_WINDOW
