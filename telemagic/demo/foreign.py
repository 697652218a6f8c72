"""API objects as other products write them, for a demo cluster that looks like theirs; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from telemagic.demo.plan import AddressPlan

Json = dict[str, Any]

SYSTEM: Final = "kube-system"


def joined(values: Iterable[object]) -> str:
    """Return values as the components' flags have several."""
    return ",".join(map(str, values))


def node(
    annotations: dict[str, str], blocks: list[str], labels: dict[str, str] | None = None, provider: str = ""
) -> Callable[[Json], Json]:
    """Return what replaces a node's podCIDRs, if any, and adds the annotations, labels and provider given."""

    def change(item: Json) -> Json:
        metadata = dict(item["metadata"])
        metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
        metadata["labels"] = {**metadata.get("labels", {}), **(labels or {})}
        spec = {
            name: value for name, value in item.get("spec", {}).items() if name not in ("podCIDR", "podCIDRs")
        }
        if blocks:
            spec |= {"podCIDR": blocks[0], "podCIDRs": blocks}
        if provider:
            spec["providerID"] = provider
        return {**item, "metadata": metadata, "spec": spec}

    return change


def config_map(name: str, data: dict[str, str]) -> Json:
    """Return a ConfigMap of kube-system."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SYSTEM},
        "data": data,
    }


def host_pod(plan: AddressPlan, name: str, image: str, command: list[str], labels: dict[str, str]) -> Json:
    """Return a running pod of kube-system on the host's network."""
    addresses = [str(address) for address in plan.nodes]
    container = {"name": command[0].rpartition("/")[2], "image": image, "command": command, "resources": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": labels},
        "spec": {"containers": [container], "hostNetwork": True, "nodeName": "demo-node"},
        "status": {
            "phase": "Running",
            "hostIP": addresses[0],
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def definition(group: str, version: str, kind: str, plural: str, *, is_namespaced: bool) -> Json:
    """Return a CustomResourceDefinition with one version."""
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced" if is_namespaced else "Cluster",
            "versions": [{"name": version, "served": True, "storage": True}],
        },
    }


def pool(name: str, cidr: str, *, is_disabled: bool) -> Json:
    """Return one of Calico's IPPools."""
    body = {
        "allowedUses": ["Workload", "Tunnel"],
        "blockSize": 122 if ":" in cidr else 26,
        "cidr": cidr,
        "ipipMode": "Never" if ":" in cidr else "Always",
        "natOutgoing": True,
        "nodeSelector": "all()",
        "vxlanMode": "Never",
        **({"disabled": True} if is_disabled else {}),
    }
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": body,
    }
