"""Parts of a demo cluster's Kubernetes objects, as far as clients look at them."""

from __future__ import annotations

import hashlib
import platform
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from telemagic.demo.kubelet import Pod
    from telemagic.demo.plan import AddressPlan

NODE_NAME: Final = "demo-node"
VERSION: Final = "v1.33.0"  # the first release with servicecidrs in networking.k8s.io/v1
_UIDS: Final = uuid.UUID("6f0c6a4e-9d0b-5b0e-8a37-2f1f5f3f6b11")


def timestamp(seconds: float) -> str:
    """Return a time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def metadata(name: str, namespace: str, created: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the metadata of an object; its uid follows from its names and the time."""
    found: dict[str, Any] = {
        "name": name,
        "uid": str(uuid.uuid5(_UIDS, f"{namespace}/{name}/{created}/{sorted(more)}")),
        "creationTimestamp": timestamp(created),
        **more,
    }
    if namespace:
        found["namespace"] = namespace
    return found


def namespace_object(name: str, created: float) -> dict[str, Any]:
    """Return a Namespace."""
    return {
        "metadata": metadata(name, "", created, labels={"kubernetes.io/metadata.name": name}),
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def service_account(namespace: str, name: str, created: float) -> dict[str, Any]:
    """Return a ServiceAccount."""
    return {"metadata": metadata(name, namespace, created)}


def service_cidr(plan: AddressPlan, created: float) -> dict[str, Any]:
    """Return the ServiceCIDR that every cluster has."""
    return {
        "metadata": metadata("kubernetes", "", created),
        "spec": {"cidrs": [str(network) for network in plan.services]},
        "status": {"conditions": [condition("Ready", ok=True, since=timestamp(created))]},
    }


def node(plan: AddressPlan, created: float, version: str = VERSION) -> dict[str, Any]:
    """Return the only Node, of a cluster of this version."""
    capacity = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    found = metadata(
        NODE_NAME,
        "",
        created,
        labels={"kubernetes.io/hostname": NODE_NAME, "node-role.kubernetes.io/control-plane": ""},
    )
    return {
        "metadata": found,
        "spec": {"podCIDR": str(plan.pods[0]), "podCIDRs": [str(network) for network in plan.pods]},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                *({"type": "InternalIP", "address": str(address)} for address in plan.nodes),
                {"type": "Hostname", "address": NODE_NAME},
            ],
            "conditions": [condition("Ready", ok=True, since=timestamp(created))],
            "nodeInfo": {
                "kubeletVersion": version,
                "kubeProxyVersion": version,
                "kernelVersion": platform.release(),
                "osImage": "telemagic demo",
                "containerRuntimeVersion": "telemagic-demo://1",
                "operatingSystem": "linux",
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                    platform.machine(), platform.machine()
                ),
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        },
    }


def condition(kind: str, *, ok: bool, since: str) -> dict[str, Any]:
    """Return a condition of an object's status."""
    return {
        "type": kind,
        "status": str(ok),
        "reason": kind,
        "message": "",
        "lastTransitionTime": since,
    }


def _container_status(pod: Pod, container: dict[str, Any]) -> dict[str, Any]:
    if pod.pid:
        state: dict[str, Any] = {"running": {"startedAt": timestamp(pod.started)}}
    elif pod.phase == "Failed":
        state = {"terminated": {"exitCode": pod.last_exit, "reason": "Error"}}
    else:
        reason = "ContainerCreating" if pod.last_exit is None else "CrashLoopBackOff"
        state = {"waiting": {"reason": reason, "message": pod.last_words()}}
    digest = hashlib.sha256(f"{pod.spec.namespace}/{pod.spec.name}/{pod.restarts}".encode()).hexdigest()
    status: dict[str, Any] = {
        "name": container["name"],
        "ready": pod.ready,
        "started": pod.ready,
        "restartCount": pod.restarts,
        "image": container["image"],
        "imageID": container["image"],
        "containerID": f"telemagic-demo://{digest}",
        "state": state,
        "lastState": {},
    }
    if pod.last_exit is not None:
        # A kubelet shows a death by signal as 128 and its number.
        code = pod.last_exit if pod.last_exit >= 0 else 128 - pod.last_exit
        status["lastState"] = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    return status


def pod_status(pod: Pod, item: dict[str, Any], plan: AddressPlan) -> dict[str, Any]:
    """Return the status of a pod that runs, or is about to; `item` is its object."""
    created = item["metadata"]["creationTimestamp"]
    since = timestamp(pod.started) if pod.started else created
    ready = pod.ready and "deletionTimestamp" not in item["metadata"]
    conditions = [
        condition(kind, ok=ok, since=since)
        for kind, ok in (
            ("Initialized", pod.phase == "Running"),
            ("Ready", ready),
            ("ContainersReady", ready),
            ("PodScheduled", True),
        )
    ]
    return {
        "phase": pod.phase,
        "podIP": str(pod.spec.addresses[0]),
        "podIPs": [{"ip": str(address)} for address in pod.spec.addresses],
        **_host(plan),
        "startTime": created,
        "qosClass": "BestEffort",
        "conditions": conditions,
        "containerStatuses": [_container_status(pod, item["spec"]["containers"][0])],
    }


def unpulled_status(item: dict[str, Any], plan: AddressPlan) -> dict[str, Any]:
    """Return the status of a pod whose image cannot be had."""
    created = item["metadata"]["creationTimestamp"]
    (container, *_) = item["spec"]["containers"]
    image = container["image"]
    why = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": not found'
    conditions = [
        condition(kind, ok=kind in ("PodScheduled", "Initialized"), since=created)
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    status = {
        "name": container["name"],
        "ready": False,
        "started": False,
        "restartCount": 0,
        "image": image,
        "imageID": "",
        "state": {"waiting": {"reason": "ErrImagePull", "message": why}},
        "lastState": {},
    }
    return {
        "phase": "Pending",
        **_host(plan),
        "startTime": created,
        "qosClass": "BestEffort",
        "conditions": conditions,
        "containerStatuses": [status],
    }


def _host(plan: AddressPlan) -> dict[str, Any]:
    return {
        "hostIP": str(plan.nodes[0]),
        "hostIPs": [{"ip": str(address)} for address in plan.nodes],
    }
