"""Starting the helper as an ordinary user: run by test_sudo.py as `python -m tests.netd_sudo.scenarios NAME`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from telehelper import __version__
from telehelper.errors import HelperMissing, HelperRefused, SudoDenied, TelemagicError

from telemagic import helper_copy, launch, live, privileged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telemagic.launch import Started

RUNTIME = Path(os.environ["TELEMAGIC_RUNTIME_DIR"])
STUB = (sys.executable, "-I", str(Path(__file__).parents[1] / "kernel" / "datapath_stub.py"))
RIGHT, WRONG = "right horse", "wrong horse"
BOUND = 5.0  # seconds


class User:
    """Somebody who types these answers and notes the prompts."""

    def __init__(self, *answers: str | None) -> None:
        self._answers = list(answers)
        self.prompts: list[str] = []

    async def ask(self, prompt: str) -> str | None:
        self.prompts.append(prompt)
        look_for_the_password()
        return self._answers.pop(0)


def look_for_the_password() -> None:
    """It must be in nobody's arguments or environment, in no file or log, and in no object of ours as it is shown."""
    for name in os.listdir("/proc"):
        for what in ("cmdline", "environ"):
            try:
                text = Path("/proc", name, what).read_bytes() if name.isdigit() else b""
            except OSError:
                continue
            assert RIGHT.encode() not in text, f"/proc/{name}/{what}"
    for path in RUNTIME.rglob("*"):
        assert not path.is_file() or RIGHT not in path.read_text(), path
    for link in Path("/proc/self/fd").iterdir():  # logs of children have no name in the file system
        with contextlib.suppress(OSError):
            log = link.read_bytes() if os.readlink(link).startswith("/memfd:") else b""
            assert RIGHT.encode() not in log, log
    for one in gc.get_objects():
        if str(type(one).__module__).partition(".")[0] in ("telemagic", "telehelper"):
            assert RIGHT not in repr(one)


async def start(
    ask: Callable[[str], Awaitable[str | None]] | None,
) -> tuple[Started, list[tuple[str, str, str]]]:
    phases: list[tuple[str, str, str]] = []
    began = time.monotonic()
    both = await launch.start(
        RUNTIME / "x.sock", ask=ask, on_phase=lambda *p: phases.append(p), datapath=STUB
    )
    print(f"started in {time.monotonic() - began:.3f} s: {both.how}")  # noqa: T201
    look_for_the_password()
    return both, phases


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"not within {BOUND} s: {what}"
        await asyncio.sleep(0.01)


def links() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


async def nothing_left() -> None:
    await until(lambda: not os.listdir(RUNTIME), "the runtime directory is empty")
    await until(lambda: links() == ["lo"], f"no interface is left: {links()}")
    await until(lambda: not children(), f"everything is reaped: {children()}")


def children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += (task / "children").read_text().split()
    return found


async def refused(
    *answers: str | None, kind: type[TelemagicError] = SudoDenied
) -> tuple[TelemagicError, list[str]]:
    user = User(*answers)
    began = time.monotonic()
    try:
        await launch.start(RUNTIME / "x.sock", ask=user.ask, on_phase=lambda *_: None, datapath=STUB)
    except kind as error:
        print(f"refused in {time.monotonic() - began:.3f} s: {error}")  # noqa: T201
        await nothing_left()
        return error, user.prompts
    raise AssertionError("it was not refused")


# --- scenarios ---------------------------------------------------------------------------------------------------


