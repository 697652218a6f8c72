"""What else can happen to a connection: processes that stand still, the machine's network changed by hand, things that run out."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.drills.stage import PATIENCE, Stage, eventually, ip, one_line
from tests.e2e.inside import machine, wait_until
from tests.e2e.test_lifetime import pids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drills.table import Drill

MANY: Final = """
def many():
    import socket
    socks = [socket.create_connection(("tally.shop", 7000), timeout=30) for _ in range(200)]
    for sock in socks:
        sock.sendall(b"abc")
        sock.shutdown(socket.SHUT_WR)
    return sum(b'"count": 3' in sock.makefile("rb").read() + (sock.close() or b"") for sock in socks)
"""
BULK: Final = """
def bulk():
    import urllib.request
    try:
        with urllib.request.urlopen("http://catalog.shop:8000/bytes/100000000", timeout=20) as answer:
            return sum(len(chunk) for chunk in iter(lambda: answer.read(1 << 20), b""))
    except OSError as error:
        return type(error).__name__
"""


# --- stopped -----------------------------------------------------------------------------------------------------


def stopped_data_plane(drill: Drill, stage: Stage) -> None:
    """A command does not hang; nothing is lost."""
    stage.connect()
    (pid,) = pids("datapath")
    os.kill(pid, signal.SIGSTOP)
    with stage.promised():
        one_line(stage.kernel.run("tele.status", seconds=PATIENCE))
    with stage.promised():
        os.kill(pid, signal.SIGCONT)
        stage.works(drill.within)
    stage.disconnect()
    stage.clean(5.0)


def stopped_netd(drill: Drill, stage: Stage) -> None:
    """Disconnecting does not hang; what netd has to undo it undoes when it goes on."""
    stage.connect()
    (pid,) = pids("netd")
    os.kill(pid, signal.SIGSTOP)
    with stage.promised():
        answer = stage.kernel.run("tele.disconnect()", seconds=PATIENCE)
    if answer.error:
        one_line(answer)
    with stage.promised():
        os.kill(pid, signal.SIGCONT)
        stage.clean(drill.within)


# --- the machine's network, by hand ------------------------------------------------------------------------------


def device(stage: Stage) -> str:
    """Name of the connection's interface."""
    return (stage.kernel.run("tele.status.device").value or "").strip("'")


def notices(stage: Stage) -> str:
    """What the connection has noted."""
    return stage.kernel.run("tele.status.to_dict()['notices']", seconds=PATIENCE).value or ""


def _device_gone(drill: Drill, stage: Stage, *words: str) -> None:
    stage.connect()
    name = device(stage)
    with stage.promised():
        ip("link", *words, name, *(["down"] if words == ("set",) else []))
        eventually(
            lambda: stage.kernel.run("tele.status", seconds=PATIENCE).error, drill.within, "status says so"
        )
        answer = stage.kernel.run("tele.status", seconds=PATIENCE)
        answer.check_error("HelperLost", "NotConnected")
        assert "device" in answer.message, answer
        stage.clean(drill.within)
    stage.connect()
    stage.works()
    stage.disconnect()
    stage.clean(5.0)


def deleted_device(drill: Drill, stage: Stage) -> None:
    """The connection ends, and says why."""
    _device_gone(drill, stage, "delete")


def device_down(drill: Drill, stage: Stage) -> None:
    """As if it was deleted: packets for the cluster must not take another way, as its routes have gone."""
    _device_gone(drill, stage, "set")


def removed_route(drill: Drill, stage: Stage) -> None:
    """It is put back, and a notice says so."""
    stage.connect()
    before = machine()
    frame = "tele.routes().query('state == \"applied\"').cidr.astype(str).tolist()[0]"
    cidr = (stage.kernel.run(frame).value or "").strip("'")
    name = device(stage)
    with stage.promised():
        ip("route", "delete", cidr, "dev", name)
        eventually(lambda: machine() == before, drill.within, f"the route to {cidr} is back")
        eventually(lambda: "put back" in notices(stage), drill.within, "a notice says so")
    stage.works()
    stage.disconnect()
    stage.clean(5.0)


def overwritten_resolv_conf(drill: Drill, stage: Stage) -> None:
    """It is set again, on top of the new one: what is put back at the end is what was written last."""
    path = Path("/etc/resolv.conf")
    old, new = path.read_text(), "# by dhclient\nnameserver 192.0.2.9\n"
    stage.connect(options="dns='resolvconf'")
    assert "telemagic" in path.read_text()
    said = "was overwritten by another program; it was set again"
    with stage.promised():
        path.write_text(new)
        eventually(lambda: "telemagic" in path.read_text(), drill.within, "it is set again")
        stage.works()
        eventually(lambda: said in notices(stage), drill.within, "a notice says so")
    stage.disconnect()
    assert path.read_text() == new
    path.write_text(old)
    stage.clean(drill.within)


