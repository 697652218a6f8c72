"""Without a traffic manager: the whole chain through the real kernel, TUN, API server and port-forwards of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
import urllib.request
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests import sandbox
from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import Untouched, inside, wait_until
from tests.notebooks.test_quickstart import flow_to, sales_by_region, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

    from telemagic.connection import Connection
    from telemagic.demo.client import Demo

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
SIZE = 64 * MIB
CATALOG = "http://catalog.shop:8000"
# The notebook runner makes a runtime directory of its own, so the demo without a manager is started in there.
NOTEBOOK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("run", sys.argv[1])
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
private, demos = run.use_private_directories, []

def with_a_demo(base, width):
    private(base, width)
    from telemagic.demo import client
    demos.append(client.ensure(owned=True, no_manager=True))

run.use_private_directories = with_a_demo
status = run.main(sys.argv[2:])
for demo in demos:
    demo.close()
sys.exit(status)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Demo]:
    """A demo cluster without a manager."""
    with private_runtime(), start(owned=True, no_manager=True) as found:
        yield found


def use_kubeconfig(name: str) -> None:
    """Take another kubeconfig of the demo than the administrator's."""
    path = Path(os.environ["KUBECONFIG"]).with_name(f"{name}.kubeconfig")
    assert path.exists()
    os.environ["KUBECONFIG"] = str(path)


