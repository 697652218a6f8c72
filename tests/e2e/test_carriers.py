"""Carriers that break, fall silent or take another way, on the whole chain: application, kernel, TUN, manager, service."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.demo.clusters import pod_pids, private_runtime, start
from tests.e2e import cable
from tests.e2e.inside import Untouched, inside, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.connection import Connection

SENT: Final = 200_000  # bytes through each flow, to see which connections are carriers
DEAD_WITHIN: Final = 10.0  # seconds, the promise
BACK_WITHIN: Final = 15.0  # seconds


@contextlib.contextmanager
def flows(count: int) -> Iterator[list[socket.socket]]:
    """Have open flows that have sent something and wait for an answer."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("tally.shop", 7000), timeout=15))
            sock.sendall(bytes(SENT))
            found.append(sock)
        yield found


def reset(socks: list[socket.socket], seconds: float, count: int) -> list[socket.socket]:
    """Wait until so many flows are reset, and no other has anything to say."""
    deadline = time.monotonic() + seconds
    over: list[socket.socket] = []
    while len(over) < count and time.monotonic() < deadline:
        left = [sock for sock in socks if sock not in over]
        over += select.select(left, [], [], 0.2)[0]
    for sock in over:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert len(over) == count
    return over


def check_ends_well(sock: socket.socket) -> None:
    """End a flow; the far side must have got every byte, however late."""
    sock.shutdown(socket.SHUT_WR)
    with sock.makefile("rb") as stream:
        assert f'"count": {SENT}'.encode() in stream.read()


def check_works() -> None:
    with flows(1) as (sock,):
        check_ends_well(sock)


def reasons(tele: Connection, socks: list[socket.socket]) -> set[str]:
    """What is recorded of flows that are over, found by their port."""
    table = tele.flows().set_index("sport")
    return {table.loc[port].reason for port in ports(socks)}


def ports(socks: list[socket.socket]) -> list[int]:
    return [sock.getsockname()[1] for sock in socks]


@contextlib.contextmanager
def through_a_cable() -> Iterator[tuple[cable.Cable, Connection]]:
    """Connect with everything going through a cable to the API server; in the end the machine is as before."""
    import telemagic

    untouched = Untouched()
    with (
        tempfile.TemporaryDirectory() as folder,
        cable.to_the_api_server(Path(os.environ["KUBECONFIG"]), Path(folder)) as (line, kubeconfig),
        telemagic.connect(kubeconfig=kubeconfig) as tele,
    ):
        assert tele.status.carrier == "portforward"
        yield line, tele
    untouched.check()


# --- port-forwards -----------------------------------------------------------------------------------------------


@inside()
def test_a_cut_carrier_takes_only_its_own_flows_along_and_is_replaced() -> None:
    with through_a_cable() as (line, tele), flows(4) as socks:
        assert wait_until(lambda: len(line.carrying(2 * SENT)) == 2)
        first, _ = line.carrying(2 * SENT)
        states = {tele.status.state}
        first.cut()
        dead = reset(socks, 2.0, 2)  # at once
        alive = [sock for sock in socks if sock not in dead]
        (reason,) = reasons(tele, dead)
        assert "carrier" in reason, reason
        assert tele.status.last_error == reason

        def is_replaced() -> bool:
            status = tele.status
            states.add(status.state)
            return bool(status.carriers == 2)

        assert wait_until(is_replaced, BACK_WITHIN)
        assert states == {"connected"}
        check_works()
        for sock in alive:
            check_ends_well(sock)
        table = tele.flows().set_index("sport")
        assert not set(ports(alive)) & set(table[table.reason == reason].index)
        assert reason in repr(tele.status)


@inside()
def test_a_cut_control_connection_disturbs_no_flow() -> None:
    with through_a_cable() as (line, tele), flows(2) as socks:
        assert wait_until(lambda: len(line.carrying(SENT)) == 2)
        carriers = line.carrying(SENT)
        others = [each for each in line.lines if each not in carriers]
        for other in others:
            other.cut()
        assert wait_until(lambda: tele.status.last_error.endswith("; flows go on"), BACK_WITHIN)
        assert (tele.status.state, tele.status.carriers) == ("connected", 2)
        assert wait_until(lambda: len(line.lines) > len(carriers), BACK_WITHIN)  # it comes back
        check_works()
        for sock in socks:
            check_ends_well(sock)
        assert (tele.status.state, tele.status.carriers) == ("connected", 2)


