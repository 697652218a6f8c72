"""Starting both halves of the helper directly: real netd, and a stub for the data plane. sudo: see netd_sudo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperLost, HelperMissing, TelemagicError, UsageError

from telemagic import launch
from telemagic.elevate import Rights, check_tun, find_sudo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from telemagic.launch import Started

STUB = (sys.executable, "-I", str(Path(__file__).with_name("datapath_stub.py")))
BOUND = 5.0  # seconds
PIDS: set[int] = set()  # data planes that were started and not yet seen to be gone


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A private directory with a short path, which must be empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="tele-l-") as name:
        yield Path(name)
        for pid in PIDS:  # of a test that failed half way
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        PIDS.clear()
        assert list(Path(name).iterdir()) == []


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"not within {BOUND} s: {what}"
        await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Reaped as well: a zombie still has its directory."""
    gone = not Path(f"/proc/{pid}").exists()
    if gone:
        PIDS.discard(pid)
    return gone


Phases = list[tuple[str, str, str]]


async def started(runtime: Path, phases: Phases | None = None) -> Started:
    heard: Phases = [] if phases is None else phases
    return await launch.start(
        runtime / "x.sock",
        ask=None,
        on_phase=lambda *phase: heard.append(phase),
        elevate="direct",
        datapath=STUB,
    )


