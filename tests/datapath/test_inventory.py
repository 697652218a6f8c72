"""Services and pods from API objects: good ones, hostile ones, and what the rights do not show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.codec import MAX_MESSAGE, encode
from telehelper.datapath import inventory
from telehelper.datapath.inventory import Endpoints, Scope, pod_row, service_row
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused, UsageError
from telehelper.views import PodTable, PortRow, ServiceTable

if TYPE_CHECKING:
    from collections.abc import Coroutine

ALL, SHOP = "/api/v1/{}", "/api/v1/namespaces/shop/{}"
SLICES = "/apis/discovery.k8s.io/v1/{}endpointslices"
FORBIDDEN = CredentialsRefused("forbidden", status="403")
HERE = Scope("", everywhere=False, connected="shop")
EVERYWHERE = Scope("", everywhere=True, connected="shop")
JUNK: list[Any] = [None, 1, "x", True, [], {}, [1], {"a": 1}, [None], {"ports": 3}]


def service(name: str = "postgres", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    port = {"name": "postgresql", "port": 5432, "protocol": "TCP", "targetPort": "pg"}
    body = {"type": "ClusterIP", "clusterIP": "198.18.8.20", "ports": [port], "selector": {"app": name}}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {**body, **spec}}


def pod(name: str = "postgres-0", namespace: str = "shop", **status: Any) -> dict[str, Any]:
    owners = [{"kind": "StatefulSet", "name": "postgres"}]
    states = [{"ready": True, "restartCount": 2}, {"ready": False, "restartCount": 1}]
    return {
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
        "spec": {
            "nodeName": "n1",
            "containers": [
                {"image": "postgres:16", "ports": [{"name": "pg", "containerPort": 5432}]},
                {"image": "exporter:1"},
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "198.18.0.12",
            "startTime": "2026-01-02T03:04:05Z",
            "containerStatuses": states,
            **status,
        },
    }


def endpoint_slice(service: str, *ready: bool | None, family: str = "IPv4") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "endpoints": [
            {"addresses": [f"a{i}"], "conditions": {} if one is None else {"ready": one}}
            for i, one in enumerate(ready)
        ],
    }


class Api:
    """Answers lists, in pages of two."""

    def __init__(self, **objects: Any) -> None:
        self.lists: dict[str, Any] = {}
        self.asked: list[str] = []
        for name, found in objects.items():
            path = (SLICES if name.startswith("endpointslices") else ALL).format(
                "" if name.startswith("endpointslices") else name
            )
            self.lists[path] = found

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        self.asked.append(path)
        assert params["limit"] == inventory.PAGE
        found = self.lists.get(path, [])
        if isinstance(found, ClusterError):
            raise found
        at = int(params.get("continue", "0"))
        more = {"continue": str(at + 2)} if at + 2 < len(found) else {}
        return {"items": found[at : at + 2], "metadata": more}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def services(api: Api, scope: Scope = EVERYWHERE) -> ServiceTable:
    found = run(inventory.services(api, scope))
    assert isinstance(found, ServiceTable)
    return found


def pods(api: Api, scope: Scope = EVERYWHERE) -> PodTable:
    found = run(inventory.pods(api, scope))
    assert isinstance(found, PodTable)
    return found


# --- one object --------------------------------------------------------------------------------------------------


def test_a_service() -> None:
    row = service_row(service())
    assert (row.name, row.namespace, row.type, row.cluster_ip) == (
        "postgres",
        "shop",
        "ClusterIP",
        "198.18.8.20",
    )
    assert row.ports == (PortRow("postgresql", 5432, "TCP", "pg"),)
    assert (row.selector, row.endpoints_ready, row.endpoints_total) == ("app=postgres", -1, -1)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"clusterIP": "None"}, ("Headless", "", "")),
        (
            {"type": "ExternalName", "externalName": "db.example.org", "clusterIP": None},
            ("ExternalName", "", "db.example.org"),
        ),
        ({"type": "LoadBalancer"}, ("LoadBalancer", "198.18.8.20", "")),
        ({"type": None}, ("ClusterIP", "198.18.8.20", "")),
    ],
)
def test_kinds_of_services(spec: dict[str, Any], expected: tuple[str, ...]) -> None:
    row = service_row(service(**spec))
    assert (row.type, row.cluster_ip, row.external_name) == expected


def test_a_pod() -> None:
    row = pod_row(pod())
    assert (row.name, row.ip, row.node, row.phase) == ("postgres-0", "198.18.0.12", "n1", "Running")
    assert (row.ready, row.containers, row.restarts) == (1, 2, 3)
    assert row.started_at == 1_767_323_045.0
    assert (row.image, row.owner) == ("postgres:16, exporter:1", "StatefulSet/postgres")
    assert row.ports == (PortRow("pg", 5432, "TCP"),)


def test_a_pod_that_is_leaving_and_one_that_has_not_begun() -> None:
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert pod_row(leaving).phase == "Terminating"
    pending = pod_row(pod(phase="Pending", startTime=None, podIP=None, containerStatuses=None))
    assert (pending.started_at, pending.ip, pending.ready, pending.containers) == (-1.0, "", 0, 2)


@pytest.mark.parametrize("junk", JUNK)
def test_objects_of_any_shape_are_rows(junk: Any) -> None:
    for part in ("metadata", "spec", "status"):
        for row in (service_row({**service(), part: junk}), pod_row({**pod(), part: junk})):
            encode(row)
    for name in ("ports", "selector", "clusterIP", "type", "externalName"):
        encode(service_row(service(**{name: junk})))
    for name in ("containerStatuses", "startTime", "podIP", "phase"):
        encode(pod_row(pod(**{name: junk})))
    counts = Endpoints()
    for name in ("metadata", "endpoints", "addressType"):
        counts.add({**endpoint_slice("postgres", True), name: junk})
    counts.add({**endpoint_slice("postgres", True), "endpoints": [{"addresses": junk, "conditions": junk}]})


def test_ports_that_are_none_are_left_out() -> None:
    ports = [{"port": port} for port in (0, -1, 65536, 1 << 40, "80", True, None, 80)]
    assert [port.number for port in service_row(service(ports=ports)).ports] == [80]
    assert len(service_row(service(ports=[{"port": 80}] * 5000)).ports) == inventory.MAX_PORTS


def test_texts_are_cut() -> None:
    row = service_row(service(name="x" * 10_000, selector={"k" * 1000: "v" * 1000}))
    assert len(row.name) == len(row.selector) == inventory.MAX_TEXT


def test_endpoints_are_counted_over_slices_but_not_over_families() -> None:
    counts = Endpoints()
    counts.add(endpoint_slice("postgres", True, False, None))
    counts.add(endpoint_slice("postgres", True, True, True, family="IPv6"))
    counts.add(endpoint_slice("other", True))
    row = counts.of(service_row(service()))
    assert (row.endpoints_ready, row.endpoints_total) == (3, 3)
    none = counts.of(service_row(service("lonely")))
    assert (none.endpoints_ready, none.endpoints_total) == (0, 0)


# --- lists -------------------------------------------------------------------------------------------------------


def test_a_list_of_several_pages() -> None:
    api = Api(
        services=[service(f"s{i}") for i in range(5)], endpointslices=[endpoint_slice("s3", True, False)]
    )
    found = services(api)
    assert [row.name for row in found.rows] == ["s0", "s1", "s2", "s3", "s4"]
    assert [row.endpoints_total for row in found.rows] == [0, 0, 0, 2, 0]
    assert found.notices == ()
    assert api.asked.count("/api/v1/services") == 3


def test_the_connected_namespace_is_the_default() -> None:
    api = Api()
    api.lists[SHOP.format("pods")] = [pod()]
    assert [row.name for row in pods(api, HERE).rows] == ["postgres-0"]
    assert api.asked == ["/api/v1/namespaces/shop/pods"]
    pods(api, Scope("other", everywhere=False, connected="shop"))
    assert api.asked[-1] == "/api/v1/namespaces/other/pods"


def test_what_may_not_be_listed_everywhere_is_listed_here() -> None:
    api = Api(services=FORBIDDEN, pods=FORBIDDEN, endpointslices=FORBIDDEN)
    api.lists[SHOP.format("services")] = [service()]
    api.lists[SHOP.format("pods")] = [pod()]
    api.lists[SLICES.format("namespaces/shop/")] = [endpoint_slice("postgres", True)]
    found = services(api)
    assert [(row.name, row.endpoints_ready) for row in found.rows] == [("postgres", 1)]
    assert "not list services of all namespaces: these are those of shop" in found.notices[0]
    assert len(found.notices) == 1
    assert SLICES.format("") not in api.asked  # it would be refused too
    assert "pods of all namespaces" in pods(api).notices[0]


def test_forbidden_in_the_namespace_too_is_an_error() -> None:
    api = Api(services=FORBIDDEN)
    api.lists[SHOP.format("services")] = CredentialsRefused("services is forbidden in shop", status="403")
    for scope in (EVERYWHERE, HERE):
        with pytest.raises(CredentialsRefused, match="forbidden in shop"):
            services(api, scope)


def test_endpoints_that_may_not_be_read_are_unknown() -> None:
    found = services(Api(services=[service()], endpointslices=FORBIDDEN))
    assert (found.rows[0].endpoints_ready, found.rows[0].endpoints_total) == (-1, -1)
    assert found.notices == ("endpoints are not counted: forbidden",)


@pytest.mark.parametrize("name", ["../pods", "shop/pods?x=1", "A", "-a", "", "a" * 64])
def test_a_namespace_that_cannot_be_one_never_reaches_the_api_server(name: str) -> None:
    api = Api()
    with pytest.raises(UsageError, match="cannot be a namespace"):
        services(api, Scope(name, everywhere=False, connected=""))
    assert api.asked == []


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no namespace 'shp'") as caught:
        pods(Api(), Scope("shp", everywhere=False, connected="shop", known=("default", "shop")))
    assert "default, shop" in caught.value.hint
    # Where only the connected one is known, an empty list is no proof.
    assert pods(Api(), Scope("shp", everywhere=False, connected="shop", known=("shop",))).rows == ()


def test_a_silent_api_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Api):
        async def get(self, path: str, **params: str) -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(inventory, "LIST_TIMEOUT", 0.01)
    with pytest.raises(ApiServerUnavailable, match="did not list the services within"):
        services(Silent())


def test_pages_that_never_end_do_end() -> None:
    class Endless(Api):
        async def get(self, path: str, **params: str) -> dict[str, Any]:
            self.asked.append(path)
            return {"items": [], "metadata": {"continue": "again"}}

    api = Endless()
    assert "only the first 0 pods" in pods(api).notices[-1]
    assert len(api.asked) == inventory.MAX_PAGES
    assert "not all endpoints" in services(api).notices[-1]


def test_a_table_is_bounded_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "MAX_ROWS", 7)
    api = Api(pods=[pod(f"p{i}") for i in range(100)])
    found = pods(api)
    assert len(found.rows) == 7
    assert "only the first 7 pods" in found.notices[-1]
    assert len(api.asked) == 4  # and no more is read


def test_the_largest_table_fits_into_a_control_message() -> None:
    class Huge(Api):
        async def get(self, path: str, **params: str) -> dict[str, Any]:
            one = pod("\u00e9" * 300, podIP="\u00e9" * 300)
            return {"items": [one] * 500, "metadata": {"continue": "more"}}

    found = pods(Huge())
    assert found.notices
    assert len(encode(found)) < MAX_MESSAGE
