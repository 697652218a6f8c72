"""Whose flows are, on this machine: user at once, process and notebook soon after, cell when it is asked for.

Theory of operation
-------------------
*User.* When a flow opens, before anything of it is sent, the kernel is asked for the socket behind it
(`sock_diag`, `ping_sockets`); that takes some µs and gives uid and inode. :class:`~telehelper.datapath.gate.Gate` decides
by it. Tables of ping sockets take longer, and anybody may have many: they may take `TABLES` of the time. Beyond that, whose
an echo is is not known.

*Process.* Sockets of a kernel and of what it has started are found at once, by a glance at their descriptors, for `!psql`
may be over soon; glances may take `GLANCES` of the time.
For all others /proc is searched for who holds that inode, by another process. The first search begins at once, because
`!psql` in a notebook may be over soon; what comes meanwhile is searched for together. So that a program that opens
thousands of connections does not keep a core busy with that, searches may take a twentieth of the time, beyond a burst
that is saved up while there is quiet; and they look first at who was found lately. What a search does not find is not
searched for again: the program has ended, or is another user's.

*Notebook and cell.* A process belongs to the kernel that it is or descends from, and the flow to the cell that ran there
when it was opened. The kernel's word on that may come after the packets, so the cell is looked up when it is asked for.

Bounds: `KEPT` flows, `REMEMBERED` processes, `WAITING` sockets whose process is searched for, and as many flows of each;
the oldest is forgotten.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.core.frames import Proto
from telehelper.datapath.allowance import Allowance
from telehelper.datapath.notebooks import Kernel
from telehelper.datapath.ping_sockets import find_ping
from telehelper.datapath.processes import glance
from telehelper.datapath.report import NOBODY, Owner
from telehelper.datapath.searcher import Searcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.flows import FiveTuple
    from telehelper.datapath.notebooks import Notebooks
    from telehelper.datapath.processes import Process
    from telehelper.datapath.sock_diag import SockDiag, Socket

KEPT: Final = 40_000  # flows; open ones and closed ones that are shown
REMEMBERED: Final = 4096  # processes by socket: an unconnected UDP socket has many flows
WAITING: Final = 4096  # sockets, and flows of each; a search takes milliseconds
TABLES: Final = 0.05  # of the time, for reading tables of ping sockets
TABLES_SAVED: Final = (
    0.02  # seconds of that which are saved up; reading takes 0.1 ms, of full tables some 3 ms
)
GLANCES: Final = 0.05  # of the time, for looking at kernels at once
GLANCES_SAVED: Final = 0.02  # seconds of that which are saved up; a glance takes some 0.1 ms
SHARE: Final = 0.05  # of the time, for searches
BURST: Final = 0.05  # seconds of searching that are saved up; one takes 1 to 20 ms
LOOK_AGAIN: Final = 1.0  # seconds; then it may be another who is on the machine
LATELY: Final = 8  # processes
ROOT: Final = 0


class _Flow:
    """What is known of one flow's near end."""

    __slots__ = ("kernel", "opened_at", "pid", "process", "uid")

    def __init__(self, uid: int, opened_at: float) -> None:
        self.uid = uid
        self.opened_at = opened_at
        self.pid = -1
        self.process = ""
        self.kernel: Kernel | None = None


