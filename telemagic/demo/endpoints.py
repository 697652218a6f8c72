"""Who is behind a service: its Endpoints and EndpointSlices, made of the pods that its selector matches. No I/O."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.objects import NODE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telemagic.demo.plan import AddressPlan

Json = dict[str, Any]
API_PORT: Final = 6443  # of the API server on the node, where the service `kubernetes` leads
_SLICES: Final = {4: "x7k2p", 6: "m9c4t"}  # endings of slices' names, by family
_Entry = tuple[Json, bool]  # an address of Endpoints, and whether it is ready


def selects(service: Json, pod: Json) -> bool:
    """Tell whether a pod is behind a service; a service without a selector has none."""
    wanted = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    is_here = pod["metadata"].get("namespace") == service["metadata"].get("namespace")
    return is_here and bool(wanted) and wanted.items() <= labels.items()


def is_api(service: Json) -> bool:
    """Tell whether it is the API server's own service."""
    metadata = service["metadata"]
    return (metadata["name"], metadata.get("namespace")) == ("kubernetes", "default")


def build(service: Json, pods: Iterable[Json], plan: AddressPlan) -> tuple[Json, list[Json]] | None:
    """Return the Endpoints of a service, which know its first family only, and its EndpointSlices, one per family.

    Parameters
    ----------
    service
        None of its pods but those it selects are in them; what selects none has none, and None is returned.
    pods
        All that live and have an address.
    plan
        Where the API server is.
    """
    spec = service["spec"]
    if spec.get("type") == "ExternalName" or not (spec.get("selector") or is_api(service)):
        return None
    behind = [pod for pod in pods if selects(service, pod)]
    versions = [int(family.removeprefix("IPv")) for family in spec.get("ipFamilies") or ["IPv4"]]
    found = {
        version: _of_api(plan, version) if is_api(service) else _of_pods(behind, version)
        for version in versions
    }
    ports = [_port(service, port, behind) for port in spec.get("ports") or ()]
    first = next(iter(found.values()))
    subset = {
        "addresses": [entry for entry, ready in first if ready],
        "notReadyAddresses": [entry for entry, ready in first if not ready],
        "ports": ports,
    }
    metadata = service["metadata"]
    labels = {"kubernetes.io/service-name": metadata["name"]}
    flat = {
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "subsets": [{name: value for name, value in subset.items() if value}] if first else [],
    }
    slices = [
        {
            "metadata": {
                "name": f"{metadata['name']}-{_SLICES[version]}",
                "namespace": metadata["namespace"],
                "labels": labels,
            },
            "addressType": f"IPv{version}",
            "ports": ports,
            "endpoints": [_endpoint(entry, is_ready=ready) for entry, ready in entries],
        }
        for version, entries in found.items()
    ]
    return flat, slices


def _of_api(plan: AddressPlan, version: int) -> list[_Entry]:
    return [({"ip": str(address)}, True) for address in plan.nodes if address.version == version]


def _of_pods(pods: list[Json], version: int) -> list[_Entry]:
    found = []
    for pod in pods:
        metadata, status = pod["metadata"], pod["status"]
        target = {
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        }
        conditions = status.get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        for own in status.get("podIPs") or ():
            if ip_address(own["ip"]).version == version:
                entry = {
                    "ip": own["ip"],
                    "nodeName": pod["spec"].get("nodeName", NODE_NAME),
                    "targetRef": target,
                }
                found.append((entry, ready))
    return found


def _port(service: Json, port: Json, behind: list[Json]) -> Json:
    number = port.get("targetPort", port["port"])
    if is_api(service):
        number = API_PORT
    if isinstance(number, str):
        number = _named(number, behind) or port["port"]
    return {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}


def _named(name: str, pods: list[Json]) -> int:
    """Return the number of a port that containers name; 0 if none does."""
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for port in container.get("ports") or ():
                if port.get("name") == name:
                    return int(port["containerPort"])
    return 0


def _endpoint(entry: Json, *, is_ready: bool) -> Json:
    found = {
        "addresses": [entry["ip"]],
        "conditions": {"ready": is_ready, "serving": is_ready, "terminating": False},
        "nodeName": NODE_NAME,
    }
    return found | ({"targetRef": entry["targetRef"]} if "targetRef" in entry else {})
