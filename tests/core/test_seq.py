from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.seq import Seq, to_wire, unwrap


@given(near=st.integers(0, 2**40), distance=st.integers(-(2**31), 2**31 - 1))
def test_unwrap_finds_the_number_that_was_meant(near: int, distance: int) -> None:
    meant = Seq(near + distance)
    assert unwrap(to_wire(meant), Seq(near)) == meant


def test_wrap() -> None:
    assert unwrap(1, Seq(2**32 - 1)) == 2**32 + 1
    assert unwrap(2**32 - 1, Seq(2**32 + 1)) == 2**32 - 1
    assert to_wire(Seq(2**32 + 5)) == 5
    assert to_wire(Seq(-1)) == 2**32 - 1
