"""The audit log on a real pipe."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest
from telehelper.manager import audit
from telehelper.manager.audit import AuditLog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:  # closed by the test
            continue


def test_lines_of_one_turn_are_written_together(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    writes: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(bytes(data)) or write(fd, data))

    async def main() -> None:
        log = AuditLog(writing)
        log("one")
        log("two")
        await asyncio.sleep(0)
        log("three")
        await asyncio.sleep(0)

    asyncio.run(main())
    assert writes == [b"one\ntwo\n", b"three\n"]
    assert os.read(reading, 100) == b"one\ntwo\nthree\n"


def test_without_a_loop_at_once(pipe: tuple[int, int]) -> None:
    log = AuditLog(pipe[1])
    log("caf\xe9 \udc80")
    assert os.read(pipe[0], 100) == "café \\udc80\n".encode()
    log.flush()  # nothing waits: nothing is written
    log("next")
    assert os.read(pipe[0], 100) == b"next\n"


def test_what_the_last_turn_left_is_flushed(pipe: tuple[int, int]) -> None:
    log = AuditLog(pipe[1])

    async def main() -> None:
        log("last words")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    log.flush()
    assert os.read(pipe[0], 100) == b"last words\n"


def test_more_than_the_pipe_holds(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    got = bytearray()

    def read() -> None:
        while part := os.read(reading, 65536):
            got.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    AuditLog(writing)("x" * 1_000_000)
    os.close(writing)
    reader.join(10)
    assert bytes(got) == b"x" * 1_000_000 + b"\n"


def test_nobody_reads_it(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    log = AuditLog(pipe[1])
    log("to nobody")
    log("and again")


def test_what_is_over_the_rate_is_counted(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BURST", 3)
    now = [100.0]
    log = AuditLog(pipe[1], clock=lambda: now[0])
    for number in range(5):
        log(str(number))
    assert os.read(pipe[0], 100) == b"0\n1\n2\n"
    now[0] += 1.0
    log("later")
    assert os.read(pipe[0], 100) == b"2 lines were left out: more than 1000 per second\nlater\n"
    log("on")
    log("and on")
    log("too many")
    log.flush()
    assert os.read(pipe[0], 100) == b"on\nand on\n1 lines were left out: more than 1000 per second\n"


def test_a_reason_cannot_begin_a_line_or_steer_a_terminal(pipe: tuple[int, int]) -> None:
    AuditLog(pipe[1])("ended: x\nsession=1 opened by \x1b[2Jroot\u2028, grün")
    assert os.read(pipe[0], 4096) == "ended: x\\nsession=1 opened by \\x1b[2Jroot\\u2028, grün\n".encode()
