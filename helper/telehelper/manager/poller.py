"""Readiness of thousands of sockets: one epoll of our own, which the event loop sees as a single descriptor.

An event loop's own reader costs a handle, a callback object and three system calls for each socket; this costs a
dictionary entry and one call. It is edge-triggered (epoll(7)): a socket is announced once when something has changed,
whether or not anybody wants to read, so nothing need be switched off while a flow waits for credit, and a reset is
heard even then. In return the owner must remember that a socket was readable until reading has emptied it.
"""

from __future__ import annotations

import asyncio
import select
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from typing import Final, Protocol

MAX_EVENTS: Final = 256  # taken at once; the rest comes in the loop's next turn
MASK: Final = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET
# Bits that say that there is something besides bytes to be read: an end, an error, urgent data (which cuts a read
# short). Without them, a read that returns less than it asked for has emptied the socket.
ODD: Final = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI


class Pollable(Protocol):
    """Who owns a socket."""

    def ready(self, events: int) -> None:
        """Learn that the socket has become ready for `events`. Perhaps it is not: it may just look so."""


class Poller:
    """Tells the owners of sockets what has become ready. One for a process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._owners: dict[int, Pollable] = {}
        self._news: dict[int, int] = {}  # events not yet told, by descriptor
        self._is_run_due = False
        self._loop.add_reader(self._epoll.fileno(), self._poll)

    def __len__(self) -> int:
        return len(self._owners)

    def watch(self, fd: int, owner: Pollable, mask: int = MASK) -> None:
        """Tell `owner` from now on, if need be in another's place; what is ready already is told in the next turn."""
        if fd not in self._owners:
            self._epoll.register(fd, mask)
        self._owners[fd] = owner

    def forget(self, fd: int) -> None:
        """Tell nobody any more. Close the socket at once: that alone takes it off the epoll (epoll(7), Q6)."""
        del self._owners[fd]

    def again(self, fd: int) -> None:
        """Say in the loop's next turn that the socket is readable: for who has left something in it."""
        self._news[fd] = self._news.get(fd, 0) | EPOLLIN
        self._run_soon()

    def close(self) -> None:
        """Watch nothing any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._owners.clear()
            self._news.clear()

    def _poll(self) -> None:
        news = self._news
        for fd, events in self._epoll.poll(0, MAX_EVENTS):
            news[fd] = news.get(fd, 0) | events
        self._run()

    def _run_soon(self) -> None:
        if not self._is_run_due:
            self._is_run_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_run_due = False
        owners = self._owners
        batch, self._news = self._news, {}
        try:
            while batch:
                fd, events = batch.popitem()
                owner = owners.get(fd)
                if owner is not None:
                    owner.ready(events)
        finally:
            if batch:  # an owner failed: that is its bug, and the others' edges come only once
                self._news = batch | self._news
                self._run_soon()
