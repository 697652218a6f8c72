"""Whose flows are: puts together who finds owners, what kernels say of their cells, and who keeps strangers out."""

from __future__ import annotations

import asyncio
import pwd
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

from telehelper.datapath.gate import UNKNOWN, Gate, Refused
from telehelper.datapath.notebooks import Kernel, Notebooks
from telehelper.datapath.owners import Owners
from telehelper.datapath.processes import start_time
from telehelper.datapath.sock_diag import SockDiag
from telehelper.messages import Done, Message
from telehelper.observing import CellEnded, CellStarted, Introduce

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.frames import Address, Frame
    from telehelper.datapath.engine import FrameSink

REQUESTS: Final = (Introduce, CellStarted, CellEnded)
USERS: Final = 256  # names that are remembered
LOOKUPS: Final = (
    2  # of names at once; a directory may take seconds, and the threads are needed for other things
)
SHOWN: Final = 3  # users in a notice
REMEDY: Final = "--share lets everybody on this machine through"
_BLIND: Final = (
    "this kernel does not tell whose a socket is (sock_diag): other users of this machine are not refused"
)
_SHARED: Final = "--share: everybody on this machine reaches the cluster through this connection"


class Attribution:
    """Knows whose flows are.

    Parameters
    ----------
    on_found
        Called with each flow whose process has become known.
    tell
        Told of flows that were kept out: whose they were, and a line for people.

    Attributes
    ----------
    owners
        For the flow table.
    """

    def __init__(self, on_found: Callable[[int], None], tell: Callable[[str, str], None]) -> None:
        self._notebooks = Notebooks()
        self.owners = Owners(self._notebooks, on_found)
        self._tell = tell
        self._shares = False
        self._said: tuple[str, ...] = ()
        self._refusals: Counter[str] = Counter()  # by user
        self._users: OrderedDict[int, str] = OrderedDict()
        self._looking_up = 0
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        who = ", ".join(f"{count} of {user}" for user, count in self._refusals.most_common(SHOWN))
        return (*self._said, *((f"flows were refused: {who}; {REMEDY}",) if who else ()))

    # --- kernels

    def greet(self, pid: int) -> None:
        """Take note of a kernel that asks for something."""
        if pid not in self._notebooks.kernels:
            self._notebooks.greet(Kernel(pid, start_time(pid)))

    def leave(self, pid: int) -> None:
        """Take note that a kernel has gone: its pid may be another's soon."""
        self._notebooks.leave(pid)

    def answer(self, request: Message, pid: int) -> Message:
        """Take one of `REQUESTS` from the kernel with this pid."""
        match request:
            case Introduce():
                self._notebooks.introduce(pid, request.notebook)
            case CellStarted():
                self._notebooks.cell_started(pid, request.cell, request.at)
            case CellEnded():
                self._notebooks.cell_ended(pid, request.cell, request.at)
        return Done()

    # --- the interface

    def start(self, device: int, *, shares: bool) -> None:
        """Begin to look for owners of what comes from the interface with this index; `shares`: keep nobody out."""
        sockets = SockDiag(device)
        if sockets.works():
            self.owners.start(sockets)
            self._said = (_SHARED,) if shares else ()
        else:
            sockets.close()
            self._said = (_BLIND,)
        self._shares = shares or self.owners.sockets is None

    def guard(
        self, tunnel: FrameSink, is_own: Callable[[Address], bool], keep_out: Callable[[Frame], None]
    ) -> FrameSink:
        """Return where the engine's frames go: the tunnel, behind a gate if there is one; see :class:`Gate`."""
        return tunnel if self._shares else Gate(tunnel, self.owners, is_own, keep_out, self._refused)

    async def close(self) -> None:
        """Stop looking for owners."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await self.owners.close()

    # --- inside

    def _refused(self, refused: Refused) -> None:
        if (
            len(self._telling) >= USERS
        ):  # somebody tries very hard; the same line is counted once in a while anyway
            return
        task = asyncio.get_running_loop().create_task(self._tell_of(refused))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_of(self, refused: Refused) -> None:
        if refused.uid == UNKNOWN:
            who, why = "nobody known", "it came from a container, or its program closed it at once"
        else:
            who = self._users.get(refused.uid) or await self._look_up(refused.uid)
            why = f"it is {who}'s"
        if who in self._refusals or len(self._refusals) < USERS:
            self._refusals[who] += 1
        five = refused.five_tuple
        target = f"{five.dst}:{five.dport}" if five.dst.version == 4 else f"[{five.dst}]:{five.dport}"
        self._tell(who, f"a {five.protocol.name} flow to {target} was refused, {why}; {REMEDY}")

    async def _look_up(self, uid: int) -> str:
        if self._looking_up >= LOOKUPS:
            return f"uid {uid}"
        self._looking_up += 1
        try:
            name = await asyncio.get_running_loop().run_in_executor(None, _user_name, uid)
        finally:
            self._looking_up -= 1
        self._users[uid] = name
        if len(self._users) > USERS:
            self._users.popitem(last=False)
        return name


def _user_name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
