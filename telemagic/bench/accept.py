"""A thread per connection, for services with few of them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from telemagic.bench.dial import PATIENCE, be_patient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

AT_ONCE: Final = 64  # connections; more are closed at once


def serve(listener: socket.socket, service: Callable[[socket.socket], None]) -> None:
    """Give each connection a thread, and up to `PATIENCE` seconds for each byte, until the process ends."""
    places = threading.Semaphore(AT_ONCE)

    def run(connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # a client may go whenever it likes
                be_patient(connection, PATIENCE)
                service(connection)
        finally:
            places.release()

    while True:
        with contextlib.suppress(ConnectionAbortedError):
            connection, _ = listener.accept()
            if places.acquire(blocking=False):
                threading.Thread(target=run, args=(connection,), daemon=True).start()
            else:
                connection.close()
