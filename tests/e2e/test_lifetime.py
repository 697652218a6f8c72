"""Whichever process ends, in whatever way and at whatever moment: within five seconds nothing of ours is left.

One process killed in each phase: tests/drills.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.demo.clusters import pod_pids, private_runtime, start
from tests.e2e.inside import Untouched, helpers, inside, kill, run, wait_until
from tests.e2e.kernels import Answer, Kernel, silent_server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

LOST: Final = ("HelperLost", "NotConnected")
INTERRUPTED_WITHIN: Final = 2.0  # seconds
ATTEMPT: Final = """
def attempt():
    print("begins")
    try:
        telemagic.connect()
    except KeyboardInterrupt:
        return "interrupted"
    return "connected"
"""
QUERY: Final = """
def fetch():
    import urllib.request
    with urllib.request.urlopen("http://catalog.shop:8000/products", timeout=10) as answer:
        return len(answer.read()) > 0
"""


def parent(pid: int) -> int:
    """Return the parent's pid; 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def pids(name: str) -> list[int]:
    """Return the pids here of datapath, netd, or the child that watches over one of them: sweeper, guardian."""
    watched = {"sweeper": "datapath", "guardian": "netd"}
    found = helpers(f"telehelper.{watched.get(name, name)}")
    return [pid for pid in found if (parent(pid) in found) == (name in watched)]


def has_device() -> bool:
    """Tell whether there is a TUN device of ours."""
    return any(name.startswith("tele") for _, name in socket.if_nameindex())


def pid_of(name: str) -> int:
    """Return the pid of the only one."""
    (pid,) = pids(name)
    return pid


def check_works(kernel: Kernel) -> None:
    """Fetch something from the cluster."""
    answer = kernel.run(QUERY, "fetch()")
    assert answer.value == "True", answer


# --- killed while connected ------------------------------------------------------------------------------------


@inside()
def test_everything_killed_is_repaired_by_the_next_connect() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        kill(*(pid_of(name) for name in ("netd", "guardian", "datapath", "sweeper")))
        kernel.signal(signal.SIGKILL)
    # Nobody is left to put a file back; links and routes go by themselves.
    assert wait_until(lambda: not helpers() and not has_device())
    with Kernel() as kernel:
        kernel.connect()
        check_works(kernel)
        assert kernel.run("tele.disconnect()").error == ""
    untouched.check()


# --- killed while connecting -----------------------------------------------------------------------------------


@inside()
def test_killed_as_soon_as_it_is_there() -> None:
    untouched = Untouched()
    for name in ("kernel", "datapath", "netd"):
        with Kernel() as kernel:
            kernel.start("import telemagic", "tele = telemagic.connect()", "tele.status")
            assert wait_until(lambda: pids("datapath") and pids("netd"))
            os.kill(kernel.pid if name == "kernel" else pid_of(name), signal.SIGKILL)
            if name != "kernel":
                kernel.answer().check_error("HelperLost")
            else:
                kernel.process.wait()
            untouched.check()


# --- signals that may be handled ---------------------------------------------------------------------------------


@inside()
def test_terminated_or_interrupted_helpers_undo() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        for name, number in (
            ("datapath", signal.SIGTERM),
            ("datapath", signal.SIGINT),
            ("netd", signal.SIGTERM),
        ):
            kernel.connect()
            os.kill(pid_of(name), number)
            untouched.check()
            kernel.run("tele.status").check_error(*LOST)


@inside()
def test_netd_and_guardian_ignore_what_a_terminal_sends() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        before = sorted(helpers())
        for name, number in (("netd", signal.SIGINT), ("netd", signal.SIGHUP), ("guardian", signal.SIGTERM)):
            os.kill(pid_of(name), number)
        check_works(kernel)
        assert sorted(helpers()) == before
        assert kernel.run("tele.disconnect()").error == ""
    untouched.check()


@inside()
def test_terminated_kernel() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        kernel.signal(signal.SIGTERM)
        kernel.process.wait()
        untouched.check()


