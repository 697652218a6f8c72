"""Stop, pressed at any moment of connecting and disconnecting: the session is sound afterwards, and nothing is left.

Run by hand, `python -m pytest tests/kernel/interrupts.py`: asyncio forgets sockets that the fake has accepted just before
it is closed, and the warning about one may come at the very end of the run, in nobody's test.
"""

from __future__ import annotations

import _socket
import gc
import random
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from telemagic import connecting
from telemagic.control_fake import STATUS, FakeLauncher, Script
from telemagic.target import ConnectOptions
from tests.kernel.test_session import left, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from telemagic.session import Session

ROUNDS = 100
LONGEST = 0.06  # seconds; a round takes about as long


class Stop:
    """Interrupts the main thread once, after a while, unless it is disarmed before."""

    def __init__(self) -> None:
        self.hits = 0
        self._armed: object = None

    def arm(self, seconds: float) -> None:
        self._armed = mark = object()
        threading.Timer(seconds, self._press, (mark,)).start()

    def disarm(self) -> None:
        self._armed = None

    def _press(self, mark: object) -> None:
        if self._armed is mark:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def handle(self, *_: object) -> None:
        if self._armed is not None:
            self._armed = None
            self.hits += 1
            raise KeyboardInterrupt


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    before = signal.signal(signal.SIGUSR1, made.handle)  # not SIGINT: one that comes late would end the tests
    yield made
    made.disarm()
    signal.signal(signal.SIGUSR1, before)


# Between a coroutine's making and its start there is no way not to be interrupted; Python complains, and that is all.
@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_at_any_moment(
    make_session: Callable[[FakeLauncher], Session],
    runtime: Path,
    stop: Stop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        connecting, "UNDO_PATIENCE", 60.0
    )  # else a fake that stays would be killed: it lives in this process
    script = Script(status=replace(STATUS, dns="kernel", domains=("cluster.local",)), phase_seconds=0.001)
    session = make_session(FakeLauncher(script))
    original = _socket.getaddrinfo
    with session.connect(ConnectOptions()) as connection:
        connection.latency()  # all is imported now
    moments = random.Random(7)
    for _ in range(ROUNDS):
        try:
            stop.arm(moments.uniform(0.0, LONGEST))
            connection = session.connect(ConnectOptions())
            connection.latency()
            connection.disconnect()
            stop.disarm()
        except KeyboardInterrupt:
            if session.connection is not None:  # it came when all was well: then it still is
                assert session.connection.status.state == "connected"
                session.disconnect()
        assert session.connection is None
        assert _socket.getaddrinfo is original
        wait_for(lambda: not left(runtime))
    assert stop.hits > ROUNDS / 10
    with session.connect(ConnectOptions()) as connection:
        assert connection.status.state == "connected"
    session.close()
    gc.collect()  # asyncio forgets what a server has accepted while it closes: here, not in another test
