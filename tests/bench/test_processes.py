"""What processes cost, looked at from outside: one that is known to use some."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import HelperError

from telemagic.bench import footprint, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "telemagic.made.up"
SIZE = 32 << 20
# Says when it is there, then does what a line asks for. The module's name is only a word of its command line.
CODE = f"""
import sys, time
print("ready", flush=True)
kept = []
for line in sys.stdin:
    if line == "grow\\n":
        kept.append(bytearray(b"x") * {SIZE})
    else:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    print("done", flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CODE, "-m", MODULE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin
        process.stdin.close()


def order(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_a_process_is_found_by_module_and_network(worker: subprocess.Popen[str]) -> None:
    here = processes.own_network()
    assert processes.find(MODULE, here) == [Path(f"/proc/{worker.pid}")]
    assert processes.find(MODULE, here + 1) == []
    assert processes.find("telemagic.made", here) == []


def test_processor_time(worker: subprocess.Popen[str]) -> None:
    found = processes.find(MODULE, processes.own_network())
    before = processes.cpu_seconds(found)
    order(worker, "work")
    assert 0.15 <= processes.cpu_seconds(found) - before < 1.0
    assert processes.cpu_seconds([]) == 0.0


def test_memory(worker: subprocess.Popen[str]) -> None:
    found = processes.find(MODULE, processes.own_network())
    before = processes.memory(found)
    order(worker, "grow")
    assert SIZE * 0.95 <= processes.memory(found) - before <= SIZE * 1.2
    assert processes.memory([]) == 0


def test_memory_per_flow_counts_data_plane_and_manager_but_not_netd(monkeypatch: pytest.MonkeyPatch) -> None:
    datapath, netd, manager = Path("/datapath"), Path("/netd"), Path("/manager")
    sizes = {datapath: iter((1000, 9000)), manager: iter((500, 1500))}
    monkeypatch.setattr(footprint, "_SETTLE", 0.0)
    monkeypatch.setattr(processes, "memory", lambda found: sum(next(sizes[entry]) for entry in found))
    held: list[int] = []

    def hold(count: int) -> list[str]:
        held.append(count)
        return [sys.executable, "-c", "import sys; print('holding', flush=True); sys.stdin.read()"]

    tunnel = footprint.Tunnel((datapath, netd), (manager,))
    assert footprint.bytes_per_flow(tunnel, hold, 100) == (80.0, 10.0)
    assert held == [10, 100]


def test_flows_that_cannot_be_held_are_not_counted() -> None:
    self = Path("/proc/self")
    with pytest.raises(HelperError, match="did not start"):
        footprint.bytes_per_flow(footprint.Tunnel((self,), ()), lambda _: [sys.executable, "-c", ""], 100)


def test_an_idle_process_uses_next_to_nothing(
    worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "_SETTLE", 0.0)
    sleeping = Path(f"/proc/{worker.pid}")
    monkeypatch.setattr(time, "sleep", lambda _: order(worker, "work"))
    found = footprint.idle(footprint.Tunnel((sleeping,), ()), 0.2)
    assert 0.1 < found.near <= 1.1  # what it did while it was watched
    assert found.far == 0.0


def test_waiting_until_something_is_so() -> None:
    answers = iter([False, False, True])
    processes.wait_until(lambda: next(answers), 30.0, "it is not")
    with pytest.raises(HelperError, match="it is not"):
        processes.wait_until(lambda: False, 0.05, "it is not")
