"""What was fetched in the background and is answered from memory: contexts of the kubeconfig, services of the cluster.

Completion runs in the kernel's main thread, where a front end waits for it, and must not wait itself. So a thread of
our own fetches, and an answer waits a moment at most: better few names now than all of them late. What is old is used
while it is being renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from telehelper.errors import TelemagicError

from telemagic import kubeconfig
from telemagic.session import session

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.views import ServiceRow

T = TypeVar("T")

WAIT: Final = 0.06  # seconds that one answer waits in all; the promise to the user is 0.1
SERVICES_FRESH: Final = 30.0  # seconds that a list of services counts as new


class Remembered(Generic[T]):
    """One thing that is fetched in the background.

    Parameters
    ----------
    fetch
        Returns it; in a thread of its own. A TelemagicError means that there is nothing now.
    key
        Returns what it depends on; quick. Another key than before means that what is remembered is wrong.
    empty
        What there is before it was fetched.
    fresh
        Seconds after which it is fetched again, when it is asked for.
    """

    def __init__(
        self, fetch: Callable[[], T], key: Callable[[], object], empty: T, fresh: float = float("inf")
    ) -> None:
        self._fetch = fetch
        self._key = key
        self._empty = empty
        self._fresh = fresh
        self._known: tuple[object, float, T] | None = None  # key, when, what
        self._busy: threading.Event | None = None
        self._lock = threading.Lock()

    def get(self, until: float) -> T:
        """Return it; waits until that monotonic time at most, and only if nothing is remembered."""
        key = self._key()
        if (known := self._for(key)) is not None and time.monotonic() - known[0] < self._fresh:
            return known[1]
        done = self.renew()
        if known is not None:
            return known[1]
        done.wait(max(0.0, until - time.monotonic()))
        known = self._for(key)
        return known[1] if known is not None else self._empty

    def renew(self) -> threading.Event:
        """Begin to fetch it, if that is not under way; the event is set at the end."""
        with self._lock:
            if self._busy is None:
                self._busy = threading.Event()
                threading.Thread(
                    target=self._run, args=(self._busy,), name="telemagic-names", daemon=True
                ).start()
            return self._busy

    def _for(self, key: object) -> tuple[float, T] | None:
        known = self._known
        return known[1:] if known is not None and known[0] == key else None

    def _run(self, done: threading.Event) -> None:
        key, found = None, self._empty
        try:
            key = self._key()
            # The loop that the connection is asked by may end meanwhile: then the answer is cancelled.
            with contextlib.suppress(TelemagicError, asyncio.CancelledError):
                found = self._fetch()
        finally:  # a fault of ours is told by this thread's end, and the next key stroke tries again
            with self._lock:
                self._known = key, time.monotonic(), found
                self._busy = None
            done.set()


class Names:
    """The names that a line may need."""

    def __init__(self) -> None:
        self._contexts: Remembered[dict[str, str]] = Remembered(_read_contexts, _kubeconfig_state, {})
        self._services: Remembered[tuple[ServiceRow, ...]] = Remembered(
            _ask_services, _connected_to, (), SERVICES_FRESH
        )

    def warm(self) -> None:
        """Begin to fetch what the next answers may need, and wait for nothing."""
        self._contexts.get(0.0)
        self._services.get(0.0)

    def contexts(self, until: float) -> list[str]:
        """Return the contexts of the kubeconfig."""
        return sorted(self._contexts.get(until))

    def services(self, until: float) -> tuple[ServiceRow, ...]:
        """Return the services of the connected cluster."""
        return self._services.get(until)

    def namespaces(self, until: float) -> list[str]:
        """Return the namespaces that services are in, the connected one and those that contexts name."""
        found = {row.namespace for row in self.services(until)} | set(self._contexts.get(until).values())
        connection = session().connection
        return sorted((found | ({connection.namespace} if connection is not None else set())) - {""})


def _read_contexts() -> dict[str, str]:
    """Return the namespace of each context."""
    return {name: str(entry.get("namespace") or "") for name, entry in kubeconfig.read().contexts.items()}


def _kubeconfig_state() -> object:
    found: list[tuple[str, int, int]] = []
    for path in kubeconfig.search_path():
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((str(path), state.st_mtime_ns, state.st_size))
    return found


def _ask_services() -> tuple[ServiceRow, ...]:
    connection = session().connection
    return connection.catalog() if connection is not None else ()


def _connected_to() -> object:
    connection = session().connection
    return connection if connection is not None and connection.is_open else None
