"""The columns `kubectl get` shows: a server renders them (meta.k8s.io/v1 Table), clients only print."""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from telemagic.demo.kinds import Kind

Item = dict[str, Any]
_WIDE: Final = 1  # priority of columns that only `-o wide` shows


def table(kind: Kind, items: Iterable[Item], version: str) -> Item:
    """Render objects of one kind."""
    columns = _COLUMNS.get(kind.plural, ())
    shown: list[tuple[str, int, Callable[[Item], Any]]] = [("Name", 0, lambda item: item["metadata"]["name"])]
    shown += [column for column in columns if not column[1]]
    shown += [("Age", 0, _age)]
    shown += [column for column in columns if column[1]]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": priority,
            }
            for name, priority, _ in shown
        ],
        "rows": [
            {
                "cells": [_cell(render, item) for _, _, render in shown],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": item["metadata"],
                },
            }
            for item in items
        ],
    }


def _cell(render: Callable[[Item], Any], item: Item) -> Any:  # noqa: ANN401 - JSON
    try:
        return render(item)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return "<invalid>"  # its users may have written anything into it


def duration(seconds: float) -> str:
    """Write a duration as kubectl does, in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def _age(item: Item) -> str:
    created = calendar.timegm(time.strptime(item["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
    return duration(time.time() - created)


def _pod_ready(item: Item) -> str:
    statuses = item["status"].get("containerStatuses") or ()
    return f"{sum(status['ready'] for status in statuses)}/{len(statuses)}"


def _pod_status(item: Item) -> str:
    if "deletionTimestamp" in item["metadata"]:
        return "Terminating"
    for status in item["status"].get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            if state in status["state"]:
                return str(status["state"][state]["reason"])
    return str(item["status"]["phase"])


def _service_ports(item: Item) -> str:
    return (
        ",".join(f"{port['port']}/{port['protocol']}" for port in item["spec"].get("ports") or ()) or "<none>"
    )


def _selector(item: Item) -> str:
    return ",".join(f"{name}={value}" for name, value in item["spec"].get("selector", {}).items()) or "<none>"


def _node_status(item: Item) -> str:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
    return "Ready" if ready else "NotReady"


def _endpoints(item: Item) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in item.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset.get("ports") or ()
    ]
    return ",".join(found) or "<none>"


def _slice_ports(item: Item) -> str:
    return ",".join(str(port["port"]) for port in item.get("ports") or ()) or "<unset>"


def _slice_addresses(item: Item) -> str:
    return (
        ",".join(address for entry in item.get("endpoints") or () for address in entry["addresses"])
        or "<unset>"
    )


def _restarts(item: Item) -> int:
    return sum(status.get("restartCount", 0) for status in item["status"].get("containerStatuses") or ())


def _at(*path: str | int) -> Callable[[Item], str]:
    def read(item: Item) -> str:
        found: Any = item
        for step in path:
            found = found[step]
        return str(found)

    return read


_COLUMNS: Final[dict[str, Sequence[tuple[str, int, Callable[[Item], Any]]]]] = {
    "namespaces": (("Status", 0, _at("status", "phase")),),
    "nodes": (
        ("Status", 0, _node_status),
        ("Roles", 0, lambda _: "control-plane"),
        ("Version", 0, _at("status", "nodeInfo", "kubeletVersion")),
        ("Internal-IP", _WIDE, _at("status", "addresses", 0, "address")),
        ("External-IP", _WIDE, lambda _: "<none>"),
        ("OS-Image", _WIDE, _at("status", "nodeInfo", "osImage")),
        ("Kernel-Version", _WIDE, _at("status", "nodeInfo", "kernelVersion")),
        ("Container-Runtime", _WIDE, _at("status", "nodeInfo", "containerRuntimeVersion")),
    ),
    "pods": (
        ("Ready", 0, _pod_ready),
        ("Status", 0, _pod_status),
        ("Restarts", 0, _restarts),
        ("IP", _WIDE, _at("status", "podIP")),
        ("Node", _WIDE, _at("spec", "nodeName")),
    ),
    "services": (
        ("Type", 0, _at("spec", "type")),
        ("Cluster-IP", 0, _at("spec", "clusterIP")),
        ("External-IP", 0, lambda _: "<none>"),
        ("Port(s)", 0, _service_ports),
        ("Selector", _WIDE, _selector),
    ),
    "endpoints": (("Endpoints", 0, _endpoints),),
    "endpointslices": (
        ("AddressType", 0, _at("addressType")),
        ("Ports", 0, _slice_ports),
        ("Endpoints", 0, _slice_addresses),
    ),
    "deployments": (
        ("Ready", 0, lambda item: f"{item['status'].get('readyReplicas', 0)}/{item['spec']['replicas']}"),
        ("Up-to-date", 0, _at("status", "updatedReplicas")),
        ("Available", 0, _at("status", "availableReplicas")),
    ),
    "replicasets": (
        ("Desired", 0, _at("spec", "replicas")),
        ("Current", 0, _at("status", "replicas")),
        ("Ready", 0, _at("status", "readyReplicas")),
    ),
    "servicecidrs": (("CIDRs", 0, lambda item: ",".join(item["spec"]["cidrs"])),),
}
