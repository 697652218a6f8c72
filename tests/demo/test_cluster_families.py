"""Both address families: in the objects, on the wire between pods, and on a machine that has IPv4 alone."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests import sandbox
from tests.demo.clusters import pod_pids, run_beside
from tests.demo.test_cluster_api import get

if TYPE_CHECKING:
    from pathlib import Path

    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns


def items(demo: Demo, path: str) -> dict[str, Any]:
    code, body = get(demo.kubeconfig, path)
    assert code == 200
    return {item["metadata"]["name"]: item for item in body["items"]}


def families(addresses: list[str]) -> list[int]:
    return [ip_address(address).version for address in addresses]


def test_the_objects_tell_of_both_families(demo: Demo) -> None:
    (node,) = items(demo, "/api/v1/nodes").values()
    (service_cidr,) = items(demo, "/apis/networking.k8s.io/v1/servicecidrs").values()
    pods_cidrs = [ip_network(text) for text in node["spec"]["podCIDRs"]]
    service_cidrs = [ip_network(text) for text in service_cidr["spec"]["cidrs"]]
    assert (
        [network.version for network in pods_cidrs]
        == [network.version for network in service_cidrs]
        == [4, 6]
    )
    assert node["spec"]["podCIDR"] == str(pods_cidrs[0])
    assert ip_network("2001:2::/48").supernet_of(pods_cidrs[1])
    for pod in items(demo, "/api/v1/pods").values():
        own = [entry["ip"] for entry in pod["status"]["podIPs"]]
        assert own[0] == pod["status"]["podIP"]
        assert all(ip_address(ip) in network for ip, network in zip(own, pods_cidrs, strict=True))
    services = {name: item["spec"] for name, item in items(demo, "/api/v1/services").items()}
    for name, versions in {
        "catalog": [4, 6], "postgres": [4, 6], "tally": [4, 6], "kube-dns": [4, 6],
        "kubernetes": [4], "blackhole": [4], "blackhole-v6": [6],
    }.items():  # fmt: skip
        spec = services[name]
        assert families(spec["clusterIPs"]) == versions, name
        assert spec["clusterIP"] == spec["clusterIPs"][0]
        assert spec["ipFamilies"] == [f"IPv{version}" for version in versions]
        assert (spec["ipFamilyPolicy"] == "SingleStack") is (len(versions) == 1)
    headless = services["catalog-pods"]
    assert (headless["clusterIPs"], headless["ipFamilies"]) == (["None"], ["IPv4", "IPv6"])


def test_there_is_an_endpoint_slice_for_each_family(demo: Demo) -> None:
    code, body = get(demo.kubeconfig, "/apis/discovery.k8s.io/v1/endpointslices")
    assert code == 200
    found: dict[str, dict[str, list[str]]] = {}
    for item in body["items"]:
        service = item["metadata"]["labels"]["kubernetes.io/service-name"]
        addresses = [address for entry in item["endpoints"] for address in entry["addresses"]]
        assert {f"IPv{version}" for version in families(addresses)} <= {item["addressType"]}
        found.setdefault(service, {})[item["addressType"]] = addresses
    (pod,) = items(demo, "/api/v1/pods?labelSelector=app%3Dcatalog").values()
    four, six = (entry["ip"] for entry in pod["status"]["podIPs"])
    for service in ("catalog", "catalog-pods", "tally"):
        assert found[service] == {"IPv4": [four], "IPv6": [six]}
    assert list(found["kubernetes"]) == ["IPv4"]
    assert found["blackhole-v6"] == {"IPv6": []}
    flat = items(demo, "/api/v1/endpoints")["catalog"]
    assert [entry["ip"] for entry in flat["subsets"][0]["addresses"]] == [four], (
        "one family only, as in Kubernetes"
    )


TALK = """
import json, socket
found = []
for address in {addresses}:
    with socket.create_connection((address, 8000), timeout=5) as connection:
        found.append(connection.getsockname()[0])
with socket.socket(socket.AF_INET6) as connection:
    connection.settimeout(5)
    found.append(connection.connect_ex((address, 9)))
with socket.socket(socket.AF_INET6) as connection:
    connection.settimeout(0.5)
    try:
        connection.connect(({silent!r}, 80))
    except TimeoutError:
        found.append("silence")
print(json.dumps(found))
"""


def test_pods_talk_over_ipv6_and_say_who_they_are(demo: Demo) -> None:
    services = {name: item["spec"]["clusterIPs"] for name, item in items(demo, "/api/v1/services").items()}
    (pod,) = items(demo, "/api/v1/pods?labelSelector=app%3Dcatalog").values()
    (manager,) = items(demo, "/api/v1/pods?labelSelector=app%3Dtraffic-manager").values()
    targets = [pod["status"]["podIPs"][1]["ip"], services["catalog"][1]]
    script = TALK.format(addresses=targets, silent=services["blackhole-v6"][0])
    runtime = demo.directory.parent
    talked = json.loads(run_beside(pod_pids(runtime, "telehelper.manager")[0], script))
    own = manager["status"]["podIPs"][1]["ip"]
    assert talked == [own, own, 111, "silence"]  # ECONNREFUSED
    # A pod with services in front of it has their addresses too; its own is what others see.
    script = TALK.format(addresses=targets[:1], silent=services["blackhole-v6"][0])
    assert json.loads(run_beside(pod_pids(runtime, "telemagic.demo.catalog")[0], script))[0] == targets[0]


LOOK = """
import json, socket
import psycopg, telemagic
with telemagic.connect() as tele:
    with psycopg.connect(host="postgres.shop", user="shop", dbname="shop", connect_timeout=10) as db:
        (count,) = db.execute("select count(*) from products").fetchone()
    found = [address[0] for *_, address in socket.getaddrinfo("catalog.shop", 80, type=socket.SOCK_STREAM)]
    status = tele.status.to_dict()
cidrs = [row["cidr"] for row in status["cidrs"]]
print(json.dumps([count, found, cidrs, status["address_v6"], status["notices"]]))
"""


def demo_command(*words: str) -> str:
    command = [sys.executable, "-m", "telemagic", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_cluster_of_ipv4_alone_works_and_says_so(runtime: Path) -> None:
    assert demo_command("up", "--name", "four", "--ipv4-only").endswith("/kubeconfig, IPv4 only\n")
    assert demo_command("status").endswith("/kubeconfig, IPv4 only\n")
    done = sandbox.run([sys.executable, "-c", LOOK], cluster="four")
    assert done.returncode == 0, done.stderr
    count, addresses, cidrs, address_v6, notices = json.loads(done.stdout)
    assert (count, addresses) == (12, ["198.18.8.21"])
    assert cidrs == ["198.18.8.0/22", "198.18.0.0/21"]
    assert (address_v6, notices) == ("", []), "and the machine is left without IPv6 of ours"
    demo_command("down", "--name", "four")
    assert list(runtime.iterdir()) == []


def test_a_cluster_of_both_says_nothing(demo: Demo) -> None:
    assert "IPv4 only" not in demo_command("status")