def download(size: int) -> str:
    """Return the SHA-256 of so many bytes of the catalog's."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(f"{CATALOG}/bytes/{size}", timeout=60) as answer:
        while data := answer.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def echo(body: bytes) -> bytes:
    """Send a body and return what comes back."""
    request = urllib.request.Request(f"{CATALOG}/echo", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def hash_of_pattern(size: int) -> str:
    pattern = bytes(range(256)) * 4096  # what the catalog repeats
    digest = hashlib.sha256()
    for start_at in range(0, size, len(pattern)):
        digest.update(pattern[: size - start_at])
    return digest.hexdigest()


def check_refusals(tele: Connection) -> None:
    """Refused is refused, by service and by the pod's own kernel; what cannot be forwarded says so."""
    cidrs = tele.status.to_dict()["cidrs"]
    pods = next(ip_network(row["cidr"]) for row in cidrs if row["kind"] == "pods" and "." in row["cidr"])
    for host, port in (
        ("postgres.shop", 9),
        (socket.gethostbyname("catalog.shop"), 10),
        (a_pod_in(pods), 11),
    ):
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=10)
        assert time.monotonic() - began < 5
    flows = tele.flows()
    assert all("postgres.shop has no TCP port 9" in reason for reason in flows.query("dport == 9").reason)
    assert list(flows.query("dport == 11").reason) == ["connection refused"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((socket.gethostbyname("postgres.shop"), 12))
        datagrams.send(b"anybody?")
        words = "without a traffic manager"
        assert wait_until(lambda: any(words in why for why in tele.flows().query("dport == 12").reason))


def a_pod_in(pods: IPv4Network | IPv6Network) -> str:
    """Return the address of a pod that is there: one whose name the API's names know."""
    for address in pods:
        with contextlib.suppress(socket.gaierror):
            return socket.gethostbyname(f"{str(address).replace('.', '-')}.shop.pod.cluster.local")
    raise AssertionError(f"no pod in {pods}")


@inside()
def test_auto_is_agentless_and_rights_in_one_namespace_are_enough() -> None:
    import pandas as pd
    import sqlalchemy as sa

    import telemagic

    untouched = Untouched()
    use_kubeconfig("namespaced")
    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        assert (status["via"], status["manager"], status["carriers"]) == ("agentless", "", 1)
        notices = "\n".join(status["notices"])
        assert "agentless, because you may not look for a traffic manager in namespace 'telemagic'" in notices
        assert "no UDP" in notices
        assert "namespace shop only" in notices
        (tunnel,) = [phase for phase in status["phases"] if phase["phase"] == "tunnel"]
        assert tunnel["detail"].startswith("agentless, namespace shop only: you may not look for")
        assert wait_until(lambda: 0 < tele.status.to_dict()["rtt"] < 5)

        shop = sa.create_engine("postgresql+psycopg://shop@postgres.shop:5432/shop")
        orders = pd.read_sql("select id, region, amount from orders order by id", shop)
        assert len(orders) == 100_000
        sums = orders.groupby("region").amount.sum()
        assert {region: Decimal(str(round(total, 2))) for region, total in sums.items()} == sales_by_region()
        shop.dispose()

        full = socket.gethostbyname("postgres.shop.svc.cluster.local")
        for name in ("postgres", "postgres.shop", "postgres.shop.svc", "POSTGRES.Shop"):
            assert socket.gethostbyname(name) == full, name
        for name in ("nothing", "nothing.shop", "kube-dns.kube-system.svc.cluster.local"):
            with pytest.raises(socket.gaierror):
                socket.gethostbyname(name)

        for number in range(100):
            with urllib.request.urlopen(f"{CATALOG}/bytes/{number}", timeout=10) as answer:
                assert len(answer.read()) == number
        flows = tele.flows().query("dport == 8000")
        assert len(flows) >= 100
        assert set(flows.service) == {"catalog.shop"}
        check_refusals(tele)
    untouched.check()


@inside()
def test_bytes_arrive_whole_in_many_flows_beside_one_that_is_not_read() -> None:
    import telemagic

    untouched = Untouched()
    with telemagic.connect(via="agentless"):
        slow = socket.create_connection(("catalog.shop", 8000), timeout=10)
        slow.sendall(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: catalog.shop\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        assert download(SIZE) == hash_of_pattern(SIZE)
        body = os.urandom(MIB) * 64
        assert hashlib.sha256(echo(body)).digest() == hashlib.sha256(body).digest()
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(download(n * MIB) == hash_of_pattern(n * MIB)))
            for n in range(1, 21)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert results == [True] * 20
        assert slow.recv(1)
        slow.close()
    untouched.check()


def replace_a_pod() -> None:
    """Run in a sandbox: connect to a demo of its own, and delete a pod."""
    import telemagic
    from telemagic.demo import client

    with client.ensure(name="own", owned=True, no_manager=True) as demo:
        demo.attach()
        with telemagic.connect(kubeconfig=demo.kubeconfig, namespace="shop") as tele:
            assert "no traffic manager in namespace 'telemagic'" in "".join(tele.status.to_dict()["notices"])
            keep = socket.create_connection(("catalog.shop", 8000), timeout=10)
            echo(b"before")
            demo.fault("pod-deleted", app="catalog")
            assert wait_until(echoes, 10)
            with contextlib.suppress(ConnectionResetError):
                assert keep.recv(1) == b""
            keep.close()
            assert tele.status.to_dict()["state"] == "connected"


def echoes() -> bool:
    try:
        return echo(b"after") == b"after"
    except OSError:
        return False


@pytest.mark.netns
def test_a_replaced_pod_gets_the_next_connections() -> None:
    code = "from tests.e2e.test_agentless import replace_a_pod; replace_a_pod()"
    done = sandbox.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@inside()
def test_an_api_server_that_stops_takes_the_flows_with_it_and_comes_back() -> None:
    import telemagic
    from telemagic.demo import client

    with telemagic.connect(via="agentless") as tele, client.ensure(owned=True) as demo:
        held = socket.create_connection(("catalog.shop", 8000), timeout=15)
        demo.fault("api-stop", seconds=11)
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            held.recv(1)
        assert time.monotonic() - began < 10
        flow = tele.flows().query("dport == 8000").iloc[-1]
        assert "API server" in flow.reason
        assert wait_until(lambda: tele.status.to_dict()["state"] == "reconnecting", 12)
        assert wait_until(lambda: tele.status.to_dict()["state"] == "connected", 25)
        assert echo(b"again") == b"again"


@inside()
def test_what_does_not_fit_is_refused_in_a_line() -> None:
    import telemagic
    from telemagic.errors import CredentialsRefused, ManagerUnavailable, UsageError

    untouched = Untouched()
    with pytest.raises(ManagerUnavailable, match="no traffic manager") as caught:
        telemagic.connect(via="manager")
    assert "--via agentless" in caught.value.hint
    assert "%tele install" in caught.value.hint
    with pytest.raises(UsageError, match="--carrier"):
        telemagic.connect(via="agentless", carrier="tcp://127.0.0.1:1")
    use_kubeconfig("viewer")
    with pytest.raises(CredentialsRefused, match="may not forward ports") as refused:
        telemagic.connect()
    assert "pods/portforward" in refused.value.hint
    untouched.check()


@pytest.mark.netns
@pytest.mark.slow
def test_the_quickstart_runs_unchanged(tmp_path: Path) -> None:
    saved = tmp_path / "executed.ipynb"
    notebooks = ROOT / "notebooks"
    command = [
        sys.executable,
        "-c",
        NOTEBOOK,
        str(notebooks / "run.py"),
        "--width",
        "400",
        "--save",
        str(saved),
    ]
    done = sandbox.run([*command, str(notebooks / "01-quickstart.ipynb")], timeout=100)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    cells = {cell["id"]: cell for cell in nbformat.read(saved, as_version=4).cells}
    assert {row["region"]: Decimal(row["sum"]) for row in table_of(cells["query"])} == sales_by_region()
    flows = table_of(cells["flows"])
    assert int(flow_to(flows, "5432")["bytes_down"]) > 100
    assert "agentless" in done.stdout
