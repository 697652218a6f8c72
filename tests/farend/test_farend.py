"""The manager in a real container with real pod networking, reached through containerd's own port-forward."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.e2e.inside import Untouched, tally, wait_until
from tests.farend import image
from tests.farend.control import IDLE, SILENT
from tests.farend.near import FarEnd, near_side

if TYPE_CHECKING:
    from collections.abc import Callable

GIGABYTE: Final = 1_000_000_000
_LOOK: Final = "print(open('/proc/1/status').read()); print(open('/proc/mounts').read())"
SERVICE: Final = "catalog.shop"
TALLY: Final = (SERVICE, 7000)
DEAD_WITHIN: Final = 10.0  # seconds, the promise
BACK_WITHIN: Final = 10.0  # seconds, the promise


def note(figure: str) -> None:
    """Tell a figure to who runs pytest with -s."""
    sys.stdout.write(f"{figure}\n")


def rate(what: str, seconds: float) -> None:
    note(f"a gigabyte {what}: {seconds:.1f} s, {GIGABYTE * 8 / seconds / 1e9:.2f} Gbit/s")


def check_no_flow_was_lost(last_error: str) -> None:
    # gRPC's own pings are 20 s apart: this runtime hangs up on the control connection, which disturbs no flow.
    assert last_error == "" or last_error.endswith("; flows go on")


@near_side(120)
def test_a_gigabyte_each_way_arrives_whole(far: FarEnd) -> None:
    import telemagic

    untouched = Untouched()
    block = bytes(range(251)) * 4096  # a length that is no multiple of a segment's
    pattern = bytes(range(256)) * 1024  # what the catalog repeats
    with telemagic.connect(kubeconfig=far.kubeconfig) as tele:
        began = time.monotonic()
        with socket.create_connection(TALLY, timeout=30) as sock:
            digest, left = hashlib.sha256(), GIGABYTE
            while left:
                piece = block[:left]
                sock.sendall(piece)
                digest.update(piece)
                left -= len(piece)
            assert tally(sock) == {"count": GIGABYTE, "sha256": digest.hexdigest()}
        rate("up", time.monotonic() - began)
        began = time.monotonic()
        digest, expected, count = hashlib.sha256(), hashlib.sha256(), 0
        with urllib.request.urlopen(f"http://{SERVICE}:8000/bytes/{GIGABYTE}", timeout=30) as answer:
            while data := answer.read(1 << 20):
                digest.update(data)
                count += len(data)
        rate("down", time.monotonic() - began)
        for start in range(0, GIGABYTE, len(pattern)):
            expected.update(pattern[: GIGABYTE - start])
        assert count == GIGABYTE
        assert digest.digest() == expected.digest()
        status = tele.status
        assert (status.via, status.carrier) == ("manager", "portforward")
        check_no_flow_was_lost(status.last_error)
        cidrs = {row["kind"]: row["source"] for row in status.to_dict()["cidrs"]}
        assert (
            "ServiceCIDR" in cidrs["services"]
        )  # asked for with the manager's service account, from its pod
        assert "podCIDR" in cidrs["pods"]
    untouched.check()


class Witness:
    """Takes the tunnel's place, and notes when and why a carrier was lost."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lost: list[tuple[float, str]] = []

    def carrier_lost(self, _carrier: object, reason: str) -> None:
        self.lost.append((time.monotonic() - self._began, reason))

    def ignore(self, *_: object) -> None:
        """Take no notice."""

    carrier_frames = carrier_leaving = control_lost = session_lost = info_changed = ignore


async def without_heartbeat(kubeconfig: Path, watch: Callable[[], None]) -> list[tuple[float, str]]:
    """Have carriers to the manager without a heartbeat for three idle timeouts, and none on this side either."""
    from telehelper.core import mux
    from telehelper.datapath.openers import choose_opener
    from telehelper.datapath.uplink import open_uplink
    from telehelper.kube.access import ApiAccess
    from telehelper.kube.client import ApiClient

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name in ("PING_INTERVAL", "FIRST_PING", "DEAD_AFTER"):
            patch.setattr(mux, name, 1e6)
        async with ApiClient(ApiAccess.from_kubeconfig(str(kubeconfig), "")) as api:
            witness = Witness()
            opener = await choose_opener("portforward", api)
            uplink = await open_uplink(witness, api, SILENT, Path(folder) / "relay", opener)
            deadline = time.monotonic() + 3 * IDLE + 1
            while time.monotonic() < deadline:
                watch()
                await asyncio.sleep(0.2)
            await uplink.close("the test is over")
    return witness.lost