class Owners:
    """See the module's theory of operation; satisfies :class:`telehelper.datapath.observer.Owners`.

    Parameters
    ----------
    notebooks
        The kernels that are connected.
    on_found
        Called with the flows whose process has become known.

    Attributes
    ----------
    sockets
        Who is asked for sockets; None before :meth:`start`: then flows are nobody's.
    """

    def __init__(self, notebooks: Notebooks, on_found: Callable[[int], None]) -> None:
        self.sockets: SockDiag | None = None
        self._notebooks = notebooks
        self._on_found = on_found
        self._flows: dict[int, _Flow] = {}
        self._others: dict[
            int, _Flow
        ] = {}  # likewise, of other users: however many they open, ours stay known
        self._holders: OrderedDict[int, Process] = OrderedDict()
        self._lately: OrderedDict[int, None] = OrderedDict()  # pids
        self._waiting: OrderedDict[int, list[int]] = OrderedDict()  # flows by inode
        self._searching: asyncio.Task[None] | None = None
        self._saved = BURST
        self._saved_at = monotonic()
        self._searcher = Searcher()
        self._glances = Allowance(GLANCES, GLANCES_SAVED)
        self._tables = Allowance(TABLES, TABLES_SAVED)

    # --- a flow's life

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        """Learn of a new flow: find its user now and have its process searched for."""
        found = self.find_socket(five_tuple)
        if found is None:
            return
        flows = self._flows if found.uid in (os.geteuid(), ROOT) else self._others
        kept = flows[flow] = _Flow(found.uid, monotonic())
        if len(flows) > KEPT:
            del flows[next(iter(flows))]
        holder = self._holders.get(found.inode)
        may_look = os.geteuid() in (found.uid, ROOT)
        if holder is None and may_look:
            holder = self._glance(found.inode)
        if holder is not None:
            self._take(kept, holder)
        elif may_look:
            self._wait_for(flow, found.inode)

    def find_socket(self, five_tuple: FiveTuple) -> Socket | None:
        """Return the socket behind a flow; None if there is none any more, or it cannot be told."""
        if self.sockets is None:
            return None
        protocol, src, sport, dst, dport = five_tuple
        if protocol is Proto.ICMP:
            if not self._tables.is_left:
                return None
            with self._tables.spending():
                return find_ping(src, sport, (os.geteuid(), ROOT))
        return self.sockets.find(protocol, src, sport, dst, dport)

    def uid_of(self, flow: int) -> int:
        """Return whose flow it is; -1 if that is not known."""
        kept = self._find(flow)
        return kept.uid if kept is not None else -1

    def owner_of(self, flow: int) -> Owner:
        """Return all that is known by now."""
        kept = self._find(flow)
        if kept is None:
            return NOBODY
        kernel = kept.kernel
        if kernel is None:
            return Owner(kept.uid, kept.pid, kept.process)
        cell = self._notebooks.cell_at(kernel, kept.opened_at)
        return Owner(kept.uid, kept.pid, kept.process, self._notebooks.name_of(kernel), cell)

    def forget(self, flow: int) -> None:
        """Learn that a flow's owner will not be asked for any more."""
        self._flows.pop(flow, None)
        self._others.pop(flow, None)

    def start(self, sockets: SockDiag) -> None:
        """Begin to look for owners; the first search is for nobody, so that the child is there for the next."""
        self.sockets = sockets
        self._begin_search()

    @property
    def has_neighbours(self) -> bool:
        """Whether other people run something on this machine, as of the last search; another one begins."""
        if monotonic() - self._saved_at > LOOK_AGAIN:
            self._begin_search()
        return self._searcher.has_neighbours

    async def close(self) -> None:
        """Stop looking."""
        if self._searching is not None:
            self._searching.cancel()
            await asyncio.gather(self._searching, return_exceptions=True)
        await self._searcher.close()
        if self.sockets is not None:
            self.sockets.close()

    # --- searching

    def _glance(self, inode: int) -> Process | None:
        """Look whether a kernel or its child holds the socket, as long as that does not take too much of the time."""
        if not self._glances.is_left:
            return None
        with self._glances.spending():
            holder = glance(inode, self._notebooks.kernels)
        if holder is not None:
            self._remember(inode, holder)
        return holder

    def _find(self, flow: int) -> _Flow | None:
        return self._flows.get(flow) or self._others.get(flow)

    def _wait_for(self, flow: int, inode: int) -> None:
        flows = self._waiting.setdefault(inode, [])
        if len(flows) < WAITING:  # of one socket that sends to the whole world: a search may be a minute away
            flows.append(flow)
        if len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)
        self._begin_search()

    def _begin_search(self) -> None:
        if self._searching is None or self._searching.done():
            self._searching = asyncio.get_running_loop().create_task(self._search())

    async def _search(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            waiting, self._waiting = self._waiting, OrderedDict()
            began = monotonic()
            holders = await self._searcher.find(waiting, self._notebooks.kernels, self._lately)
            self._saved -= monotonic() - began
            for inode, holder in holders.items():
                self._remember(inode, holder)
                for flow in waiting.get(inode, ()):
                    self._tell(flow, holder)
            if not self._waiting:
                return

    def _pause(self) -> float:
        """Save up what has come together since the last time; return how long the next search must wait."""
        now = monotonic()
        self._saved = min(BURST, self._saved + SHARE * (now - self._saved_at))
        self._saved_at = now
        return max(0.0, -self._saved / SHARE)

    def _remember(self, inode: int, holder: Process) -> None:
        self._holders[inode] = holder
        self._lately[holder.pid] = None
        self._lately.move_to_end(holder.pid, last=False)
        if len(self._lately) > LATELY:
            self._lately.popitem()
        if len(self._holders) > REMEMBERED:
            self._holders.popitem(last=False)

    def _tell(self, flow: int, holder: Process) -> None:
        kept = self._find(flow)
        if kept is not None:
            self._take(kept, holder)
            self._on_found(flow)

    def _take(self, kept: _Flow, holder: Process) -> None:
        kept.pid, kept.process = holder.pid, holder.name
        began = self._notebooks.kernels.get(holder.ancestor)
        if began is not None:
            kept.kernel = Kernel(holder.ancestor, began)
