"""A loop of queries under which everything breaks that can: each time it fails at once, says why, and goes on by itself.

One connection lives through all of it; what runs is what people run, `pd.read_sql` in a loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.demo.clusters import private_runtime, start
from tests.e2e import cable
from tests.e2e.inside import Untouched, helpers, inside, run, wait_until
from tests.e2e.kernels import Kernel
from tests.e2e.test_lifetime import parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.connection import Connection
    from telemagic.demo.client import Demo

FAILS_WITHIN: Final = 10.0  # seconds, the promise
BACK_WITHIN: Final = 10.0  # seconds, the promise
URL: Final = "postgresql+psycopg://shop@postgres.shop:5432/shop"
# Long enough to be always under way
QUERY: Final = "select region, sum(amount), pg_sleep(0.3) from orders group by 1"


@dataclass
class QueryLoop:
    """`pd.read_sql`, again and again, in a thread; failures are noted and the loop goes on."""

    successes: list[float] = field(default_factory=list)  # when, monotonic
    failures: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queries")

    def __enter__(self) -> Self:
        self._thread.start()
        assert wait_until(lambda: self.successes, 15)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        import pandas as pd
        import sqlalchemy

        engine = sqlalchemy.create_engine(URL)
        while not self._stop.is_set():
            try:
                assert len(pd.read_sql(QUERY, engine)) > 1
            except (pd.errors.DatabaseError, sqlalchemy.exc.OperationalError) as error:
                self.failures.append((time.monotonic(), str(error)))
                time.sleep(0.2)  # as long as somebody needs to run the cell again
            else:
                self.successes.append(time.monotonic())
        engine.dispose()

    def succeeded_after(self, moment: float) -> bool:
        return bool(self.successes) and self.successes[-1] > moment

    def check_failed_and_back(self, broken: float, restored: float | None = None) -> tuple[float, float]:
        """The running query failed in time after `broken`, and one succeeded in time after `restored`."""
        assert wait_until(lambda: self.failures and self.failures[-1][0] > broken, FAILS_WITHIN + 5)
        failed = next(at for at, _ in self.failures if at > broken) - broken
        assert failed < FAILS_WITHIN, failed
        since = broken if restored is None else restored
        assert wait_until(lambda: self.succeeded_after(max(since, broken + failed)), BACK_WITHIN + 15)
        back = next(at for at in self.successes if at > max(since, broken + failed)) - since
        assert back < BACK_WITHIN, back
        return failed, back


@contextlib.contextmanager
def running() -> Iterator[tuple[cable.Cable, Connection, QueryLoop]]:
    """Query through a connection whose API server is at the end of a cable."""
    import telemagic

    untouched = Untouched()
    with (
        tempfile.TemporaryDirectory() as folder,
        cable.to_the_api_server(Path(os.environ["KUBECONFIG"]), Path(folder)) as (line, kubeconfig),
        telemagic.connect(kubeconfig=kubeconfig) as tele,
        QueryLoop() as loop,
    ):
        yield line, tele, loop
    untouched.check()


@inside(timeout=150)
def test_the_way_to_the_cluster_breaks_and_heals() -> None:
    with running() as (line, tele, loop):
        restart_the_api_server(line, tele, loop)
        pull_the_cable(line, tele, loop)
        take_the_link_down(tele, loop)


def restart_the_api_server(line: cable.Cable, tele: Connection, loop: QueryLoop) -> None:
    """It breaks all connections and stops listening for some seconds."""
    broken = time.monotonic()
    line.stop()
    assert wait_until(lambda: tele.status.state == "reconnecting")
    time.sleep(4)  # and the back-off has become long
    assert "API server https://127.0.0.1" in tele.status.last_error, tele.status.last_error
    line.resume()
    loop.check_failed_and_back(broken, time.monotonic())
    assert tele.status.state == "connected"


def pull_the_cable(line: cable.Cable, tele: Connection, loop: QueryLoop) -> None:
    """Nothing gets through any more, neither on open connections nor on new ones, and nobody says so."""
    broken = time.monotonic()
    line.is_mute = True
    for each in list(line.lines):
        each.freeze()
    assert wait_until(lambda: tele.status.state == "reconnecting", FAILS_WITHIN)
    (reason,) = {reason for reason in tele.flows().reason if "silent" in reason}
    assert "(traffic manager telemagic/" in reason, reason
    assert wait_until(lambda: "no answer in time" in tele.status.last_error, 15), tele.status.last_error
    line.is_mute = False
    loop.check_failed_and_back(broken, time.monotonic())


def take_the_link_down(tele: Connection, loop: QueryLoop) -> None:
    """The machine's own link goes, and comes back."""
    broken = time.monotonic()
    set_link("down")
    assert wait_until(lambda: tele.status.state == "reconnecting", FAILS_WITHIN)
    time.sleep(3)
    set_link("up")
    loop.check_failed_and_back(broken, time.monotonic())