@inside()
def test_interrupt_while_connected_disturbs_nothing() -> None:
    with Kernel() as kernel:
        kernel.connect()
        kernel.start("import time", "print('begins')", "time.sleep(20)")
        assert kernel.line() == "begins"
        os.killpg(kernel.pid, signal.SIGINT)  # as a front end does: the whole process group
        assert kernel.answer(INTERRUPTED_WITHIN).error == "KeyboardInterrupt"
        check_works(kernel)


# --- the good ways to end ----------------------------------------------------------------------------------------


@inside()
def test_disconnect_has_undone_everything_when_it_returns() -> None:
    from tests.e2e.inside import machine, own_files

    untouched = Untouched()
    with Kernel() as kernel:
        for _ in range(2):
            kernel.connect()
            assert kernel.run("tele.disconnect()").error == ""
            assert machine() == untouched.before
            assert own_files() == untouched.files
        untouched.check()


@inside()
def test_exit_without_disconnect() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        kernel.close()
        assert kernel.process.wait(5) == 0
        untouched.check()


# --- more than one -----------------------------------------------------------------------------------------------


@inside()
def test_forked_children_keep_nothing_alive() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        answer = kernel.run(
            "import multiprocessing, subprocess, time",
            "forked = multiprocessing.get_context('fork').Process(target=time.sleep, args=(30,))",
            "forked.start()",
            "executed = subprocess.Popen(['sleep', '30'], close_fds=False)",
            "[forked.pid, executed.pid]",
        )
        children = [int(word) for word in (answer.value or "").strip("[]").split(",")]
        try:
            kernel.signal(signal.SIGKILL)
            untouched.check()
            assert all(Path(f"/proc/{pid}").exists() for pid in children)  # they outlived it
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


@inside()
def test_a_forked_child_is_not_connected_and_its_end_disturbs_nothing() -> None:
    with Kernel() as kernel:
        kernel.connect()
        code = """
def ask(queue):
    try:
        telemagic.session.session().current()
    except telemagic.errors.NotConnected as error:
        queue.put(error.message)
"""
        answer = kernel.run(
            "import multiprocessing, telemagic.session, telemagic.errors",
            code,
            "context = multiprocessing.get_context('fork')",
            "queue = context.Queue()",
            "child = context.Process(target=ask, args=(queue,))",
            "child.start()",
            "said = queue.get(timeout=10)",
            "child.join(10)",
            "[said, child.exitcode]",
        )
        assert answer.value == "['this process was forked from the connected one', 0]", answer
        check_works(kernel)


@inside()
def test_two_kernels_share_a_data_plane() -> None:
    untouched = Untouched()
    with Kernel() as first, Kernel() as second:
        first.connect()
        pid = pid_of("datapath")
        second.connect()
        assert pid_of("datapath") == pid
        assert first.run("tele.disconnect()").error == ""
        check_works(second)
        first.connect()
        second.signal(signal.SIGKILL)
        check_works(first)
        assert pid_of("datapath") == pid
        assert first.run("tele.disconnect()").error == ""
        untouched.check()


@inside()
def test_two_kernels_connect_at_the_same_moment() -> None:
    untouched = Untouched()
    with Kernel() as first, Kernel() as second:
        for kernel in (first, second):
            kernel.start("import telemagic", "tele = telemagic.connect()", "tele.datapath_pid")
        pids_seen = {kernel.answer().value for kernel in (first, second)}
        assert pids_seen == {str(pid_of("datapath"))}
        for kernel in (first, second):
            assert kernel.run("tele.disconnect()").error == ""
        untouched.check()


# --- interrupted -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@inside()
def test_interrupted_while_connecting() -> None:
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        assert kernel.run("tele.disconnect()").error == ""
        untouched.check()
        for delay in (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 1.2):
            answer = interrupt_after(kernel, delay)
            if answer.value == "'interrupted'":
                assert kernel.run("telemagic.session.session().connection").value == "None"
            else:  # too late: connect() had returned
                assert answer.value == "'connected'" or answer.error == "KeyboardInterrupt", answer
                assert kernel.run("telemagic.session.session().disconnect()").error == ""
            untouched.check()
        kernel.connect()
        check_works(kernel)


