from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.seq import Seq
from telehelper.core.tcp_send import COALESCE, Outgoing, SendBuffer, Sender


def text(outgoing: Outgoing | None) -> bytes:
    assert outgoing is not None
    assert outgoing.size == sum(map(len, outgoing.text))
    return b"".join(outgoing.text)


def sender(window: int = 100, mss: int = 10, limit: int = 40) -> Sender:
    made = Sender(Seq(1000), mss, limit)
    made.acknowledge(Seq(1001))
    made.update_window(Seq(1), Seq(1001), window)
    return made


class TestSendBuffer:
    def test_small_chunks_are_joined_and_large_ones_are_not(self) -> None:
        buffer = SendBuffer()
        for _ in range(100):
            buffer.append(b"x")
        buffer.append(b"y" * COALESCE)
        assert [len(view) for view in buffer.read(100 + COALESCE)] == [100, COALESCE]

    def test_release_leaves_the_reading_position_where_it_is(self) -> None:
        buffer = SendBuffer()
        for letter in (b"a", b"b", b"c"):
            buffer.append(letter * COALESCE)
        buffer.read(2 * COALESCE + 1)
        buffer.release(COALESCE)
        assert b"".join(buffer.read(2)) == b"cc"
        buffer.rewind()
        buffer.release(1)  # of what is to be read again
        assert b"".join(buffer.read(COALESCE)) == b"b" * (COALESCE - 1) + b"c"

    def test_reading_goes_on_behind_the_end(self) -> None:
        buffer = SendBuffer()
        buffer.append(b"x" * COALESCE)
        assert buffer.read(COALESCE) == (b"x" * COALESCE,)
        buffer.append(b"y")
        assert buffer.read(1) == (b"y",)
        buffer.release(COALESCE + 1)
        assert buffer.size == 0

    @given(
        st.lists(
            st.tuples(st.sampled_from(["append", "read", "release", "rewind"]), st.integers(0, 3 * COALESCE))
        )
    )
    def test_equals_a_byte_string(self, steps: list[tuple[str, int]]) -> None:
        buffer, data, at, count = SendBuffer(), b"", 0, 0
        for step, n in steps:
            if step == "append":
                chunk = bytes((count % 256,)) * (n + 1)
                count += 1
                buffer.append(chunk)
                data += chunk
            elif step == "read":
                n = min(n, len(data) - at)
                assert b"".join(buffer.read(n)) == data[at : at + n]
                at += n
            elif step == "release":
                n = min(n, len(data))
                buffer.release(n)
                data, at = data[n:], max(at - n, 0)
            else:
                buffer.rewind()
                at = 0
            assert (buffer.size, buffer.unread) == (len(data), len(data) - at)

    def test_memory_of_many_tiny_chunks_is_bounded(self) -> None:
        buffer = SendBuffer()
        for _ in range(3 * COALESCE):
            buffer.append(b"x")
        assert len(buffer.read(3 * COALESCE)) == 3


class TestSender:
    def test_nothing_to_send(self) -> None:
        assert sender().next_segment() is None
        assert not sender().is_outstanding
        assert not sender().is_stuck

    def test_limit_window_and_silly_window(self) -> None:
        s = sender(window=75)
        s.queue(b"a" * 80)
        assert text(s.next_segment()) == b"a" * 40
        assert text(s.next_segment()) == b"a" * 35
        assert s.next_segment() is None  # the window is full
        s.update_window(Seq(1), Seq(1001), 77)
        assert s.next_segment() is None  # 2 of 5 bytes: silly while others are in flight
        s.update_window(Seq(1), Seq(1001), 80)
        assert text(s.next_segment()) == b"a" * 5

    def test_a_small_window_is_used_when_nothing_is_in_flight(self) -> None:
        s = sender(window=3)
        s.queue(b"abcdef")
        assert text(s.next_segment()) == b"abc"

    def test_fin_goes_with_the_last_text_or_alone(self) -> None:
        s = sender(window=4)
        s.queue(b"abcd")
        s.finish()
        first = s.next_segment()
        assert text(first) == b"abcd"
        assert first is not None
        assert not first.fin  # it takes a number, and the window has none left
        assert s.acknowledge(Seq(1005)) == 4
        s.update_window(Seq(1), Seq(1005), 1)
        assert s.next_segment() == Outgoing(Seq(1005), (), 0, True)
        assert s.next_segment() is None
        assert s.is_outstanding
        assert not s.is_fin_acknowledged
        assert s.acknowledge(Seq(1006)) == 0
        assert s.is_fin_acknowledged

    def test_go_back_and_skip_what_arrived(self) -> None:
        s = sender()
        s.queue(b"a" * 40 + b"b" * 40)
        s.next_segment()
        s.next_segment()
        s.rewind()
        assert text(s.next_segment()) == b"a" * 40
        assert s.acknowledge(Seq(1081)) == 80
        assert s.nxt == 1081
        assert s.next_segment() is None

    def test_stuck_means_only_a_probe_helps(self) -> None:
        s = sender(window=0)
        assert not s.is_stuck
        s.queue(b"a")
        assert s.is_stuck
        assert s.next_segment() is None

    def test_a_late_window_is_ignored(self) -> None:
        s = sender()
        s.update_window(Seq(5), Seq(1001), 50)
        s.update_window(Seq(4), Seq(1001), 7)
        assert s.window_end == 1051
