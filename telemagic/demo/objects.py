"""A demo cluster's pods and services as Kubernetes objects, as far as clients look at them."""

from __future__ import annotations

import hashlib
import platform
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telemagic.demo.kubelet import Pod
    from telemagic.demo.plan import Address, AddressPlan
    from telemagic.demo.workload import PodSpec, Port, ServiceSpec

NODE_NAME: Final = "demo-node"
VERSION: Final = "v1.33.0"  # the first release with servicecidrs in networking.k8s.io/v1
_UIDS: Final = uuid.UUID("6f0c6a4e-9d0b-5b0e-8a37-2f1f5f3f6b11")
_API_PORT: Final = 6443
_SLICES: Final = {4: "x7k2p", 6: "m9c4t"}  # endings of slices' names, by family


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


def labels(spec: PodSpec) -> dict[str, str]:
    """Return a pod's labels."""
    return {"app": spec.app, "app.kubernetes.io/name": spec.app, **spec.labels}


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
        "status": {"conditions": [_condition("Ready", ok=True, since=created)]},
    }


def node(plan: AddressPlan, created: float) -> dict[str, Any]:
    """Return the only Node."""
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
            "conditions": [_condition("Ready", ok=True, since=created)],
            "nodeInfo": {
                "kubeletVersion": VERSION,
                "kubeProxyVersion": VERSION,
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


def _condition(kind: str, *, ok: bool, since: float) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if ok else "False",
        "reason": kind,
        "message": "",
        "lastTransitionTime": timestamp(since),
        "lastHeartbeatTime": timestamp(since),
    }


def _container(spec: PodSpec) -> dict[str, Any]:
    return {
        "name": spec.app,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": port.name, "containerPort": port.number, "protocol": port.protocol}
            for port in spec.ports
        ],
        "env": [{"name": name, "value": value} for name, value in spec.environment.items()],
        "resources": {},
    }


