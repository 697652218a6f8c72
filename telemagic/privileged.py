"""Running one command as root to its end, with sudo's password asked for in the notebook if it must be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from telehelper.errors import HelperLost, SudoDenied

from telemagic import live, loop
from telemagic.elevate import Rights, find_sudo
from telemagic.passwords import Passwords
from telemagic.paths import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

BEGUN: Final = b"begun\n"  # what the command prints first: by it one knows that it ran, not only sudo


def run_as_root(command: Sequence[str], data: bytes = b"") -> None:
    """Run a command as root with `data` on its standard input, and wait for its end. It must print "begun" first.

    Raises
    ------
    HelperMissing
        There is no way to become root here.
    SudoDenied
        The password was refused, nobody typed it, or nobody could be asked.
    HelperLost
        The command failed; the message has its last line.
    """
    foreground = loop.BlockingForeground()
    prompt = live.Prompt(live.Silent()) if live.can_ask(live.current_shell()) else None

    async def ask(question: str) -> str | None:
        assert prompt is not None  # noqa: S101  # passed on only then
        return await loop.ask(foreground, partial(prompt, question))

    thread, job = loop.LoopThread(), loop.Job[None]()
    try:
        thread.start(job, run(command, data, ask if prompt is not None else None))
        foreground.run(job)
    except BaseException as error:
        job.end(loop.CANCEL_PATIENCE)
        if isinstance(error, SudoDenied) and prompt is not None and prompt.refusal:
            raise SudoDenied(prompt.refusal, hint=error.hint) from error
        raise
    finally:
        thread.close()


async def run(
    command: Sequence[str], data: bytes, ask: Callable[[str], Awaitable[str | None]] | None
) -> None:
    """Do what :func:`run_as_root` says; ``ask`` gets sudo's prompt, None: nobody can be asked."""
    if os.geteuid() == 0:
        await _finish(await _start(command), data)
        return
    sudo = find_sudo(Rights(os.geteuid(), 0, 0, Rights.of_self().no_new_privs))
    if sudo is None or ask is None:
        await _finish(await _start([sudo or "sudo", "-n", "--", *command]), data)
        return
    async with Passwords.in_directory(runtime_dir()) as passwords:
        process = await _start([sudo, "-A", "--", *command], passwords.environment)
        answering = asyncio.ensure_future(_answer(passwords, ask))
        finishing = asyncio.ensure_future(_finish(process, data))
        try:
            await asyncio.wait((answering, finishing), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await passwords.answer("")
                answering.result()  # asking itself failed, which is the caller's error
            await finishing
        finally:
            answering.cancel()
            finishing.cancel()
            await asyncio.gather(answering, finishing, return_exceptions=True)


async def _answer(passwords: Passwords, ask: Callable[[str], Awaitable[str | None]]) -> None:
    while True:
        question = await passwords.question()
        await passwords.answer(await ask(question) or "")


async def _start(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {**os.environ, **(environment or {})}
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True
    )


async def _finish(process: asyncio.subprocess.Process, data: bytes) -> None:
    try:
        out, err = await process.communicate(data)
    except asyncio.CancelledError:
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # sudo is root: it ends with its askpass
            process.terminate()
        raise
    lines = [line.strip() for line in err.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if not out.startswith(BEGUN):
        raise SudoDenied(f"sudo refused: {last}")
    if process.returncode:
        raise HelperLost(f"it failed as root: {last}", hint="nothing that was there before was changed")
