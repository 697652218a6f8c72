"""The sandbox that `telemagic demo shell`, the tests and the notebooks run in."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns


def sandboxed(*command: str) -> subprocess.CompletedProcess[str]:
    shell = [sys.executable, "-m", "telemagic.demo.shell", "--no-cluster", "--"]
    return subprocess.run([*shell, *command], capture_output=True, text=True, check=False)


def test_it_is_root_of_a_network_with_loopback_only() -> None:
    done = sandboxed("sh", "-c", "id -u; cat /proc/net/dev /proc/net/route")
    assert done.returncode == 0, done.stderr
    uid, *rest = done.stdout.splitlines()
    assert uid == "0"
    assert [line.split(":")[0].strip() for line in rest if ":" in line] == ["lo"]
    assert len(rest) == 4  # two heads and lo; the routing table has its head alone


def test_loopback_works() -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close(); s.close()"
    assert sandboxed(sys.executable, "-c", script).returncode == 0


def test_etc_is_private() -> None:
    before = Path("/etc/resolv.conf").read_text()
    script = (
        "echo nameserver 198.18.8.10 >> /etc/resolv.conf && rm /etc/nsswitch.conf && cat /etc/resolv.conf"
    )
    done = sandboxed("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("nameserver 198.18.8.10\n")
    assert Path("/etc/resolv.conf").read_text() == before
    assert Path("/etc/nsswitch.conf").exists()


def test_the_commands_end_is_passed_on() -> None:
    assert sandboxed("sh", "-c", "exit 9").returncode == 9
    assert sandboxed("sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    done = sandboxed("/no/such/command")
    assert done.returncode == 127
    assert "No such file" in done.stderr


def test_orphans_are_buried_while_the_command_runs() -> None:
    script = """
import os, time
pid = os.fork()
if not pid:
    grandchild = os.fork()
    if grandchild:
        print(grandchild, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    probe = f"orphan=$({sys.executable} -c '{script}'); n=0; while [ -e /proc/$orphan ] && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.02; done; [ ! -e /proc/$orphan ]"
    assert sandboxed("bash", "-c", probe).returncode == 0


@pytest.mark.slow
def test_what_is_left_running_is_ended_and_named() -> None:
    done = sandboxed("sh", "-c", "setsid sleep 300 & exit 0")
    assert done.returncode == 0
    assert "ending leftover process" in done.stderr
    assert "sleep 300" in done.stderr