def _owner(kind: str, name: str) -> list[dict[str, Any]]:
    uid = str(uuid.uuid5(_UIDS, f"{kind}/{name}"))
    return [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def container_id(pod: Pod) -> str:
    """Return the identity of a pod's present container."""
    digest = hashlib.sha256(f"{pod.spec.namespace}/{pod.spec.name}/{pod.restarts}".encode()).hexdigest()
    return f"telemagic-demo://{digest}"


def _container_status(pod: Pod) -> dict[str, Any]:
    if pod.pid:
        state: dict[str, Any] = {"running": {"startedAt": timestamp(pod.started)}}
    elif pod.phase == "Failed":
        state = {"terminated": {"exitCode": pod.last_exit, "reason": "Error"}}
    else:
        reason = "ContainerCreating" if pod.last_exit is None else "CrashLoopBackOff"
        state = {"waiting": {"reason": reason, "message": pod.last_words()}}
    status: dict[str, Any] = {
        "name": pod.spec.app,
        "ready": pod.ready,
        "started": pod.ready,
        "restartCount": pod.restarts,
        "image": pod.spec.image,
        "imageID": pod.spec.image,
        "containerID": container_id(pod),
        "state": state,
        "lastState": {},
    }
    if pod.last_exit is not None:
        # A kubelet shows a death by signal as 128 and its number.
        code = pod.last_exit if pod.last_exit >= 0 else 128 - pod.last_exit
        status["lastState"] = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    return status


def pod_object(pod: Pod, plan: AddressPlan, created: float) -> dict[str, Any]:
    """Return a Pod."""
    spec = pod.spec
    since = pod.started or created
    conditions = [
        _condition(kind, ok=ok, since=since)
        for kind, ok in (
            ("Initialized", pod.phase == "Running"),
            ("Ready", pod.ready),
            ("ContainersReady", pod.ready),
            ("PodScheduled", True),
        )
    ]
    found = metadata(
        spec.name,
        spec.namespace,
        created,
        labels={**labels(spec), "pod-template-hash": spec.hash.partition("-")[0]},
        ownerReferences=_owner("ReplicaSet", spec.replica_set),
    )
    return {
        "metadata": found,
        "spec": {
            "containers": [_container(spec)],
            "nodeName": NODE_NAME,
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "telemagic-manager" if spec.namespace == "telemagic" else "default",
            "terminationGracePeriodSeconds": 30,
        },
        "status": {
            "phase": pod.phase,
            "podIP": str(spec.addresses[0]),
            "podIPs": [{"ip": str(address)} for address in spec.addresses],
            "hostIP": str(plan.nodes[0]),
            "hostIPs": [{"ip": str(address)} for address in plan.nodes],
            "startTime": timestamp(created),
            "qosClass": "BestEffort",
            "conditions": conditions,
            "containerStatuses": [_container_status(pod)],
        },
    }


def controllers(pod: Pod, created: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Deployment and the ReplicaSet that a pod belongs to."""
    spec = pod.spec
    selected = {"matchLabels": {"app": spec.app}}
    template = {"metadata": {"labels": labels(spec)}, "spec": {"containers": [_container(spec)]}}
    ready = int(pod.ready)
    counts = {"replicas": 1, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": 1}
    revision = {"deployment.kubernetes.io/revision": "1"}
    deployment = {
        "metadata": metadata(
            spec.app, spec.namespace, created, labels=labels(spec), annotations=revision, generation=1
        ),
        "spec": {
            "replicas": 1,
            "selector": selected,
            "template": template,
            "strategy": {"type": "RollingUpdate"},
        },
        "status": {
            **counts,
            "updatedReplicas": 1,
            "unavailableReplicas": 1 - ready,
            "conditions": [_condition("Available", ok=pod.ready, since=created)],
        },
    }
    replica_set = {
        "metadata": metadata(
            spec.replica_set,
            spec.namespace,
            created,
            labels=labels(spec),
            annotations=revision,
            generation=1,
            ownerReferences=_owner("Deployment", spec.app),
        ),
        "spec": {"replicas": 1, "selector": selected, "template": template},
        "status": counts,
    }
    return deployment, replica_set


def _versions(spec: ServiceSpec, plan: AddressPlan) -> tuple[int, ...]:
    return tuple(address.version for address in spec.addresses) or plan.versions


def service_object(spec: ServiceSpec, plan: AddressPlan, created: float) -> dict[str, Any]:
    """Return a Service."""
    addresses = [str(address) for address in spec.addresses] or ["None"]
    versions = _versions(spec, plan)
    body: dict[str, Any] = {
        "type": "ClusterIP",
        "clusterIP": addresses[0],
        "clusterIPs": addresses,
        "ipFamilies": [f"IPv{version}" for version in versions],
        "ipFamilyPolicy": "SingleStack" if len(versions) == 1 else "RequireDualStack",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [
            {"name": port.name, "port": port.number, "targetPort": port.number, "protocol": port.protocol}
            for port in spec.ports
        ],
    }
    if spec.app or spec.name != "kubernetes":
        body["selector"] = {"app": spec.app or spec.name}
    return {
        "metadata": metadata(spec.name, spec.namespace, created, labels={"app": spec.app or spec.name}),
        "spec": body,
        "status": {"loadBalancer": {}},
    }


def endpoints(
    service: ServiceSpec, pods: Iterable[Pod], plan: AddressPlan, created: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the Endpoints of a service, which know its first family only, and its EndpointSlices, one per family."""
    is_api = service.name == "kubernetes"
    ports = [_endpoint_port(port, _API_PORT if is_api else port.number) for port in service.ports]
    behind = [pod for pod in pods if (pod.spec.app, pod.spec.namespace) == (service.app, service.namespace)]
    found = {
        version: _api_entry(plan, version) if is_api else [_entry(pod, version) for pod in behind]
        for version in _versions(service, plan)
    }
    first = next(iter(found.values()))
    subset = {
        "addresses": [entry for entry, ready in first if ready],
        "notReadyAddresses": [entry for entry, ready in first if not ready],
        "ports": ports,
    }
    flat = {
        "metadata": metadata(service.name, service.namespace, created),
        "subsets": [{name: value for name, value in subset.items() if value}] if first else [],
    }
    return flat, [_slice(service, version, entries, ports, created) for version, entries in found.items()]


_Entry = tuple[dict[str, Any], bool]  # an address of Endpoints, and whether it is ready


def _of_version(addresses: Iterable[Address], version: int) -> str:
    return str(next(address for address in addresses if address.version == version))


def _api_entry(plan: AddressPlan, version: int) -> list[_Entry]:
    return [({"ip": _of_version(plan.nodes, version)}, True)]


def _entry(pod: Pod, version: int) -> _Entry:
    target = {"kind": "Pod", "name": pod.spec.name, "namespace": pod.spec.namespace}
    address = _of_version(pod.spec.addresses, version)
    return {"ip": address, "nodeName": NODE_NAME, "targetRef": target}, pod.ready


def _slice(
    service: ServiceSpec, version: int, entries: list[_Entry], ports: list[dict[str, Any]], created: float
) -> dict[str, Any]:
    return {
        "metadata": metadata(
            f"{service.name}-{_SLICES[version]}",
            service.namespace,
            created,
            labels={"kubernetes.io/service-name": service.name},
        ),
        "addressType": f"IPv{version}",
        "ports": ports,
        "endpoints": [
            {
                "addresses": [entry["ip"]],
                "conditions": {"ready": ready, "serving": ready, "terminating": False},
                "nodeName": NODE_NAME,
                **({"targetRef": entry["targetRef"]} if "targetRef" in entry else {}),
            }
            for entry, ready in entries
        ],
    }


def _endpoint_port(port: Port, number: int) -> dict[str, Any]:
    return {"name": port.name, "port": number, "protocol": port.protocol}
