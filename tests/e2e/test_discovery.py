"""Clusters that tell of their networks as other products do, and users who may look at one namespace only."""

from __future__ import annotations

import json
import os
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import inside, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

SOON = 15.0  # seconds for a change to arrive; it takes about one


@pytest.fixture(scope="module")
def cluster() -> Iterator[Demo]:
    """A demo cluster like Amazon's: nobody tells where anything is."""
    with private_runtime(), start(owned=True, like="eks") as found:
        yield found


def ask_api(
    method: str, path: str, body: dict[str, Any] | None = None, *, admin: Path | None = None
) -> dict[str, Any]:
    """Ask the API server as the cluster's administrator, whose kubeconfig is the environment's."""
    config = yaml.safe_load((admin or Path(os.environ["KUBECONFIG"])).read_text())
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    request = urllib.request.Request(
        server + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def give_range(name: str, *networks: str) -> None:
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name}}
    ask_api("POST", "/apis/networking.k8s.io/v1/servicecidrs", {**body, "spec": {"cidrs": [*networks]}})


def sources(status: dict[str, Any], kind: str) -> dict[str, tuple[str, str]]:
    return {row["cidr"]: (row["source"], row["confidence"]) for row in status["cidrs"] if row["kind"] == kind}


def pod_address(app: str) -> str:
    (pod,) = ask_api("GET", f"/api/v1/namespaces/shop/pods?labelSelector=app={app}")["items"]
    return str(pod["status"]["podIP"])


def query(host: str) -> int:
    import psycopg

    with psycopg.connect(host=host, user="shop", dbname="shop", connect_timeout=10) as db:
        (count,) = db.execute("select count(*) from products").fetchone() or (0,)
    return int(count)


@inside()
def test_where_nobody_tells_a_refused_service_and_the_visible_pods_do() -> None:
    import telemagic

    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        services = sources(status, "services")
        assert {text.rpartition("/")[2] for text in services} == {"22", "112"}
        assert set(services.values()) == {("refused Service (dry run)", "certain")}
        assert set(sources(status, "pods").values()) == {("round visible pods", "guess")}
        assert status["notices"] == []
        assert query("postgres.shop") == query(pod_address("postgres")) == 12
    with telemagic.connect(cidr=[*services]) as tele:
        status = tele.status.to_dict()
        assert sources(status, "user") == dict.fromkeys(services, ("--cidr", "certain"))
        assert len(status["cidrs"]) == len(services)
        assert query("postgres.shop") == 12
    listed = ask_api("GET", "/api/v1/services")["items"]
    assert "telemagic-dry-run" not in {item["metadata"]["name"] for item in listed}, "nothing was created"


@pytest.fixture(scope="module")
def blind() -> Iterator[Demo]:
    """A demo cluster like Cilium's, whose manager may not look around: the user's own rights must do."""
    with start(name="blind", owned=True, like="cilium") as found:
        admin = found.kubeconfig
        binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/telemagic-manager"
        pods = "/api/v1/namespaces/telemagic/pods"
        ask_api("DELETE", binding, admin=admin)
        (old,) = ask_api("GET", pods, admin=admin)["items"]
        ask_api(
            "DELETE", f"{pods}/{old['metadata']['name']}", admin=admin
        )  # another comes, which knows nothing

        def is_replaced() -> bool:
            conditions = [
                condition
                for pod in ask_api("GET", pods, admin=admin)["items"]
                if pod["metadata"]["name"] != old["metadata"]["name"]
                for condition in pod["status"].get("conditions", ())
            ]
            return {"type": "Ready", "status": "True"}.items() <= _joined(conditions, "Ready").items()

        assert wait_until(is_replaced, SOON)
        yield found


def _joined(conditions: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((condition for condition in conditions if condition["type"] == kind), {})


@pytest.mark.netns
def test_a_range_that_the_cluster_is_given_while_we_are_connected_is_routed_unless_it_is_mischief(
    cluster: Demo, blind: Demo
) -> None:
    run(blind, "from tests.e2e.test_discovery import follow; follow()")


@pytest.mark.netns
def test_a_user_of_one_namespace_reaches_it_by_name_and_by_visible_address(
    cluster: Demo, blind: Demo
) -> None:
    run(blind, "from tests.e2e.test_discovery import in_one_namespace; in_one_namespace()")


def in_one_namespace() -> None:
    """Connect as somebody who may look at the namespace shop only, as the manager may not at all."""
    import telemagic

    catalog = pod_address("catalog")
    with telemagic.connect(
        kubeconfig=Path(os.environ["KUBECONFIG"]).parent / "namespaced.kubeconfig"
    ) as tele:
        status = tele.status.to_dict()
        assert {row["confidence"] for row in status["cidrs"]} == {"guess"}
        assert {row["kind"] for row in status["cidrs"]} == {"pods", "services"}
        assert query("postgres.shop") == 12
        with urllib.request.urlopen(f"http://{catalog}:8000/health", timeout=10) as answer:
            assert json.load(answer) == {"status": "ok"}
        assert tele.flows().iloc[-1].dst == catalog
        forbidden = [line for line in status["notices"] if "forbidden" in line]
        assert len(forbidden) == len(status["notices"]) <= 3, status["notices"]


def follow() -> None:
    """Connect to a cluster like Cilium's, and see a range that it is given later."""
    import telemagic

    with telemagic.connect() as tele:
        status = tele.status.to_dict()
        assert set(sources(status, "services").values()) == {("ServiceCIDR kubernetes", "certain")}
        assert set(sources(status, "pods").values()) == {("1 CiliumNode; also: cilium-config", "certain")}
        assert status["notices"] == []
        assert query("postgres.shop") == query(pod_address("postgres")) == 12
        give_range("evil", "127.0.0.0/8", "0.0.0.0/0")
        later = "198.19.200.0/24"
        give_range("later", later)
        assert wait_until(lambda: later in sources(tele.status.to_dict(), "services"), SOON)
        assert wait_until(lambda: later in set(tele.routes().query("state == 'applied'").cidr), SOON)
        (notice,) = tele.status.to_dict()["notices"]
        assert notice.endswith("names 127.0.0.0/8 and 1 more, which can be no cluster's: left out")
        with pytest.raises(OSError, match=r"refused|unreachable|timed out|reset"):
            socket.create_connection(("198.19.200.1", 80), timeout=3)