@pytest.mark.slow
@inside(120)
def test_a_pulled_cable_is_noticed_within_ten_seconds() -> None:
    with through_a_cable() as (line, tele), flows(3) as socks:
        assert wait_until(lambda: len(line.carrying(SENT)) == 2)
        began = time.monotonic()
        for each in list(line.lines):
            each.freeze()
        reset(socks, DEAD_WITHIN, 3)
        assert time.monotonic() - began < DEAD_WITHIN
        (reason,) = reasons(tele, socks)
        assert reason.startswith("the far side has been silent for too long (traffic manager telemagic/"), (
            reason
        )
        # While it is being opened anew, what that fails on; before and afterwards, what was lost.
        assert wait_until(lambda: tele.status.state == "connected", BACK_WITHIN)
        assert tele.status.last_error == reason
        check_works()


# --- straight to the manager -------------------------------------------------------------------------------------


def check_direct(scheme: str, port: int) -> None:
    import telemagic

    untouched = Untouched()
    with cable.to_the_manager(Path(os.environ["KUBECONFIG"]), port) as line:
        carrier = f"{scheme}://127.0.0.1:{line.port}"
        with telemagic.connect(carrier=carrier) as tele:
            assert tele.status.carrier == carrier
            assert f"2 · {carrier}" in repr(tele.status)
            assert len(line.lines) == 2
            with flows(4) as socks:
                assert wait_until(lambda: len(line.carrying(2 * SENT)) == 2)
                line.lines[0].cut()
                dead = reset(socks, 2.0, 2)
                assert wait_until(lambda: tele.status.carriers == 2, BACK_WITHIN)
                for sock in socks:
                    if sock not in dead:
                        check_ends_well(sock)
            with flows(2) as socks:
                for each in list(line.lines):
                    each.cut()
                reset(socks, 2.0, 2)
                assert wait_until(lambda: tele.status.state == "connected", BACK_WITHIN)
                check_works()
    untouched.check()


@inside()
def test_carriers_in_tls_straight_to_the_manager() -> None:
    check_direct("tls", 8083)


@inside()
def test_carriers_in_tcp_straight_to_the_manager() -> None:
    check_direct("tcp", 8084)


@inside()
def test_a_manager_that_is_none_leaves_nothing_behind() -> None:
    from telehelper.errors import ManagerUnavailable, UsageError

    import telemagic

    untouched = Untouched()
    with cable.to_the_manager(Path(os.environ["KUBECONFIG"]), 8084) as line:
        with pytest.raises(ManagerUnavailable, match="does not take carriers"):
            telemagic.connect(carrier=f"tls://127.0.0.1:{line.port}")  # which speaks plain TCP
        untouched.check()
        with pytest.raises(UsageError, match="is no address for carriers"):
            telemagic.connect(carrier=f"127.0.0.1:{line.port}")
        untouched.check()


# --- a manager that is told to end -------------------------------------------------------------------------------


@pytest.mark.netns
def test_drained_manager() -> None:
    with private_runtime() as runtime, start(owned=True) as cluster:
        (pid,) = pod_pids(runtime, "telehelper.manager")
        run(cluster, f"from tests.e2e import test_carriers; test_carriers.drain_manager({pid})")


def drain_manager(pid: int) -> None:
    """Have Kubernetes end a manager: flows end in peace, new ones wait for the next one."""
    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        with flows(2) as socks:
            address = socks[0].getpeername()
            os.kill(pid, signal.SIGTERM)
            assert wait_until(lambda: tele.status.state == "reconnecting")
            with socket.socket(socks[0].family) as late:
                late.setblocking(False)
                late.connect_ex(address)
                for sock in socks:
                    check_ends_well(sock)
                assert wait_until(lambda: tele.status.state == "connected", BACK_WITHIN)
                assert tele.status.last_error.startswith("the traffic manager is going away (")
                assert select.select([], [late], [], BACK_WITHIN)[1]
                late.setblocking(True)
                late.sendall(bytes(SENT))
                check_ends_well(late)  # it waited for the manager that came
            table = tele.flows().set_index("sport")
            assert {table.loc[port].bytes_up for port in ports(socks)} == {SENT}
        check_works()
    untouched.check()
