"""Where sudo's questions arrive: an askpass script and a socket in a private directory, gone after the launch.

The password passes through memory, a Unix socket that only this uid can reach, and the pipe from the askpass process
to sudo. It is in no argument, environment variable, file or log.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from telehelper.private import is_own, peer_of

from telemagic import askpass

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator


class Passwords:
    """One sudo call's questions, one after the other."""

    def __init__(self, directory: Path) -> None:
        self._script = directory / "askpass"
        self._socket = directory / "s"
        self._questions: asyncio.Queue[tuple[str, asyncio.StreamWriter]] = asyncio.Queue()
        self._asking: set[asyncio.StreamWriter] = set()
        self._open: asyncio.StreamWriter | None = None

    @classmethod
    @asynccontextmanager
    async def in_directory(cls, parent: Path) -> AsyncIterator[Passwords]:
        """Listen for questions in a new directory below `parent`, which is private already."""
        directory = Path(tempfile.mkdtemp(prefix="ask-", dir=parent))  # mode 0700
        try:
            passwords = cls(directory)
            server = await passwords._listen()
            try:
                yield passwords
            finally:
                server.close()
                await passwords._hang_up()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What sudo needs in its environment."""
        return {"SUDO_ASKPASS": str(self._script)}

    async def question(self) -> str:
        """Wait for sudo's next prompt."""
        prompt, self._open = await self._questions.get()
        return prompt

    async def answer(self, password: str) -> None:
        """Answer the prompt last returned by :meth:`question`; an empty password cancels."""
        if self._open is not None:
            with contextlib.suppress(OSError):  # sudo has given up waiting
                self._open.write(password.encode())
                await self._close(self._open)
            self._open = None

    async def _listen(self) -> asyncio.Server:
        self._write_script()
        return await asyncio.start_unix_server(self._accept, path=self._socket)

    def _write_script(self) -> None:
        command = [sys.executable, "-I", askpass.__file__, str(self._socket)]
        self._script.touch(0o700, exist_ok=False)  # a script, because sudo takes a program without arguments
        self._script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$1"\n')

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asking.add(writer)
        peer: socket.socket = writer.get_extra_info("socket")
        if not is_own(peer_of(peer)[1]):
            await self._close(writer)
            return
        prompt = await reader.read(askpass.MAX_PROMPT)
        await self._questions.put((prompt.decode(errors="replace"), writer))

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        self._asking.discard(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _hang_up(self) -> None:
        for writer in list(self._asking):
            await self._close(writer)
