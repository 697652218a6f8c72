"""Has /proc searched for who holds sockets, by a child process that waits for questions (`processes.py` says why)."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Final

from telehelper.datapath import processes
from telehelper.datapath.processes import Process

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# -I, -S: it needs the standard library only, starts in some 15 ms, and takes 7 MiB
COMMAND: Final = (sys.executable, "-I", "-S", processes.__file__)
MAX_ANSWER: Final = 4 * 1024 * 1024  # bytes; a socket takes about 40
PATIENCE: Final = 5.0  # seconds for an answer; then the child is ended, and the next question starts another


class Searcher:
    """The child, started with the first question or by :meth:`start`; if it ends, the next question starts another."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The child's process id; 0 without one."""
        return self._child.pid if self._child is not None else 0

    async def start(self) -> None:
        """Have the child ready, so that the first question is answered at once; OSError if it cannot be started."""
        async with self._turn:
            await self._running()

    async def find(
        self, inodes: Collection[int], kernels: Mapping[int, int], first: Iterable[int]
    ) -> dict[int, Process]:
        """Return who holds these sockets; see :func:`~telehelper.datapath.processes.find_holders`.

        Parameters
        ----------
        inodes
            Of sockets.
        kernels
            When the known processes began, by pid; those that have ended since are left out.
        first
            Pids to look at before all others.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await self._ask(json.dumps([list(inodes), dict(kernels), list(first)]))
                return {int(inode): Process(*holder) for inode, holder in json.loads(answer).items()}
            except (
                OSError,
                ValueError,
                TimeoutError,
            ):  # it was killed, or cannot be started: nobody is found
                await self._end()
                return {}
            except asyncio.CancelledError:
                await self._end()  # an answer would be taken for the next question's
                raise

    async def close(self) -> None:
        """End the child."""
        await self._end()

    async def _ask(self, question: str) -> bytes:
        child = await self._running()
        if child.stdin is None or child.stdout is None:
            raise OSError("the child has no pipes")
        child.stdin.write(question.encode() + b"\n")
        return await child.stdout.readline()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is None:
            pipe = asyncio.subprocess.PIPE
            self._child = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=pipe, stdout=pipe, limit=MAX_ANSWER, env={}
            )
        return self._child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            if child.returncode is None:
                child.kill()
            await child.wait()
