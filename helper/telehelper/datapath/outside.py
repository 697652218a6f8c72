"""What happens to the machine itself: its network changes, or it was asleep.

Networks: the kernel tells of links, addresses and routes (rtnetlink(7), multicast groups). Several such news in a row are
one. What we do to our own device is no news, but what others do to it is told apart: it was set down or deleted, or lost
a route (which may have been our doing). Sleep: CLOCK_BOOTTIME goes on while the machine is suspended and
CLOCK_MONOTONIC does not (clock_gettime(2)), so their difference grows by just that.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTLE: Final = (
    0.2  # seconds from the first news to telling: link, address and route come one after the other
)
INTERVAL: Final = 1.0  # seconds between two tellings, however busy a container engine is with its links
DEVICE_DOWN: Final = "down"  # what happened to our own device
ROUTE_GONE: Final = "route"
TICK: Final = 1.0  # seconds between looks at the clocks
SLEPT: Final = 2.0  # seconds; less is no sleep but the scheduler

# linux/rtnetlink.h, linux/if.h
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; addresses and routes of IPv4; of IPv6
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 21, 24, 25
_UP: Final = 0x1  # IFF_UP
_RUNNING: Final = _UP | 0x40  # with IFF_RUNNING
_RT_TABLE_MAIN, _RTN_UNICAST, _RTA_OIF, _RT_SCOPE_LINK = 254, 1, 4, 253
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct(
    "=8BI"
)  # struct rtmsg: family, lengths, tos, table, protocol, scope, type; flags
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr: length, type
_INDEX: Final = struct.Struct("=i")


class NetworkNews:
    """Picks from the kernel's messages what may change how a packet of ours leaves the machine."""

    def __init__(self, device: Callable[[], str], own: Callable[[str], None] = lambda _: None) -> None:
        self._device = device  # returns the name of our own interface
        self._own = own  # called with what happened to that
        self._index = 0  # of that, for when it is gone
        self._running: dict[int, bool] = {}  # the links that there are, as last told

    def read(self, data: bytes) -> list[str]:
        """Return what is news in one datagram of rtnetlink messages, in words."""
        found = []
        for kind, body in _messages(data):
            if kind in (_NEWLINK, _DELLINK) and len(body) >= _LINK.size:
                found.append(self._link(kind, body))
            elif kind in (_NEWADDR, _DELADDR) and len(body) >= _ADDRESS.size:
                found.append(self._address(kind, body))
            elif kind in (_NEWROUTE, _DELROUTE) and len(body) >= _ROUTE.size:
                found.append(self._route(kind, body))
        return [words for words in found if words]

    def _is_ours(self, index: int) -> bool:
        if index and _name(index) == self._device():
            self._index = index
        return bool(index) and index == self._index

    def _link(self, kind: int, body: bytes) -> str:
        _, _, index, flags, _ = _LINK.unpack_from(body)
        runs = kind == _NEWLINK and flags & _RUNNING == _RUNNING
        if self._is_ours(index):
            if kind == _DELLINK or not flags & _UP:
                self._own(DEVICE_DOWN)
            return ""
        before = self._running.pop(index, None)
        if kind == _NEWLINK:
            self._running[index] = runs
        return "" if runs == before else f"{_name(index)} went {'up' if runs else 'down'}"

    def _address(self, kind: int, body: bytes) -> str:
        _, _, _, scope, index = _ADDRESS.unpack_from(body)
        if scope >= _RT_SCOPE_LINK or self._is_ours(index):
            return ""
        return f"{_name(index)} {'got' if kind == _NEWADDR else 'lost'} an address"

    def _route(self, kind: int, body: bytes) -> str:
        _, length, _, _, table, _, _, way, _ = _ROUTE.unpack_from(body)
        index = next((_INDEX.unpack(value)[0] for of, value in _attributes(body) if of == _RTA_OIF), 0)
        if table != _RT_TABLE_MAIN or way != _RTN_UNICAST:
            return ""
        if self._is_ours(index):
            if kind == _DELROUTE:
                self._own(ROUTE_GONE)
            return ""
        what = "a route" if length else "a default route"
        return f"{what} {'came' if kind == _NEWROUTE else 'went'}"


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(route: bytes) -> Iterator[tuple[int, bytes]]:
    at = _ROUTE.size
    while at + _ATTRIBUTE.size <= len(route):
        length, kind = _ATTRIBUTE.unpack_from(route, at)
        if length < _ATTRIBUTE.size:
            return
        value = route[at + _ATTRIBUTE.size : at + length]
        if kind != _RTA_OIF or len(value) == _INDEX.size:
            yield kind, value
        at += length + 3 & ~3


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has gone
        return f"interface {index}"


def asleep() -> float:
    """Return the seconds that this machine was suspended since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Outside:
    """Watches network and clock, on the running loop, from `start` to `close`.

    Parameters
    ----------
    on_change
        Called with what changed in the network, in words.
    on_wake
        Called with the seconds that the machine was asleep.
    device
        Returns the name of our own interface, empty while there is none.
    clock
        Returns the seconds that the machine was suspended in all.
    own
        Called at once with what happened to our own interface: DEVICE_DOWN or ROUTE_GONE.
    """

    def __init__(
        self,
        on_change: Callable[[str], None],
        on_wake: Callable[[float], None],
        device: Callable[[], str],
        clock: Callable[[], float] = asleep,
        own: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_change = on_change
        self._on_wake = on_wake
        self._news = NetworkNews(device, own)
        self._clock = clock
        self._slept = 0.0
        self._socket: socket.socket | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = 0.0  # in the loop's time
        self._words: dict[str, None] = {}  # not told yet, in order

    def start(self) -> None:
        """Begin. OSError if the kernel has no netlink for us."""
        loop = asyncio.get_running_loop()
        kinds = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kinds, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        loop.add_reader(self._socket.fileno(), self._readable)
        self._slept = self._clock()
        self._tick = loop.call_later(TICK, self._look_at_clock)

    def close(self) -> None:
        """Stop; nothing is called any more."""
        for timer in (self._tick, self._telling):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _look_at_clock(self) -> None:
        slept = self._clock()
        duration, self._slept = slept - self._slept, slept
        self._tick = asyncio.get_running_loop().call_later(TICK, self._look_at_clock)
        if duration >= SLEPT:
            self._on_wake(duration)

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more messages than fit: some are lost (netlink(7))
                    raise
                self._tell_soon(["the network changed"])
            else:
                self._tell_soon(self._news.read(data))

    def _tell_soon(self, words: list[str]) -> None:
        self._words.update(dict.fromkeys(words))
        if self._words and self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_at(max(loop.time() + SETTLE, self._told_at + INTERVAL), self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._told_at = asyncio.get_running_loop().time()
        words, self._words = self._words, {}
        self._on_change(", ".join(words))