def interrupt_after(kernel: Kernel, delay: float) -> Answer:
    """Interrupt a connect as a front end does; it must be over soon."""
    kernel.start("import telemagic.session", ATTEMPT, "attempt()")
    assert kernel.line() == "begins"
    time.sleep(delay)
    began = time.monotonic()
    os.killpg(kernel.pid, signal.SIGINT)
    answer = kernel.answer(INTERRUPTED_WITHIN + 3)
    assert time.monotonic() - began < INTERRUPTED_WITHIN, (delay, answer, time.monotonic() - began)
    return answer


@inside()
def test_interrupted_while_the_api_server_does_not_answer() -> None:
    untouched = Untouched()
    with silent_server() as path, Kernel() as kernel:
        kernel.start("import telemagic", f"telemagic.connect(kubeconfig={str(path)!r})")
        assert wait_until(has_device, 10)
        began = time.monotonic()
        os.killpg(kernel.pid, signal.SIGINT)
        assert kernel.answer(5).error == "KeyboardInterrupt"
        assert time.monotonic() - began < INTERRUPTED_WITHIN
        untouched.check()
        kernel.connect()
        check_works(kernel)


# --- the manager -------------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_killed_manager() -> None:
    with private_runtime() as runtime, start(owned=True) as cluster:
        (pid,) = pod_pids(runtime, "telehelper.manager")
        run(cluster, f"from tests.e2e import test_lifetime; test_lifetime.kill_manager({pid})")


def kill_manager(pid: int) -> None:
    """Kill the traffic manager under open flows; the demo's kubelet starts another."""
    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        socks = [socket.create_connection(("tally.shop", 7000), timeout=15) for _ in range(4)]
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        for sock in socks:
            with sock, pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert time.monotonic() - began < 10.0
        states = set()

        def is_back() -> bool:
            state = tele.status.to_dict()["state"]
            states.add(state)
            return bool(state == "connected" and len(states) > 1)

        assert wait_until(is_back, 15), states
        assert states == {"reconnecting", "connected"}
        with socket.create_connection(("tally.shop", 7000), timeout=10) as sock:
            sock.sendall(b"abc")
            sock.shutdown(socket.SHUT_WR)
            assert b'"count": 3' in sock.recv(1000)
        assert "connected" in repr(tele.status).lower()
    untouched.check()


# --- a demo cluster of the kernel's own --------------------------------------------------------------------------


@pytest.mark.netns
@pytest.mark.slow
def test_killed_kernel_takes_its_demo_cluster_along(
    sandboxed_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with private_runtime():
        code = "from tests.e2e import test_lifetime; test_lifetime.kill_owner()"
        done = sandboxed_python(code, timeout=90)
        assert done.returncode == 0, done.stderr
        assert "ending leftover process" not in done.stderr


def kill_owner() -> None:
    """Kill a kernel that has started a demo cluster, while it starts one and when it has."""
    from telemagic.paths import runtime_dir

    def is_gone() -> bool:
        return not list(runtime_dir().iterdir()) and not helpers()

    untouched = Untouched()
    for wait_for_answer in (True, False):
        with Kernel() as kernel:
            kernel.start("import telemagic", "tele = telemagic.connect(demo=True)", "'connected'")
            if wait_for_answer:
                assert kernel.answer(60).value == "'connected'"
                check_works(kernel)
            else:
                assert wait_until(lambda: list(runtime_dir().glob("demo-*")), 10)
                time.sleep(0.5)  # somewhere in the middle
            kernel.signal(signal.SIGKILL)
            assert wait_until(is_gone, 5.0), (list(runtime_dir().rglob("*")), helpers())
            untouched.check()
