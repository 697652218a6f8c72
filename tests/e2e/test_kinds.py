"""Each kind of cluster that a demo can be like, connected to for real: its networks found, its database reached."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any, Final

import pytest

from telemagic.demo.likeness import KINDS
from tests import sandbox
from tests.demo.clusters import private_runtime, start
from tests.demo.test_likeness import EXPECTED, REFUSED

pytestmark = pytest.mark.netns

AT_ONCE: Final = 3
LOOK: Final = """
import json, telemagic
from tests.e2e.test_discovery import ask_api, pod_address, query
with telemagic.connect() as tele:
    status = tele.status.to_dict()
    rows = [query("postgres.shop"), query(pod_address("postgres"))]
    services = ask_api("GET", "/api/v1/services")["items"]
    pods = ask_api("GET", "/api/v1/pods")["items"]
hosts = [pod["status"]["podIP"] for pod in pods if pod["spec"].get("hostNetwork")]
seen = {
    "services": [one["spec"]["clusterIP"] for one in services if one["spec"]["clusterIP"] != "None"],
    "pods": [pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP") not in (None, *hosts)],
    "hosts": hosts,
}
print(json.dumps({"cidrs": status["cidrs"], "via": status["via"], "rows": rows, "seen": seen}))
"""


def look(kind: str) -> dict[str, Any]:
    """Start a demo like this kind, connect to it in a sandbox, and return what was found there."""
    with start(name=kind, owned=True, like=kind) as cluster:
        done = sandbox.run([sys.executable, "-c", LOOK], timeout=90, cluster=cluster.name)
    assert done.returncode == 0, f"{kind}: {done.stdout}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(kind: str, found: dict[str, Any]) -> None:
    """Raise AssertionError unless the networks are those that this kind of cluster has, found as it tells them."""
    assert found["rows"] == [12, 12], kind
    assert found["via"] == "manager", kind
    sources = dict(zip(("services", "pods"), EXPECTED[kind], strict=True))
    for what, source in sources.items():
        rows = [row for row in found["cidrs"] if row["kind"] == what]
        # Where the manager is certain the user is not asked, and the manager may not try to create services.
        less = source.replace(f"; also: {REFUSED}, ", "; also: ").removesuffix(f"; also: {REFUSED}")
        assert {source, less} & {row["source"] for row in rows}, (kind, what, rows)
        networks = [ip_network(row["cidr"]) for row in rows]
        for text in found["seen"][what]:
            address = ip_network(text)
            assert any(n.version == address.version and address.subnet_of(n) for n in networks), (
                kind,
                text,
                rows,
            )
        for text in found["seen"]["hosts"]:
            assert not any(ip_network(text).overlaps(n) for n in networks), (kind, text, rows)


@pytest.mark.slow
def test_every_kind_of_cluster_is_understood_and_reached() -> None:
    with private_runtime(), ThreadPoolExecutor(AT_ONCE) as pool:
        for kind, found in zip(KINDS, pool.map(look, KINDS), strict=True):
            check(kind, found)
