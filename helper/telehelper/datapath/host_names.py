"""The host's resolver, pointed at us and kept there: what netd was asked, whether it works, and what others do to it.

Nothing is believed: after netd has done what it was asked, a name that only we know is looked up as any program here
would, and must arrive at our resolver. It is looked up again from time to time where others may change the settings
(NetworkManager resets a new link's, a restarted systemd-resolved forgets them), and /etc/resolv.conf is watched, which
a DHCP client may overwrite. What was lost is set again; what is lost again soon after is left, and told.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.background import begin
from telehelper.datapath.host_dns import PATH, STUB, find_layer, read_host_dns
from telehelper.errors import ResolverError, TelemagicError
from telehelper.messages import SetDns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from telehelper.datapath.netd_client import NetdClient

OURS: Final = (
    "telemagic-",
    "tele-doctor-",
)  # so begin names that nobody has: we ask for them to see who is asked
PROBE_TIMEOUT: Final = 2.0  # seconds; the question stays on this machine
LOOK: Final = 1.0  # seconds between two looks at the file: one stat
PROBES: Final = (1.0, 3.0, 10.0)  # seconds between two probes of systemd-resolved; the last for good
PATIENCE: Final = 60.0  # seconds; what is lost again sooner is somebody's will


class Wish(NamedTuple):
    """What the host is to be told."""

    mechanism: str  # as in Connect
    resolver: str
    search: tuple[str, ...]
    domains: tuple[str, ...]


def look_up(name: str) -> None:
    """Look a name up as any program does, in a thread that nobody waits for: the C library's patience is its own."""

    def run() -> None:
        with suppress(OSError, UnicodeError):  # the domain is what the cluster says
            socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)

    threading.Thread(target=run, name="name probe", daemon=True).start()


class HostNames:
    """Keeps the host's resolver pointed at us.

    Parameters
    ----------
    netd
        Changes it.
    arrives
        Returns an awaitable that tells whether a question for a name with this label arrives within a time.
    note
        Tells the user a line.
    upstreams_changed
        Takes the machine's own nameservers, when they are others than before.
    path
        The resolver file.
    ask
        Starts looking up a name on the host's path.

    Attributes
    ----------
    mechanism
        What is in force and works: resolved, resolvconf, kernel or none.
    upstreams
        The machine's own nameservers.
    """

    def __init__(
        self,
        netd: NetdClient,
        *,
        arrives: Callable[[bytes, float], Awaitable[bool]],
        note: Callable[[str], None],
        upstreams_changed: Callable[[tuple[str, ...]], None],
        path: Path = PATH,
        ask: Callable[[str], None] = look_up,
    ) -> None:
        self.mechanism = ""
        self.upstreams: tuple[str, ...] = ()
        self._netd = netd
        self._arrives = arrives
        self._note = note
        self._upstreams_changed = upstreams_changed
        self._path = path
        self._ask = ask
        self._wish = Wish("none", "", (), ())
        self._asked = ""  # the mechanism that netd has in force
        self._seen: tuple[int, ...] = ()
        self._set_again = -PATIENCE
        self._watcher: asyncio.Task[None] | None = None

    async def point(self, wish: Wish) -> None:
        """Have netd point the host at us, or leave it as it is."""
        self._wish = wish
        self._read_upstreams()
        if wish.mechanism in ("kernel", "none"):
            self.mechanism = wish.mechanism
            return
        await self._set(wish.mechanism)

    async def change(self, wish: Wish) -> None:
        """Follow the cluster: its namespaces have changed. Only systemd-resolved is told; a file's words stay."""
        before, self._wish = self._wish, wish
        if self._asked == "resolved" and before.domains != wish.domains:
            await self._set("resolved")

    async def check(self) -> None:
        """See whether names arrive, once packets flow; where the mechanism was ours to choose, try the next one.

        Raises
        ------
        ResolverError
            The mechanism that was asked for does not work.
        """
        if self.mechanism == "kernel":
            return
        while self._asked not in ("", "none") and not await self._works():
            if self._wish.mechanism != "auto":
                raise ResolverError(
                    f"names do not reach the cluster by {self._asked}: something else answers them on this machine",
                    hint="%tele connect --dns auto tries the other ways; --dns kernel changes nothing on the machine",
                )
            self._note(f"DNS: {self._asked} was set up, but names do not arrive; trying another way")
            following = "resolvconf" if self._asked == "resolved" else "none"
            try:
                await self._set(following)
            except ResolverError:
                await self._set("none")
        if self._asked == "none" and self._wish.mechanism == "auto":
            self.mechanism = "kernel"
            self._note(
                "DNS: this machine's resolver cannot be changed, so names resolve in this notebook only"
            )
        if self._asked not in ("", "none"):
            self._watcher = begin(self._watch())

    async def close(self) -> None:
        """Stop watching; netd undoes."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _set(self, mechanism: str) -> None:
        wish = self._wish
        order = SetDns(mechanism, wish.resolver, wish.search, domains=wish.domains)
        self._asked = self.mechanism = (await self._netd.set_dns(order)).mechanism
        self._read_upstreams()
        self._seen = self._stamp()

    async def _works(self) -> bool:
        """Look up a name that nobody else can know, and see whether it comes to us."""
        label = f"{OURS[0]}{secrets.token_hex(8)}"
        arrival = asyncio.ensure_future(self._arrives(label.encode(), PROBE_TIMEOUT))
        await asyncio.sleep(0)  # be ready before it is asked
        self._ask(f"{label}.{self._wish.search[0]}.")
        return await arrival

    # --- watching

    async def _watch(self) -> None:
        probes = list(PROBES)
        due = monotonic() + probes[0]
        while True:
            await asyncio.sleep(LOOK)
            if self._stamp() != self._seen:
                await self._file_changed()
            if self._asked == "resolved" and monotonic() >= due:
                await self._probe()
                probes = probes[1:] or probes
                due = monotonic() + probes[0]

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read_upstreams(self) -> None:
        host = read_host_dns(self._wish.resolver, self._path)
        # What systemd-resolved sends us must not go back to it.
        servers = tuple(s for s in host.nameservers if s != STUB or self._asked != "resolved")
        if servers != self.upstreams:
            self.upstreams = servers
            self._upstreams_changed(servers)

    async def _file_changed(self) -> None:
        self._seen = self._stamp()
        if self._asked == "resolvconf" and find_layer(self._wish.resolver, self._path) is None:
            await self._lost(f"{self._path} was overwritten")
        else:
            self._read_upstreams()

    async def _probe(self) -> None:
        if not await self._works() and not await self._works():
            await self._lost("what systemd-resolved was told was undone")
        elif self.mechanism != self._asked:
            self.mechanism = self._asked
            self._note(f"DNS: names arrive again by {self._asked}")

    async def _lost(self, what: str) -> None:
        """Set it again, once in a while."""
        now = monotonic()
        if now - self._set_again < PATIENCE:
            if self.mechanism != "none":
                self.mechanism = "none"
                self._note(f"DNS: {what} again: the cluster's names do not resolve until you reconnect")
            return
        self._set_again = now
        try:
            await self._set(self._asked)
        except TelemagicError as error:  # netd may refuse it, or not answer in time, too
            self.mechanism = "none"
            self._note(f"DNS: {what}, and cannot be set again: {error}")
            return
        self._note(f"DNS: {what} by another program; it was set again")


def is_ours(name: str) -> bool:
    """Whether a name that does not exist was asked for by telemagic itself."""
    return name.startswith(OURS)
