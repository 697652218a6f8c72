"""API objects as JSON, and what is read from them, for the tests of the way without a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dns.message
from telehelper.datapath.agentless.index import Index
from telehelper.datapath.agentless.objects import read_pod, read_service, read_slice

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]

HTTP = {"name": "http", "port": 80, "targetPort": "web"}


def metadata(name: str, namespace: str = "shop", **more: Any) -> Json:
    return {"name": name, "namespace": namespace, **more}


def service(name: str, *addresses: str, namespace: str = "shop", ports: Any = (HTTP,), **spec: Any) -> Json:
    """A Service; without addresses it is headless."""
    given = {"clusterIPs": list(addresses) or ["None"], "clusterIP": (addresses or ("None",))[0]}
    return {"metadata": metadata(name, namespace), "spec": {**given, "ports": list(ports), **spec}}


def endpoint(
    address: str, pod: str = "", *, ready: bool | None = True, namespace: str = "shop", **more: Any
) -> Json:
    found: Json = {"addresses": [address], "conditions": {"ready": ready}, **more}
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod, "namespace": namespace}
    return found


def endpoint_slice(
    of: str, *endpoints: Json, name: str = "", namespace: str = "shop", port: int = 8080, **more: Any
) -> Json:
    """An EndpointSlice whose port is called http."""
    labels = {"kubernetes.io/service-name": of}
    return {
        "metadata": metadata(name or f"{of}-abc", namespace, labels=labels),
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        **more,
    }


def pod(
    name: str,
    *addresses: str,
    namespace: str = "shop",
    phase: str = "Running",
    host: bool = False,
    node: str = "",
) -> Json:
    status = {
        "phase": phase,
        "podIP": (addresses or ("",))[0],
        "podIPs": [{"ip": each} for each in addresses],
    }
    spec = {"hostNetwork": host, "nodeName": node}
    return {"metadata": metadata(name, namespace), "spec": spec, "status": status}


def fill(
    index: Index, services: Iterable[Json] = (), slices: Iterable[Json] = (), pods: Iterable[Json] = ()
) -> Index:
    for read, items in ((read_service, services), (read_slice, slices), (read_pod, pods)):
        for item in items:
            found = read(item)  # type: ignore[operator]  # each of its own type
            assert found is not None, item
            index.put(found)
    return index


def index_of(*, namespaces: Iterable[str] | None = None, **objects: Iterable[Json]) -> Index:
    return fill(Index(None if namespaces is None else list(namespaces)), **objects)


def web_shop(count: int = 2, **spec: Any) -> Index:
    """An index with service ``web`` at 10.96.0.1, port 80, before pods ``web-0`` … at 10.0.0.1 …, port 8080."""
    names = [f"web-{number}" for number in range(count)]
    return index_of(
        services=[service("web", "10.96.0.1", **spec)],
        slices=[endpoint_slice("web", *(endpoint(f"10.0.0.{n + 1}", name) for n, name in enumerate(names)))],
        pods=[pod(name, f"10.0.0.{n + 1}") for n, name in enumerate(names)],
    )


def dns_query(name: str, qtype: str = "A", ident: int = 1) -> bytes:
    """A query, as a client's library writes it."""
    return dns.message.make_query(f"{name}.", qtype, id=ident).to_wire()
