"""The program that sudo runs: the question goes out by a socket, the answer comes back on standard output."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from telemagic import askpass
from telemagic.passwords import Passwords


async def run_script(passwords: Passwords, prompt: str) -> tuple[int | None, bytes]:
    process = await asyncio.create_subprocess_exec(
        passwords.environment["SUDO_ASKPASS"], prompt, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode, out


def exchange(prompt: str, answer: str) -> tuple[str, tuple[int | None, bytes]]:
    """Ask once through the real script; what arrived and what the script did."""

    async def main() -> tuple[str, tuple[int | None, bytes]]:
        with tempfile.TemporaryDirectory(prefix="tele-p-") as folder:
            async with Passwords.in_directory(Path(folder)) as passwords:
                script = asyncio.ensure_future(run_script(passwords, prompt))
                asked = await passwords.question()
                await passwords.answer(answer)
                done = await script
            assert os.listdir(folder) == []
            return asked, done

    return asyncio.run(main())


def test_question_and_answer() -> None:
    prompt = "[sudo] password for ada's 'café': "
    assert exchange(prompt, "right $horse `x`\\") == (prompt, (0, b"right $horse `x`\\\n"))


def test_an_empty_answer_cancels() -> None:
    assert exchange("Password:", "") == ("Password:", (1, b""))


def test_a_question_nobody_answers_is_hung_up() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="tele-p-") as folder:
            async with Passwords.in_directory(Path(folder)) as passwords:
                script = asyncio.ensure_future(run_script(passwords, "Password:"))
                await passwords.question()
            assert await script == (1, b"")
            await passwords.answer("too late")
            assert os.listdir(folder) == []

    asyncio.run(main())


def test_the_directory_is_private() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="tele-p-") as folder:
            async with Passwords.in_directory(Path(folder)) as passwords:
                script = Path(passwords.environment["SUDO_ASKPASS"])
                modes = [os.stat(path).st_mode & 0o777 for path in (script.parent, script)]
                assert modes == [0o700, 0o700]

    asyncio.run(main())


def test_without_a_notebook_there_is_no_password() -> None:
    assert askpass.main(["askpass", "/nowhere/s"]) == 1


def test_it_imports_nothing_of_ours() -> None:
    code = f"import sys, runpy; sys.argv = ['a', '/nowhere/s']; runpy.run_path({askpass.__file__!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert "telemagic" not in done.stdout.split()


def test_a_killed_notebook_leaves_no_directory() -> None:
    code = """
import asyncio, pathlib, sys
from telemagic.passwords import Passwords
async def main():
    async with Passwords.in_directory(pathlib.Path(sys.argv[1])) as passwords:
        print(passwords.environment["SUDO_ASKPASS"], flush=True)
        await passwords.question()
        print("asked", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with tempfile.TemporaryDirectory(prefix="tele-p-") as folder:
        command = [sys.executable, "-c", code, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as notebook:
            assert notebook.stdout is not None
            script = notebook.stdout.readline().strip()
            with subprocess.Popen([script, "Password:"], stdout=subprocess.PIPE) as asking:
                assert notebook.stdout.readline() == "asked\n"
                notebook.kill()
                assert asking.communicate() == (b"", None)
        assert os.listdir(folder) == []
