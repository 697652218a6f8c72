"""What runs in the demo cluster, seen from its node: the database, the catalog, names, and addresses that fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from telemagic.demo import client
from tests.demo.clusters import node_pid, pod_pids, run_beside

if TYPE_CHECKING:
    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns

FINGERPRINT = "91c9e5d1e576d0f6d0da20b3af668b08"  # of all orders in the order of their ids, with PostgreSQL's own text form

ROWS = """
import json, psycopg
with psycopg.connect(host={postgres!r}, user="shop", dbname="shop") as connection:
    counts = [connection.execute(f"select count(*) from {{name}}").fetchone()[0] for name in ("customers", "orders", "products")]
    sums = connection.execute("select region, sum(amount)::text from orders group by 1 order by 1").fetchall()
    fingerprint = connection.execute("select md5(string_agg(o::text, '' order by id)) from orders o").fetchone()[0]
print(json.dumps([counts, sums, fingerprint]))
"""


def run(script: str, pod: str = "") -> Any:
    """Run a script on the node, or in the pod with this word in its command line; it prints JSON."""
    services = next(iter(client.status())).service_cidr.partition(",")[0].rpartition(".")[0]
    numbers = {"postgres": 20, "catalog": 21, "dns": 10, "blackhole": 66, "kubernetes": 1}
    script = script.format(**{name: f"{services}.{number}" for name, number in numbers.items()})
    runtime = Path(os.environ["TELEMAGIC_RUNTIME_DIR"])
    return json.loads(run_beside(pod_pids(runtime, pod)[0] if pod else node_pid(runtime), script))


def test_the_shop_is_the_same_every_time(demo: Demo) -> None:
    counts, sums, fingerprint = run(ROWS)
    assert counts == [5_000, 100_000, 12]
    assert [region for region, _ in sums] == ["east", "north", "overseas", "south", "west"]
    assert (sums[0][1], fingerprint) == ("7631036.15", FINGERPRINT)


def test_the_catalog_answers(demo: Demo) -> None:
    products, missing, echoed, sunk = run(
        """
import json, hashlib, urllib.request, urllib.error
base = "http://{catalog}:8000"
products = json.load(urllib.request.urlopen(base + "/products"))
try:
    urllib.request.urlopen(base + "/products/99")
except urllib.error.HTTPError as error:
    missing = error.code
block = bytes(range(256)) * 40000
echoed = urllib.request.urlopen(base + "/echo", data=block).read() == block
sunk = json.load(urllib.request.urlopen(base + "/sink", data=block))["sha256"] == hashlib.sha256(block).hexdigest()
print(json.dumps([products, missing, echoed, sunk]))
"""
    )
    assert products[0] == {"id": 1, "name": "espresso machine", "category": "kitchen", "price": 249.0}
    assert (len(products), missing, echoed, sunk) == (12, 404, True, True)


def test_names_resolve_over_udp_and_tcp(demo: Demo) -> None:
    udp, tcp, absent = run(
        """
import json, dns.message, dns.query
query = dns.message.make_query("postgres.shop.svc.cluster.local", "A")
udp = dns.query.udp(query, "{dns}", timeout=5).answer[0][0].to_text()
tcp = dns.query.tcp(query, "{dns}", timeout=5).answer[0][0].to_text()
query = dns.message.make_query("absent.shop.svc.cluster.local", "A")
print(json.dumps([udp, tcp, dns.query.udp(query, "{dns}", timeout=5).rcode()]))
"""
    )
    assert udp == tcp
    assert udp.endswith(".20")
    assert absent == 3


def test_a_closed_port_refuses_at_once(demo: Demo) -> None:
    refused = run(
        """
import errno, json, socket
found = []
for address in ("{catalog}", "{postgres}"):
    with socket.socket() as client:
        client.settimeout(5)
        found.append(errno.errorcode[client.connect_ex((address, 9999))])
print(json.dumps(found))
"""
    )
    assert refused == ["ECONNREFUSED", "ECONNREFUSED"]


def test_a_pod_reaches_the_api_server_by_its_service_address(demo: Demo) -> None:
    reached = run(
        """
import json, ssl, urllib.request
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print(json.dumps(json.load(urllib.request.urlopen("https://{kubernetes}/version", context=context))["major"]))
""",
        pod="telehelper.manager",
    )
    assert reached == "1"


def test_a_pod_gets_no_answer_at_all_from_the_black_hole(demo: Demo) -> None:
    waited = run(
        """
import json, socket, time
began = time.monotonic()
try:
    socket.create_connection(("{blackhole}", 80), timeout=0.5)
except TimeoutError:
    print(json.dumps(time.monotonic() - began))
""",
        pod="telehelper.manager",
    )
    assert waited >= 0.5


def test_pods_reach_each_other_by_service_and_by_pod_address(demo: Demo) -> None:
    peers = run(
        """
import json, socket
found = []
for target in ("{postgres}", "{postgres}".split(".8.")[0] + ".0.12"):
    with socket.create_connection((target, 5432), timeout=5) as connection:
        found.append(connection.getpeername()[0] == target)
print(json.dumps(found))
""",
        pod="telemagic.demo.catalog",
    )
    assert peers == [True, True]
