"""The ports that closed connections keep, in a network namespace of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

CLOSE = """
import socket
from telemagic.bench import timewait

def close(number):
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(number):
            with socket.create_connection(server.getsockname()), server.accept()[0] as theirs:
                pass  # theirs is closed first and keeps the port

close(20)
print(timewait.count())
timewait.LIMIT = 25
timewait.limit()
close(20)
print(timewait.count())
"""


@pytest.mark.netns
def test_they_are_counted_and_limited(
    sandboxed_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = sandboxed_python(CLOSE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["20", "25"]