async def without_a_password() -> None:
    user = User()
    both, phases = await start(user.ask)
    assert user.prompts == []
    assert both.how == "sudo"
    assert phases == [("elevate", "started", ""), ("elevate", "done", "sudo")]
    os.kill(both.datapath_pid, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await nothing_left()


async def with_an_interface() -> None:
    os.environ["TELEMAGIC_STUB"] = "vif"
    both, _ = await start(User().ask)
    assert links() == ["lo", "tele0"]
    os.kill(both.datapath_pid, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await nothing_left()


async def right_password() -> None:
    os.environ["TELEMAGIC_STUB"] = "vif"
    user = User(RIGHT)
    both, _ = await start(user.ask)
    assert both.how == "sudo, with a password"
    assert user.prompts == ["[sudo] password for teletest: "], user.prompts
    assert links() == ["lo", "tele0"]
    assert os.listdir(RUNTIME) == ["x.sock"]
    os.kill(both.datapath_pid, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await nothing_left()


async def wrong_then_right_password() -> None:
    user = User(WRONG, RIGHT)
    both, _ = await start(user.ask)
    assert user.prompts == [
        "[sudo] password for teletest: ",
        "Sorry, try again. [sudo] password for teletest: ",
    ], user.prompts
    os.kill(both.datapath_pid, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await nothing_left()


async def always_wrong_password() -> None:
    error, prompts = await refused(WRONG, WRONG, WRONG)
    assert len(prompts) == 3
    assert "3 incorrect password attempts" in str(error), error


async def cancelled_by_an_empty_line() -> None:
    error, prompts = await refused("")
    assert str(error) == "cancelled at the password prompt"
    assert len(prompts) == 1


async def cancelled_by_nobody_there() -> None:
    error, _ = await refused(WRONG, None)
    assert str(error) == "cancelled at the password prompt"


async def later_than_sudos_timeout() -> None:
    """With `passwd_timeout` of a second: it is for whom sudo asks itself, not for a program that asks for it."""

    class Slow(User):
        async def ask(self, prompt: str) -> str | None:
            await asyncio.sleep(3.0)
            return await super().ask(prompt)

    user = Slow(RIGHT)
    both, _ = await start(user.ask)
    assert both.how == "sudo, with a password"
    assert len(user.prompts) == 1
    os.kill(both.datapath_pid, signal.SIGTERM)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await nothing_left()


async def given_up_by_sudo() -> None:
    """While nobody types, the program that asks is ended, which is all that can time a prompt out."""
    began: list[float] = []

    class Absent(User):
        async def ask(self, prompt: str) -> str | None:
            (pid,) = await asyncio.to_thread(askpasses)
            began.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            await asyncio.Event().wait()
            return None

    try:
        await launch.start(RUNTIME / "x.sock", ask=Absent().ask, on_phase=lambda *_: None, datapath=STUB)
    except SudoDenied as error:
        assert time.monotonic() - began[0] < BOUND
        assert error.message == "sudo refused: sudo: a password is required", error  # noqa: PT017
        assert "\n" not in error.message + error.hint  # noqa: PT017
        assert error.hint  # noqa: PT017
        await nothing_left()
    else:
        raise AssertionError("it was not refused")


def askpasses() -> list[int]:
    """Return this user's processes that ask for a password."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            words = (path / "cmdline").read_bytes()
            if b"askpass.py" in words and path.stat().st_uid == os.getuid():
                found.append(int(path.name))
    return found


async def interrupted_while_asking() -> None:
    asked = asyncio.Event()

    async def ask(_prompt: str) -> str | None:
        asked.set()
        await asyncio.Event().wait()
        return None

    task = asyncio.ensure_future(start(ask))
    await asked.wait()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await nothing_left()
    else:
        raise AssertionError("it was not cancelled")


async def a_failing_prompt_is_the_callers_error() -> None:
    async def ask(_prompt: str) -> str | None:
        raise NotImplementedError("no stdin here")

    try:
        await start(ask)
    except NotImplementedError:
        await nothing_left()
    else:
        raise AssertionError("it was not raised")


async def nobody_to_ask() -> None:
    try:
        await launch.start(RUNTIME / "x.sock", ask=None, on_phase=lambda *_: None, datapath=STUB)
    except SudoDenied as error:
        assert "nobody can be asked here (sudo: a password is required)" in str(error), error  # noqa: PT017
        await nothing_left()
    else:
        raise AssertionError("it was not refused")


async def not_in_sudoers() -> None:
    error, prompts = await refused(RIGHT)
    assert len(prompts) == 1
    assert "sudoers" in str(error) or "not allowed" in str(error), error


async def no_new_privs() -> None:
    error, prompts = await refused(kind=HelperMissing)
    assert prompts == []
    assert "no_new_privs" in str(error)


async def helper_command(action: str, *answers: str) -> str:
    """Run `%tele helper ACTION`, typing these answers."""
    from telemagic.commands import helper

    user = iter(answers)
    live.can_ask = lambda _shell: True
    live.getpass.getpass = lambda _prompt="": (look_for_the_password(), next(user))[1]
    text = repr(await asyncio.to_thread(helper.run, None, Namespace(action=action)))
    assert list(user) == [], "not everything was asked for"
    return text


async def as_root(script: str) -> None:
    async def ask(_prompt: str) -> str | None:
        return RIGHT

    await privileged.run(["/bin/sh", "-c", f"echo begun; {script}"], b"", ask)


def sudo_says(*command: str) -> str:
    done = subprocess.run(
        ["sudo", "-n", *command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.stderr


async def the_root_owned_copy() -> None:
    program = helper_copy.DIRECTORY / "netd"
    assert "none in" in await helper_command("status")
    text = await helper_command("install", WRONG, RIGHT)
    assert f'    {getpass.getuser()} ALL=(root) NOPASSWD: {program} ""\n' in text, text
    assert (
        await helper_command("status")
        == f"ready: {program} {__version__}; only root can change it, connect uses it"
    )
    for path in (program, *helper_copy.DIRECTORY.rglob("*"), *helper_copy.DIRECTORY.parents):
        assert path.stat().st_uid == 0, path
        assert not os.access(path, os.W_OK), path
    # What the line in sudoers permits: this, and nothing else.
    assert "standard input is no socket" in sudo_says(program)
    assert "password is required" in sudo_says(program, "--help")
    assert "password is required" in sudo_says("/usr/bin/env", program)
    assert "password is required" in sudo_says("FOO=1", program) or "not allowed to set" in sudo_says(
        "FOO=1", program
    )
    os.environ["TELEMAGIC_STUB"] = "vif"
    os.environ["PYTHONPATH"] = str(RUNTIME)
    both, _ = await start(None)
    assert both.how == "sudo, the root-owned copy"
    assert links() == ["lo", "tele0"]
    os.kill(both.datapath_pid, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{both.netd_pid}").exists(), "sudo is gone and reaped")
    (RUNTIME / "x.sock").unlink()
    await as_root(f"chmod o+w {helper_copy.DIRECTORY}/lib")
    assert "not to be trusted" in await helper_command("status")
    await refused(kind=HelperRefused)
    await helper_command("install", RIGHT)
    await as_root(f'sed -i \'s/"code": "/&0/\' {helper_copy.DIRECTORY}/manifest.json')
    assert "not used" in await helper_command("status")
    error, _ = await refused(None)
    assert str(error) == "cancelled at the password prompt", "this environment's netd is asked for"
    await helper_command("uninstall", RIGHT)
    assert not helper_copy.DIRECTORY.parent.exists()
    await nothing_left()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
