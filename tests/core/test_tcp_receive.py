from __future__ import annotations

from telehelper.core.seq import Seq
from telehelper.core.tcp_receive import MAX_EARLY, SHIFT, Receiver


def receiver(credit: int = 100) -> Receiver:
    made = Receiver(1000)
    made.credit.grant(credit)
    return made


def test_the_edges_of_the_window_are_acceptable() -> None:
    r = receiver()
    for seq, size, expected in (
        (1001, 0, True),
        (1101, 0, True),
        (1102, 0, False),
        (1000, 0, False),
        (1000, 1, True),
    ):
        assert r.is_acceptable(Seq(seq), Seq(seq + size)) is expected


def test_text_new_old_early_and_beyond_credit() -> None:
    r = receiver(credit=6)
    assert bytes(r.accept(Seq(1001), memoryview(b"abc"))) == b"abc"
    assert bytes(r.accept(Seq(1001), memoryview(b"abc"))) == b""
    assert bytes(r.accept(Seq(1002), memoryview(b"bcd"))) == b"d"
    assert bytes(r.accept(Seq(1009), memoryview(b"xyz"))) == b""
    assert r.accept_early() is None
    assert bytes(r.accept(Seq(1005), memoryview(b"efgh"))) == b"ef"
    assert r.credit.available == 0
    assert r.nxt == 1007


def drain(r: Receiver) -> bytes:
    out = b""
    while (piece := r.accept_early()) is not None:
        out += bytes(piece)
    return out


def test_text_out_of_order_is_kept_until_its_turn() -> None:
    r = receiver(credit=12)
    assert r.accept_early() is None
    for seq, text in (
        (1010, b"jkl"),
        (1004, b"d"),
        (1004, b"def"),
        (1004, b"d"),
        (1005, b"ef"),
        (1007, b"ghi"),
    ):
        assert bytes(r.accept(Seq(seq), memoryview(text))) == b""
        assert drain(r) == b""
    assert bytes(r.accept(Seq(1001), memoryview(b"abc"))) == b"abc"
    assert drain(r) == b"defghijkl"
    assert (r.nxt, r.credit.available) == (1013, 0)
    assert drain(r) == b""


def test_what_is_kept_is_bounded() -> None:
    r = receiver(credit=10)
    r.accept(Seq(1003), memoryview(bytes(9)))  # one byte beyond the window
    r.accept(Seq(1001), memoryview(b"ab"))
    assert r.accept_early() is None
    r = receiver(credit=1_000_000)
    for number in range(MAX_EARLY + 1):
        r.accept(Seq(1002 + number), memoryview(b"x"))
    r.accept(Seq(1001), memoryview(b"a"))
    assert drain(r) == b"x" * MAX_EARLY


def test_fin_in_order_again_and_early() -> None:
    r = receiver()
    assert not r.accept_fin(Seq(1002))
    assert r.accept_fin(Seq(1001))
    assert r.is_finished
    assert r.accept_fin(Seq(1001))
    assert not r.accept_fin(Seq(1002))
    assert r.nxt == 1002


def test_number_on_the_wire_wraps() -> None:
    r = Receiver(2**32 - 1)
    assert r.place(0) == 2**32
    assert r.place(2**32 - 1) == 2**32 - 1


def test_window_with_and_without_scale() -> None:
    r = receiver(credit=1_000_000)
    assert r.advertise_unscaled() == 65_535
    assert r.advertise() == 65_535
    r.shift = SHIFT
    assert r.advertise() == 1_000_000 >> 9
    assert r.advertise_unscaled() == 65_535


def test_an_update_is_due_when_it_is_worth_a_packet() -> None:
    r = receiver(credit=10_000)
    r.advertise()
    r.credit.grant(100)
    assert not r.is_update_due(1000)
    r.credit.grant(2000)
    assert r.is_update_due(1000)
    r = receiver(credit=10)
    r.advertise()
    r.credit.grant(10)
    assert r.is_update_due(1000)  # it was as good as closed