def set_link(state: str) -> None:
    """Set the link on which this sandbox has its API server."""
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


@pytest.mark.netns
def test_the_manager_is_killed_and_replaced() -> None:
    with private_runtime(), start(owned=True) as cluster:
        run(cluster, "from tests.e2e import test_reconnect; test_reconnect.replace_the_manager()", 90)


def replace_the_manager() -> None:
    """Its process is killed, then its pod deleted, and another one comes."""
    from telemagic.demo import client

    with client.find() as demo, running() as (_, tele, loop):
        first = break_the_manager(demo, "manager-killed", tele, loop)
        assert tele.status.manager == first  # the same pod, another process
        second = break_the_manager(demo, "pod-deleted", tele, loop, app="telemagic-manager")
        assert tele.status.manager != second


def break_the_manager(demo: Demo, fault: str, tele: Connection, loop: QueryLoop, **options: str) -> str:
    """Break it under a running query; returns what it was called."""
    before = tele.status.manager
    broken = time.monotonic()
    demo.fault(fault, **options)
    loop.check_failed_and_back(broken)
    reason = tele.status.last_error
    assert f"traffic manager {before}" in reason, reason
    return str(before)


# --- kernels and clusters ------------------------------------------------------------------------------------------


@inside(timeout=90)
def test_a_restarted_kernel_finds_the_data_plane_that_another_notebook_keeps() -> None:
    untouched = Untouched()
    with Kernel() as stays:
        stays.connect()
        (pid,) = data_planes()
        with Kernel() as restarted:
            restarted.connect()
            restarted.signal(signal.SIGKILL)
        with Kernel() as again:
            again.connect()
            assert data_planes() == [pid]
            assert again.run("tele.datapath_pid").value == str(pid)
            stays.signal(signal.SIGKILL)
            check_counts(again)
            assert again.run("tele.disconnect()").error == ""
    untouched.check()


@inside(timeout=120)
def test_two_clusters_side_by_side() -> None:
    from telemagic.demo import client

    untouched = Untouched()
    with client.ensure(name="other", owned=True) as demo, Kernel() as one, Kernel() as other:
        one.connect()
        connect = f"tele = telemagic.connect(kubeconfig={str(demo.kubeconfig)!r}, dns='none')"
        answer = other.run("import telemagic", connect, "tele.status.context", seconds=60)
        assert answer.error == "", answer
        assert len(data_planes()) == 2
        first, second = (kernel.run("tele.status.device").value for kernel in (one, other))
        assert first != second
        address = other.run(
            "services = tele.services().set_index('name')", "str(services.loc['tally'].cluster_ip)"
        )
        assert address.value, address
        check_counts(other, address.value.strip("'"))
        check_counts(one)
        assert other.run("tele.disconnect()", seconds=30).error == ""
        check_counts(one)
        assert one.run("tele.disconnect()").error == ""
        other.close()
        other.process.wait(30)
    untouched.check()


def data_planes() -> list[int]:
    """Pids of the data planes here, without the children that watch over them."""
    found = helpers("telehelper.datapath")
    return sorted(pid for pid in found if parent(pid) not in found)


def check_counts(kernel: Kernel, host: str = "tally.shop") -> None:
    """Have bytes counted by a service of the cluster."""
    answer = kernel.run(
        "import socket",
        f"sock = socket.create_connection(({host!r}, 7000), timeout=10)",
        "sock.sendall(b'abc')",
        "sock.shutdown(socket.SHUT_WR)",
        "sock.makefile().read()",
    )
    assert '"count": 3' in (answer.value or ""), answer
