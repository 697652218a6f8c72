"""A demo cluster's names, as its name server is told of them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telemagic.demo.endpoints import selects
from telemagic.demo.plan import CLUSTER_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemagic.demo.plan import AddressPlan

Json = dict[str, Any]


def describe(plan: AddressPlan, services: Sequence[Json], pods: Sequence[Json]) -> Json:
    """Describe a cluster to its name server; see :class:`telemagic.demo.nameserver.Zone`.

    Parameters
    ----------
    plan
        Whose addresses have reverse names.
    services
        All but those of type ExternalName are in it.
    pods
        All that live and have an address.
    """
    return {
        "domain": CLUSTER_DOMAIN,
        "reverse": [str(slot) for slot in plan.slots],
        "pods": [
            {"namespace": pod["metadata"]["namespace"], "addresses": _addresses(pod)}
            for pod in pods
            if not pod["spec"].get("hostNetwork")
        ],
        "services": [
            {
                "name": service["metadata"]["name"],
                "namespace": service["metadata"]["namespace"],
                "addresses": [
                    address for address in service["spec"].get("clusterIPs") or () if address != "None"
                ],
                "ports": [
                    [port.get("name") or str(port["port"]), port.get("protocol", "TCP").lower(), port["port"]]
                    for port in service["spec"].get("ports") or ()
                ],
                "endpoints": [
                    address for pod in pods if selects(service, pod) for address in _addresses(pod)
                ],
            }
            for service in services
            if service["spec"].get("type") != "ExternalName"
        ],
    }


def _addresses(pod: Json) -> list[str]:
    return [entry["ip"] for entry in pod["status"].get("podIPs") or ()]
