"""A demo cluster while it runs: network, pods, API server, and the files that let clients in."""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import yaml

from telemagic.demo import namespaces, network, objects, workload
from telemagic.demo.kubelet import Kubelet, Pod
from telemagic.demo.store import KINDS, Store

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from telemagic.demo.apiserver import ApiServer
    from telemagic.demo.plan import AddressPlan

NAMESPACE: Final = "shop"
_NAMESPACES: Final = ("default", "kube-system", NAMESPACE, "telemagic")
_START_TIMEOUT: Final = 60.0  # seconds; takes about 3 on two quiet cores
_NODE_API_PORT: Final = 6443
_KIND: Final = {kind.plural: kind for kind in KINDS}


class Cluster:
    """Build it inside fresh namespaces, `start()`, and in the end `close()`.

    Parameters
    ----------
    name
        Of the demo, and of the context in its kubeconfig.
    directory
        Gets the kubeconfigs. Its `state` is the cluster's own disk.
    plan
        The addresses.
    port
        Where clients find the API server, on 127.0.0.1.
    """

    def __init__(self, name: str, directory: Path, plan: AddressPlan, port: int) -> None:
        self.plan = plan
        self._name = name
        self._directory = directory
        self._port = port
        self._created = time.time()
        self._workload = workload.build(plan, directory / "state")
        self._pods = [Pod(spec, namespaces.new_network()) for spec in self._workload.pods]
        self._store = Store()
        self._kubelet = Kubelet(self._publish)
        self._api: ApiServer | None = None
        self._tls: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Bring everything up; returns when all pods are ready.

        Raises
        ------
        HelperMissing
            A pod does not get ready.
        """
        connected = asyncio.get_running_loop().create_future()
        for pod in self._pods:
            self._kubelet.start(pod, connected)
        await self._connect()
        self._fill()
        await self._serve()
        connected.set_result(None)
        await self._kubelet.wait_ready(self._pods, _START_TIMEOUT)

    async def close(self) -> None:
        """End all pods and connections."""
        if self._api is not None:
            await self._api.close()
        await self._kubelet.close()
        for pod in self._pods:
            os.close(pod.network)

    async def listen(self, listener: socket.socket) -> Callable[[], Awaitable[None]]:
        """Serve the API on one more socket; what is returned stops that."""
        assert self._api is not None  # noqa: S101 - start() made both; for mypy
        assert self._tls is not None  # noqa: S101
        site = await self._api.listen(listener, self._tls)
        return site.stop

    def status(self) -> dict[str, Any]:
        """Return what `telemagic demo status` shows."""
        return {
            "pid": os.getpid(),
            "started": self._created,
            "pods": {f"{pod.spec.namespace}/{pod.spec.name}": pod.ready for pod in self._pods},
            "slot": str(self.plan.slot),
            "pod_cidr": ",".join(map(str, self.plan.pods)),
            "service_cidr": ",".join(map(str, self.plan.services)),
            "port": self._port,
        }

    def network_of(self, app: str) -> int:
        """Return the descriptor of the network namespace of an app's pod, still ours; KeyError if there is none."""
        return {pod.spec.app: pod.network for pod in self._pods}[app]

    async def _connect(self) -> None:
        plugs = [
            network.PodNetwork(
                pod.network, [*pod.spec.addresses, *self._workload.service_addresses(pod.spec)]
            )
            for pod in self._pods
        ]
        silent = [
            address
            for service in self._workload.services
            if not service.app and service.name != "kubernetes"
            for address in service.addresses
        ]
        own = [*self.plan.nodes, *self.plan.service(1)[:1]]
        await asyncio.to_thread(functools.partial(network.build, own, plugs, silent))

    async def _serve(self) -> None:
        # Late, because these two take longer to load than the first pods need to get going.
        from telemagic.demo.apiserver import ApiServer, Identity
        from telemagic.demo.certificates import Authority

        user, viewer, manager = (secrets.token_urlsafe(32) for _ in range(3))
        # The API server has IPv4 only, as its service; pods of both families reach it.
        node, service = self.plan.nodes[0], self.plan.service(1)[0]
        authority = Authority(["demo"], [node, service])
        self._tls = authority.server_context(self._directory / "state")
        pods = {(pod.spec.namespace, pod.spec.name): pod for pod in self._pods}
        account = "system:serviceaccount:telemagic:telemagic-manager"
        self._api = ApiServer(
            self._store,
            pods,
            {
                user: Identity("demo-user", may_forward=True),
                viewer: Identity("demo-viewer", may_forward=False),
                manager: Identity(account, may_forward=False),
            },
        )
        await self._api.start()
        for address, port in ((service, 443), (node, _NODE_API_PORT)):
            await self.listen(socket.create_server((str(address), port), backlog=128))
        mounted = self._directory / "state" / "manager"
        (mounted / "token").write_text(manager)
        (mounted / "namespace").write_text("telemagic")
        (mounted / "ca.crt").write_bytes(authority.ca_pem)
        self._write_kubeconfig("kubeconfig", "demo-user", user, authority.ca_pem)
        self._write_kubeconfig("viewer.kubeconfig", "demo-viewer", viewer, authority.ca_pem)

    def _write_kubeconfig(self, file: str, user: str, token: str, ca_pem: bytes) -> None:
        import base64

        server = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority-data": base64.b64encode(ca_pem).decode(),
        }
        context = {"cluster": self._name, "user": user, "namespace": NAMESPACE}
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self._name,
            "clusters": [{"name": self._name, "cluster": server}],
            "contexts": [{"name": self._name, "context": context}],
            "users": [{"name": user, "user": {"token": token}}],
        }
        path = self._directory / file
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(body, sort_keys=False))

    def _fill(self) -> None:
        created, put = self._created, self._store.put
        for name in _NAMESPACES:
            put(_KIND["namespaces"], objects.namespace_object(name, created))
            put(_KIND["serviceaccounts"], objects.service_account(name, "default", created))
        put(_KIND["serviceaccounts"], objects.service_account("telemagic", "telemagic-manager", created))
        put(_KIND["nodes"], objects.node(self.plan, created))
        put(_KIND["servicecidrs"], objects.service_cidr(self.plan, created))
        for service in self._workload.services:
            put(_KIND["services"], objects.service_object(service, self.plan, created))
            self._publish_endpoints(service)
        for pod in self._pods:
            self._publish(pod)

    def _publish(self, pod: Pod) -> None:
        self._store.put(_KIND["pods"], objects.pod_object(pod, self.plan, self._created))
        deployment, replica_set = objects.controllers(pod, self._created)
        self._store.put(_KIND["deployments"], deployment)
        self._store.put(_KIND["replicasets"], replica_set)
        for service in self._workload.services:
            if (service.app, service.namespace) == (pod.spec.app, pod.spec.namespace):
                self._publish_endpoints(service)

    def _publish_endpoints(self, service: workload.ServiceSpec) -> None:
        flat, slices = objects.endpoints(service, self._pods, self.plan, self._created)
        self._store.put(_KIND["endpoints"], flat)
        for sliced in slices:
            self._store.put(_KIND["endpointslices"], sliced)