@near_side(60)
def test_the_heartbeat_keeps_an_idle_tunnel_from_the_runtimes_timeout(far: FarEnd) -> None:
    import telemagic

    untouched = Untouched()
    with telemagic.connect(kubeconfig=far.kubeconfig) as tele, socket.create_connection(TALLY) as sock:
        sock.sendall(b"before")

        def is_alive() -> None:
            status = tele.status
            assert (status.state, status.carriers) == ("connected", 2)

        lost = asyncio.run(without_heartbeat(far.kubeconfig, is_alive))
        sock.sendall(b"after")
        assert tally(sock)["count"] == len("before" + "after")
        check_no_flow_was_lost(tele.status.last_error)
    note(f"without heartbeat: {lost}")
    assert len(lost) == 2  # both carriers, so that it was the heartbeat that kept ours
    for seconds, _ in lost:
        assert IDLE <= seconds < 3 * IDLE
    untouched.check()


@near_side(90)
def test_a_killed_manager_is_replaced_and_the_tunnel_comes_back(far: FarEnd) -> None:
    import telemagic

    untouched = Untouched()
    with telemagic.connect(kubeconfig=far.kubeconfig) as tele:
        with socket.create_connection(TALLY, timeout=DEAD_WITHIN) as sock:
            sock.sendall(b"and then")
            used = tele.status.manager
            began = time.monotonic()
            old = far.ask("kill")
            assert used.endswith(old["name"])
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            died = time.monotonic() - began
            assert died < DEAD_WITHIN
            flow = tele.flows().set_index("sport").loc[sock.getsockname()[1]]
        assert flow.state == "CLOSED"
        assert "carrier" in flow.reason, flow.reason
        assert wait_until(lambda: tele.status.state == "reconnecting")
        new = far.ask("replace")
        ready = time.monotonic()
        assert new["name"] != old["name"]
        assert new["address"] != old["address"]
        assert wait_until(lambda: tele.status.state == "connected", BACK_WITHIN), tele.status
        back = time.monotonic() - ready
        assert tele.status.manager.endswith(new["name"])
        with socket.create_connection(TALLY, timeout=10) as sock:
            sock.sendall(b"abc")
            assert tally(sock)["count"] == 3
        note(f"dead after {died:.1f} s ({flow.reason}), back {back:.1f} s after the new pod was ready")
    untouched.check()


@near_side(60)
def test_refused_ports_half_closes_resets_and_names(far: FarEnd) -> None:
    import telemagic

    with telemagic.connect(kubeconfig=far.kubeconfig) as tele:
        address = socket.gethostbyname(SERVICE)
        assert address == socket.gethostbyname("catalog")
        with pytest.raises(socket.gaierror):
            socket.gethostbyname("nothing.shop")
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 9), timeout=10)
        assert time.monotonic() - began < 1.0
        assert "refused" in tele.flows().query("dport == 9").iloc[-1].reason.lower()
        with socket.create_connection(TALLY, timeout=10) as sock:
            sock.sendall(b"abc")
            assert tally(sock) == {"count": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
        with socket.create_connection(TALLY, timeout=10) as sock:
            sock.sendall(b"RESET")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


@near_side(60)
def test_the_demos_port_forward_does_what_containerds_does(far: FarEnd) -> None:
    from tests.demo import test_cluster_portforward as demos

    real = SimpleNamespace(kubeconfig=far.admin_kubeconfig)
    for same in (
        demos.test_each_channel_is_announced_with_its_port,
        demos.test_a_refused_port_is_an_error_text_and_an_end_at_once,
        demos.test_after_the_applications_end_comes_a_grace_then_the_close,
        demos.test_a_port_that_is_refused_beside_another_stays_silent,
        demos.test_a_client_that_leaves_closes_the_applications_connection,
    ):
        same(real)


@near_side(30)
def test_the_container_may_nothing_that_restricted_forbids(far: FarEnd) -> None:
    said = far.ask("execute", command=["python", "-I", "-S", "-c", _LOOK])["said"]
    status = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    (root,) = (line for line in said.splitlines() if line.split()[1:2] == ["/"])
    assert "ro" in root.split()[3].split(",")
    assert "ready grpc=8081 carrier=8082" in far.ask("log")["said"]


@near_side(30)
def test_the_probes_of_the_deployment_succeed_in_the_container(far: FarEnd) -> None:
    deployment = yaml.safe_load((image.MANIFESTS / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert far.ask("execute", command=container[probe]["exec"]["command"])["said"] == ""
    wrong = [
        *container["readinessProbe"]["exec"]["command"][:-1],
        "import socket; socket.create_connection(('127.0.0.1', 9))",
    ]
    with pytest.raises(RuntimeError, match="refused"):
        far.ask("execute", command=wrong)