def run(coroutine: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await coroutine()

    asyncio.run(main())


@pytest.mark.netns
def test_both_run_and_end_together(runtime: Path) -> None:
    async def scenario() -> None:
        phases: Phases = []
        begun = time.monotonic()
        both = await started(runtime, phases)
        print(f"direct start: {time.monotonic() - begun:.3f} s")  # noqa: T201
        assert phases == [("elevate", "started", ""), ("elevate", "done", "as root")]
        assert both.socket_path.is_socket()
        assert os.getsid(both.netd_pid) == both.netd_pid
        assert os.getsid(both.datapath_pid) == both.datapath_pid
        os.kill(both.datapath_pid, signal.SIGKILL)
        await until(lambda: is_gone(both.netd_pid) and is_gone(both.datapath_pid), "both are gone and reaped")
        both.socket_path.unlink()  # what a killed data plane cannot do

    run(scenario)


@pytest.mark.netns
def test_a_killed_netd_ends_the_data_plane(runtime: Path) -> None:
    async def scenario() -> None:
        both = await started(runtime)
        os.kill(both.netd_pid, signal.SIGKILL)
        await until(lambda: is_gone(both.netd_pid) and is_gone(both.datapath_pid), "both are gone and reaped")

    run(scenario)


@pytest.mark.netns
def test_neither_keeps_a_descriptor_of_the_other(runtime: Path) -> None:
    async def scenario() -> None:
        mine = len(os.listdir("/proc/self/fd"))
        both = await started(runtime)
        sockets = {
            pid: {link for link in links(pid) if link.startswith("socket:")}
            for pid in (os.getpid(), both.netd_pid, both.datapath_pid)
        }
        assert not sockets[both.netd_pid] & sockets[both.datapath_pid]
        assert not sockets[os.getpid()] & (sockets[both.netd_pid] | sockets[both.datapath_pid])
        os.kill(both.datapath_pid, signal.SIGTERM)
        await until(lambda: is_gone(both.netd_pid) and is_gone(both.datapath_pid), "both are gone")
        both.socket_path.unlink()
        await until(lambda: len(os.listdir("/proc/self/fd")) == mine, "no descriptor leaked here")

    def links(pid: int) -> list[str]:
        folder = Path(f"/proc/{pid}/fd")
        found = []
        with contextlib.suppress(PermissionError):  # netd is not dumpable: to others than root it is closed
            for link in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
                    found.append(os.readlink(link))
        return found

    run(scenario)


@pytest.mark.netns
def test_a_data_plane_that_dies_is_told_with_its_last_words(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMAGIC_STUB", "die")

    async def scenario() -> None:
        phases: Phases = []
        with pytest.raises(HelperLost, match="ended before it was ready: no such luck"):
            await started(runtime, phases)
        assert [state for _, state, _ in phases] == ["started", "failed"]
        assert children() == []

    run(scenario)


@pytest.mark.netns
def test_one_that_is_never_ready_is_given_up(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMAGIC_STUB", "mute")
    monkeypatch.setattr(launch, "READY_TIMEOUT", 0.5)

    async def scenario() -> None:
        with pytest.raises(HelperLost, match="was not ready within"):
            await started(runtime)
        assert children() == []

    run(scenario)


@pytest.mark.netns
@pytest.mark.parametrize("after", [0.0, 0.05, 0.4])
def test_being_cancelled_ends_and_reaps_everything(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    monkeypatch.setenv("TELEMAGIC_STUB", "mute")

    async def scenario() -> None:
        task = asyncio.ensure_future(started(runtime))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == []

    run(scenario)


@pytest.mark.netns
def test_a_python_that_cannot_import_netd_is_told(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NETD", (sys.executable, "-I", "-m", "no_such_netd"))

    async def scenario() -> None:
        with pytest.raises(HelperLost, match="No module named no_such_netd"):
            await started(runtime)
        assert children() == []

    run(scenario)


def test_there_are_three_ways_to_elevate(runtime: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(UsageError):
            await launch.start(runtime / "x.sock", ask=None, on_phase=lambda *_: None, elevate="magic")

    run(scenario)


def children() -> list[str]:
    """Children of this process, zombies included."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += (task / "children").read_text().split()
    return found


# --- what this machine allows ------------------------------------------------------------------------------------

NET_ADMIN = 1 << 12


@pytest.mark.parametrize(
    ("rights", "directly"),
    [
        (Rights(uid=0, effective=NET_ADMIN, ambient=0, no_new_privs=False), True),
        (Rights(uid=0, effective=NET_ADMIN, ambient=0, no_new_privs=True), True),
        (Rights(uid=1000, effective=NET_ADMIN, ambient=NET_ADMIN, no_new_privs=True), True),
        (Rights(uid=1000, effective=NET_ADMIN, ambient=0, no_new_privs=False), False),  # lost at exec
        (Rights(uid=1000, effective=0, ambient=0, no_new_privs=False), False),
    ],
)
def test_who_needs_sudo(rights: Rights, directly: bool) -> None:
    assert rights.can_configure() is directly


def refusal(rights: Rights) -> TelemagicError:
    with pytest.raises(HelperMissing) as caught:
        find_sudo(rights)
    return caught.value


def test_no_new_privs_is_named() -> None:
    error = refusal(Rights(uid=1000, effective=0, ambient=0, no_new_privs=True))
    assert "no_new_privs" in str(error)
    assert "telemagic demo shell" in error.hint


def test_root_without_the_capability_is_told_how_to_get_it() -> None:
    assert "--cap-add NET_ADMIN" in refusal(Rights(0, 0, 0, no_new_privs=False)).hint


def test_no_sudo_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(Rights(1000, 0, 0, no_new_privs=False))
    assert "no sudo" in str(error)
    assert "install sudo" in error.hint


def test_sudo_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sudo").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_sudo(Rights(1000, 0, 0, no_new_privs=False)) == str(tmp_path / "sudo")


def test_the_real_rights_are_read() -> None:
    rights = Rights.of_self()
    assert rights.uid == os.geteuid()
    done = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True, check=True)
    if rights.uid == 0:
        assert int(done.stdout.split()[1], 16) == rights.effective


def test_a_missing_tun_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(HelperMissing, match=r"there is no .*/tun") as caught:
        check_tun(str(tmp_path / "tun"), open_it=False)
    assert "modprobe tun" in caught.value.hint


def test_a_tun_that_cannot_be_opened_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "tun").mkdir()  # EISDIR, for root as well
    check_tun(str(tmp_path / "tun"), open_it=False)
    with pytest.raises(HelperMissing, match="cannot open"):
        check_tun(str(tmp_path / "tun"), open_it=True)


# --- the kernel stays light --------------------------------------------------------------------------------------


def test_launching_imports_nothing_heavy() -> None:
    code = "import sys, telemagic.launch; print(*{'pyroute2', 'grpc', 'kubernetes', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
