"""How demo clusters begin and end, and that nothing stays whichever way they end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from telehelper.errors import HelperLost, UsageError

from telemagic.demo import client
from tests.demo.clusters import GONE_WITHIN, node_pid, pod_pids, processes, start, wait_until

pytestmark = pytest.mark.netns


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_two_demos_live_side_by_side(runtime: Path) -> None:
    with start(name="one", owned=True) as one, start(name="two", owned=True) as two:
        first, second = client.status()
        assert (first.name, first.ready, second.name, second.ready) == ("one", "4/4", "two", "4/4")
        assert first.pod_cidr != second.pod_cidr
        assert one.kubeconfig != two.kubeconfig
        with client.ensure(name="one", owned=True) as again:
            assert again.kubeconfig == one.kubeconfig


def test_a_demo_that_was_asked_to_stay_stays_until_it_is_taken_down(runtime: Path) -> None:
    start(owned=True).close()
    assert wait_until(lambda: not list(runtime.iterdir()), GONE_WITHIN)
    start(owned=False).close()
    with client.ensure(owned=True) as demo:
        demo.attach()
    assert [found.owned for found in client.status()] == [False]
    assert client.down()
    assert list(runtime.iterdir()) == []
    assert not client.down()


def test_killing_the_owner_ends_the_demo(runtime: Path) -> None:
    script = "import time\nfrom telemagic.demo import ensure\ndemo = ensure(owned=True)\nprint('up', flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        owner.kill()
        owner.wait()
        assert wait_until(lambda: not processes(runtime), GONE_WITHIN), processes(runtime)
        assert wait_until(lambda: not list(runtime.iterdir()), GONE_WITHIN)


@pytest.mark.parametrize("victim", ["guardian", "init"])
def test_killing_either_process_of_the_daemon_leaves_nothing(runtime: Path, victim: str) -> None:
    with start(owned=False) as demo:
        init = node_pid(runtime)
        os.kill(init if victim == "init" else parent_of(init), signal.SIGKILL)
        assert wait_until(lambda: not processes(runtime), GONE_WITHIN), processes(runtime)
        assert wait_until(lambda: not demo.directory.exists(), GONE_WITHIN)
        with pytest.raises(HelperLost):
            demo.attach()
    assert client.status() == []


def test_killing_both_leaves_a_directory_for_the_next_sweep(runtime: Path) -> None:
    with start(owned=False) as demo:
        init = node_pid(runtime)
        guardian = parent_of(init)
        os.kill(guardian, signal.SIGSTOP)
        os.kill(init, signal.SIGKILL)
        os.kill(guardian, signal.SIGKILL)
        assert wait_until(lambda: not processes(runtime), GONE_WITHIN), processes(runtime)
        assert demo.directory.exists()
    assert client.status() == []
    assert list(runtime.iterdir()) == []


def test_a_pod_that_dies_is_started_again(runtime: Path) -> None:
    with start(owned=True) as demo:
        (before,) = pod_pids(runtime, "telemagic.demo.catalog")
        os.kill(before, signal.SIGKILL)
        assert wait_until(lambda: client.status()[0].ready == "3/4", GONE_WITHIN)
        assert wait_until(lambda: client.status()[0].ready == "4/4", 2 * GONE_WITHIN)
        assert pod_pids(runtime, "telemagic.demo.catalog") != [before]
        assert demo.name == "demo"


def test_a_name_that_is_no_name_is_refused(runtime: Path) -> None:
    with pytest.raises(UsageError):
        client.ensure(name="../x", owned=True)


def test_a_shell_has_the_cluster_and_takes_it_down(runtime: Path) -> None:
    script = """
import os, ssl, sys, urllib.request, yaml
with open(os.environ["KUBECONFIG"]) as file:
    server = yaml.safe_load(file)["clusters"][0]["cluster"]["server"]
with urllib.request.urlopen(server + "/version", context=ssl._create_unverified_context()) as reply:
    sys.exit(7 if reply.status == 200 else 1)
"""
    command = [sys.executable, "-m", "telemagic.demo.shell", "--", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert list(runtime.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs all the other tests as one already")
def test_an_ordinary_user_can_do_all_of_it(runtime: Path) -> None:
    assert shutil.which("unshare")
    script = """
import os, urllib.request, ssl
from telemagic.demo import ensure, status
assert os.geteuid() == 1000
assert "CapEff:\\t0000000000000000" in open("/proc/self/status").read()
with ensure(owned=True) as demo:
    print(status()[0].ready)
"""
    command = ["unshare", "-U", "--map-user=1000", "--map-group=1000", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("4/4\n", 0), done.stderr


@pytest.mark.parametrize("owned", [True, False])
def test_interrupting_the_start_leaves_nothing(runtime: Path, owned: bool) -> None:
    script = f"from telemagic.demo import ensure\nensure(owned={owned})"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as starting:
        assert wait_until(lambda: bool(pod_pids(runtime, "initdb")), 2 * GONE_WITHIN)
        for pid in (*pod_pids(runtime, "telemagic.demo.daemon"), starting.pid):
            if os.getpgid(pid) == os.getpgid(starting.pid):  # as a terminal and a notebook's Interrupt do
                os.kill(pid, signal.SIGINT)
        assert starting.wait() != 0
        assert wait_until(lambda: not processes(runtime), 4 * GONE_WITHIN), processes(runtime)
        assert wait_until(lambda: not list(runtime.iterdir()), GONE_WITHIN)


def test_a_shell_beside_an_owned_demo_leaves_it_to_its_owner(runtime: Path) -> None:
    with start(owned=True) as demo:
        command = [sys.executable, "-m", "telemagic.demo.shell", "--", "true"]
        assert subprocess.run(command, check=False).returncode == 0
        assert [(found.name, found.owned) for found in client.status()] == [(demo.name, True)]


def test_a_demo_whose_directory_was_removed_ends(runtime: Path) -> None:
    with start(owned=False) as demo:
        shutil.rmtree(demo.directory)
        assert wait_until(lambda: not processes(runtime), GONE_WITHIN), processes(runtime)


def test_the_pods_have_no_listener_of_their_clients(runtime: Path) -> None:
    with start(owned=True):
        (pid,) = pod_pids(runtime, "telemagic.demo.nameserver")
        links = {os.readlink(entry) for entry in Path(f"/proc/{node_pid(runtime)}/fd").iterdir()}
        shared = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()} & links
        # The two ends of a pod's pipes are the container's standard streams; nothing else is shared.
        assert [link for link in shared if link.startswith(("socket:", "net:"))] == []