# --- what runs out -----------------------------------------------------------------------------------------------


def few_descriptors(drill: Drill, stage: Stage) -> None:
    """Flows need none in the data plane."""
    assert (
        stage.kernel.run("import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))").error
        == ""
    )
    stage.connect()
    with stage.promised():
        answer = stage.kernel.run(MANY, "many()", seconds=PATIENCE)
    assert answer.value == "200", answer
    stage.disconnect()
    stage.clean(5.0)
    stage.close()  # the limit is this kernel's


def little_memory(drill: Drill, stage: Stage) -> None:
    """What does not fit ends the connection, or does not; it never stands still."""
    stage.connect()
    (pid,) = pids("datapath")
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 4 * 1024 * 1024, resource.RLIM_INFINITY))
    with stage.promised():
        answer = stage.kernel.run(BULK, "bulk()", seconds=PATIENCE)
    assert answer.value is not None, answer
    state = stage.kernel.run("tele.status.state", seconds=PATIENCE)
    if state.error:
        one_line(state)
        stage.kernel.run("tele.disconnect()", seconds=PATIENCE)
    else:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        stage.works(drill.within)
        stage.disconnect()
    stage.clean(5.0)


def _in_runtime(drill: Drill, stage: Stage, options: str, fill: Callable[[Path], None]) -> None:
    """Connect with a runtime directory of its own that is a small file system."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "run"
        path.mkdir(mode=0o700)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"mode=700,size=64k,{options}", "tmpfs", path], check=True
        )
        try:
            fill(path)
            stage.close()
            stage.kernel.run(f"os.environ['TELEMAGIC_RUNTIME_DIR'] = {str(path)!r}", "None")
            with stage.promised():
                stage.kernel.start("tele = telemagic.connect(timeout=10)", "'connected'")
                answer = stage.kernel.answer(PATIENCE)
            if answer.error:
                one_line(answer)
            else:
                stage.disconnect()
            stage.clean(5.0)
            stage.close()
        finally:
            subprocess.run(["umount", "-l", path], check=True)


def full_runtime_directory(drill: Drill, stage: Stage) -> None:
    """A socket needs a place, not a block."""

    def fill(path: Path) -> None:
        try:
            (path / "full").write_bytes(bytes(1 << 20))
        except OSError:
            return
        raise AssertionError("it is not full")

    _in_runtime(drill, stage, "nr_inodes=2", fill)


def read_only_runtime_directory(drill: Drill, stage: Stage) -> None:
    """Nothing can be put there, and that is said."""

    def close(path: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)

    _in_runtime(drill, stage, "rw", close)


def no_home(drill: Drill, stage: Stage) -> None:
    """Nothing of ours is written there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", folder], check=True)
        try:
            stage.close()
            stage.kernel.run(f"os.environ['HOME'] = {folder!r}", "None")
            with stage.promised():
                stage.connect()
            stage.works()
            stage.disconnect()
            stage.clean(5.0)
            stage.close()
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def hanging_sudo(drill: Drill, stage: Stage) -> None:
    """A sudo that asks a directory service which does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        sudo = Path(folder) / "sudo"
        sudo.write_text("#!/bin/sh\nexec sleep 1000\n")
        sudo.chmod(0o755)
        stage.kernel.run(
            "import telemagic.launch", f"telemagic.launch.choose = lambda elevate: {str(sudo)!r}", "None"
        )
        with stage.promised():
            answer = stage.kernel.run("telemagic.connect(timeout=3)", seconds=PATIENCE)
            one_line(answer)
            assert wait_until(lambda: not _commands("sleep", "1000"))
            stage.clean(5.0)
        stage.close()


def _commands(*words: str) -> list[Path]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().split(b"\0")[:-1] == [word.encode() for word in words]:
                found.append(entry)
        except OSError:
            continue  # it ended while we looked
    return found


BODIES: Final[dict[str, Callable[[Drill, Stage], None]]] = {
    "SIGSTOP data plane": stopped_data_plane,
    "SIGSTOP netd": stopped_netd,
    "TUN deleted by hand": deleted_device,
    "link set down by hand": device_down,
    "route removed by hand": removed_route,
    "resolv.conf overwritten (DHCP)": overwritten_resolv_conf,
    "file descriptors limited to 256": few_descriptors,
    "memory of the data plane limited": little_memory,
    "runtime directory on a full disk": full_runtime_directory,
    "runtime directory read-only": read_only_runtime_directory,
    "HOME read-only and full": no_home,
    "sudo hangs": hanging_sudo,
}
