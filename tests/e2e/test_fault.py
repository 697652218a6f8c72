"""`%tele fault` on the whole chain: each fault happens, its promise is kept, and all works afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import Untouched, helpers, run, wait_until
from tests.e2e.kernels import Kernel
from tests.e2e.test_lifetime import check_works, pid_of

if TYPE_CHECKING:
    from telemagic.demo.client import Demo

OWN: Final = frozenset({"data-plane-killed", "data-plane-frozen"})


def play(cluster: Demo, name: str, timeout: float = 60.0) -> None:
    run(cluster, f"from tests.e2e import test_fault; test_fault.{name}()", timeout)


@pytest.mark.netns
@pytest.mark.slow
def test_each_fault_keeps_its_promise() -> None:
    with private_runtime(), start(owned=True) as cluster:  # the manager of which is replaced
        play(cluster, "each", 400)


def each() -> None:
    """All of them on one connection, the last of which ends it."""
    import telemagic
    from telemagic.promises import BY_NAME, Outcome

    untouched = Untouched()
    tele = telemagic.connect()
    assert tele.faults() == BY_NAME.keys()
    said: list[str] = []
    for name, promise in sorted(BY_NAME.items(), key=lambda item: item[1].outcome is Outcome.LOST):
        came = tele.fault(name, say=said.extend)
        assert came.verdict in ("kept", "late"), came  # late: this machine has more to do
        assert said.pop().startswith(f"{name}: {promise.happens}; within")
        assert came.steps
        assert came.seconds > 0
        if promise.outcome in (Outcome.LOST, Outcome.RESET):
            assert any(text.startswith("the open connection ended") for _, text in came.steps), came
    assert said == []
    untouched.check()
    with telemagic.connect() as tele:
        assert tele.status.state == "connected"
    untouched.check()


@pytest.mark.netns
def test_a_service_of_ones_own_choice_is_watched(cluster: Demo) -> None:
    play(cluster, "watched")


def watched() -> None:
    """As on clusters that are no demo's: what a connection to the service comes to is told."""
    from telehelper.errors import UsageError

    import telemagic

    tele = telemagic.connect()
    with pytest.raises(UsageError, match="postgre"):
        tele.fault("data-plane-killed", service="postgre.shop:5432")
    assert tele.status.state == "connected"
    came = tele.fault("data-plane-killed", service="postgres.shop")
    assert came.is_kept, came
    assert came.steps[-1][1] == "device, routes and socket are gone"
    assert any(text.startswith("the open connection ended") for _, text in came.steps), came
    assert came.remains == "nothing"


@pytest.mark.netns
def test_from_a_terminal_beside_a_notebook(cluster: Demo) -> None:
    play(cluster, "beside")


def beside() -> None:
    """The command attaches to the notebook's connection, and says that it is the notebook's, too."""
    untouched = Untouched()
    with Kernel() as kernel:
        kernel.connect()
        done = fault("carriers-cut")
        assert done.returncode == 0, done
        assert "note: shared with 1 other kernel" in done.stderr
        assert "carriers-cut: kept" in done.stdout
        check_works(kernel)
        done = fault("data-plane-killed")
        assert done.returncode == 0, done
        assert "remains   nothing" in done.stdout
        kernel.run("tele.status").check_error("HelperLost", "NotConnected")
        assert wait_until(lambda: not helpers())
        kernel.connect()
        check_works(kernel)
        assert kernel.run("tele.disconnect()").error == ""
    untouched.check()


def fault(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "telemagic", "fault", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.netns
def test_an_interrupt_mends_what_was_broken(cluster: Demo) -> None:
    play(cluster, "interrupted", 90)


def interrupted() -> None:
    """In the middle of it, as a front end interrupts: the whole process group; and then by kill -9."""
    untouched = Untouched()
    with Kernel() as kernel:
        for name in ("data-plane-frozen", "manager-frozen"):
            kernel.connect()
            kernel.start(f"tele.fault({name!r}, say=lambda lines: print('now', flush=True))")
            assert kernel.line() == "now"
            time.sleep(1.0)  # it is frozen now
            began = time.monotonic()
            os.killpg(kernel.pid, signal.SIGINT)
            assert kernel.answer().error == "KeyboardInterrupt"
            assert time.monotonic() - began < 5.0
            check_works(kernel)
            assert kernel.run("tele.disconnect()").error == ""
        kernel.connect()
        pid = pid_of("datapath")
        kernel.start("tele.fault('data-plane-frozen', say=lambda lines: print('now', flush=True))")
        assert kernel.line() == "now"
        assert wait_until(lambda: is_stopped(pid))
        kernel.signal(signal.SIGKILL)
    untouched.check()


def is_stopped(pid: int) -> bool:
    """Whether a process stands still."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.netns
def test_a_cluster_that_is_no_demo(cluster: Demo) -> None:
    play(cluster, "foreign")


def foreign() -> None:
    """Its API server is reached through another port: then nothing of the cluster may be broken."""
    import tempfile
    from pathlib import Path

    from telehelper.errors import UsageError

    import telemagic
    from tests.e2e import cable

    with tempfile.TemporaryDirectory() as folder:
        laid = cable.to_the_api_server(Path(os.environ["KUBECONFIG"]), Path(folder))
        with laid as (_, kubeconfig), telemagic.connect(kubeconfig=kubeconfig) as tele:
            assert tele.faults() == OWN
            with pytest.raises(UsageError, match="is none with a traffic manager"):
                tele.fault("carriers-cut")
            came = tele.fault("data-plane-frozen")
            assert came.is_kept, came
            assert tele.fault("data-plane-killed").is_kept


@pytest.mark.netns
def test_agentless(cluster: Demo) -> None:
    play(cluster, "agentless")


def agentless() -> None:
    """There is no manager to break, and what is promised of carriers is not true of single port-forwards."""
    import telemagic

    untouched = Untouched()
    with telemagic.connect(via="agentless") as tele:
        assert tele.faults() == OWN
        assert tele.fault("data-plane-killed").is_kept
    untouched.check()
