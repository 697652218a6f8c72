"""A demo cluster while it runs: network, pods, API server, and the files that let clients in."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import yaml

from telemagic.demo import likeness, objects, rights, workload
from telemagic.demo.controllers import Controllers, is_live, is_ready
from telemagic.demo.faults import Faults
from telemagic.demo.kinds import KIND, Kinds
from telemagic.demo.node import Node, complain
from telemagic.demo.store import Store

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from telemagic.demo.apiserver import ApiServer
    from telemagic.demo.breaking import Breaker
    from telemagic.demo.plan import AddressPlan
    from telemagic.demo.rbac import User

Json = dict[str, Any]
NAMESPACE: Final = "shop"
TOKEN_FILE: Final = "token"  # noqa: S105 - a file's name
_START_TIMEOUT: Final = 60.0  # seconds; takes about 3 on two quiet cores
_NODE_API_PORT: Final = 6443


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
    like
        Of which kind it is to look; one of `likeness.KINDS`, or nothing.
    has_manager
        Whether it starts with the namespace `telemagic` and a manager in it.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        plan: AddressPlan,
        port: int,
        *,
        like: str = "",
        has_manager: bool = True,
    ) -> None:
        self.plan = plan
        self._faults = Faults()
        self._name = name
        self._directory = directory
        self._port = port
        self._created = time.time()
        self._looks = likeness.likeness(like, plan) if like else likeness.Likeness(objects.VERSION)
        self._version = self._looks.version if like else f"{objects.VERSION}+telemagic-demo"
        self._has_manager = has_manager
        self._tokens: dict[str, User] = {}
        self._store = Store()
        self._controllers = Controllers(self._store, plan)
        self._node = Node(self._store, plan, directory / "state", self._tokens, self._looks.pod)
        self._api: ApiServer | None = None
        self._breaker: Breaker | None = None
        self._tls: ssl.SSLContext | None = None
        self._ca_pem = b""
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bring everything up; returns when all pods are ready.

        Raises
        ------
        HelperMissing
            A pod does not get ready.
        """
        self._fill()
        self._controllers.reconcile()
        up = self._node.start()
        self._node.sync()
        await self._serve(up)
        self._node.let_in(self._ca_pem)
        self._following = asyncio.create_task(self._follow())
        self._following.add_done_callback(complain)
        await self._node.wait_ready(_START_TIMEOUT)
        self._controllers.reconcile()

    async def close(self) -> None:
        """End all pods and connections."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._breaker is not None:
            await self._breaker.close()
        if self._api is not None:
            await self._api.close()
        await self._node.close()

    async def listen(self, listener: socket.socket) -> Callable[[], Awaitable[None]]:
        """Serve the API on one more socket; what is returned stops that."""
        assert self._api is not None  # noqa: S101 - start() made it; for mypy
        listeners = self._api.listeners
        added = await self._api.listen(listener, self._tls)

        async def stop() -> None:
            await listeners.remove(added)

        return stop

    def status(self) -> dict[str, Any]:
        """Return what `telemagic demo status` shows."""
        pods = [pod for pod in self._store.list(KIND["pods"]) if is_live(pod)]
        return {
            "pid": os.getpid(),
            "started": self._created,
            "pods": {
                f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": is_ready(pod)
                for pod in pods
                if not pod["spec"].get("hostNetwork")
            },
            "slot": str(self.plan.slot),
            "pod_cidr": ",".join(map(str, self.plan.pods)),
            "service_cidr": ",".join(map(str, self.plan.services)),
            "port": self._port,
        }

    def network_of(self, app: str) -> int:
        """Return the descriptor of the network namespace of an app's pod, still ours; KeyError if there is none."""
        return self._node.network_of(app)

    async def fault(self, name: str, options: dict[str, Any]) -> None:
        """Break something, or mend it; ValueError with a message for the user if that cannot be."""
        assert self._breaker is not None  # noqa: S101 - start() made it; for mypy
        await self._breaker.do(name, options)

    async def _follow(self) -> None:
        """Let everything follow the store."""
        version = 0
        while True:
            if version == self._store.version:
                await self._store.wait()
            version = self._store.version
            self._controllers.reconcile()
            self._node.sync()
            await self._node.route()

    async def _serve(self, up: asyncio.Task[None]) -> None:
        # Late, because these take longer to load than the first pods need to get going.
        from telemagic.demo.apiserver import ApiServer
        from telemagic.demo.breaking import Breaker
        from telemagic.demo.certificates import Authority

        # The API server has IPv4 only, as its service; pods of both families reach it.
        node, service = self.plan.nodes[0], self.plan.service(1)[0]
        authority = Authority(["demo"], [node, service])
        self._tls = authority.server_context(self._directory / "state")
        self._ca_pem = authority.ca_pem
        self._api = ApiServer(
            self._store,
            self._node.pods,
            self._tokens,
            version=self._version,
            services=self.plan.services,
            missing=self._looks.missing,
            faults=self._faults,
        )
        self._breaker = Breaker(self._faults, self._api, self._node, self._expire_tokens, self._renew_tokens)
        await self._api.start()
        await up
        for address, port in ((service, 443), (node, _NODE_API_PORT)):
            await self.listen(socket.create_server((str(address), port), backlog=128))
        self._renew_tokens()

    def _renew_tokens(self) -> None:
        """Give every user a new token, and write it where they look for it; the ones before stay what they are."""
        for file, user in rights.KUBECONFIGS.items():
            token = secrets.token_urlsafe(32)
            self._tokens[token] = user
            self._write_kubeconfig(file, user.name, token)
            if user == rights.ADMIN:
                self._write(TOKEN_FILE, token)

    def _expire_tokens(self) -> None:
        """Forget the tokens that users have, until the fault is cleared."""
        users = {*rights.KUBECONFIGS.values()}
        self._faults.expired |= {token for token, user in self._tokens.items() if user in users}

    def _write_kubeconfig(self, file: str, user: str, token: str) -> None:
        server = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority-data": base64.b64encode(self._ca_pem).decode(),
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
        self._write(file, yaml.safe_dump(body, sort_keys=False))

    def _write(self, file: str, text: str) -> None:
        """Replace a private file as a whole: somebody may be reading it."""
        fresh = self._directory / f".{file}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(self._directory / file)

    def _fill(self) -> None:
        """Put everything into the store that is there from the start."""
        names = ["default", "kube-system", NAMESPACE]
        items: list[Json] = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                **objects.node(self.plan, self._created, self._looks.version),
            },
        ]
        items[0] = self._looks.node(items[0])
        if self._has_manager:
            names.append(rights.MANAGER_NAMESPACE)
            metadata = {"name": rights.MANAGER_ACCOUNT, "namespace": rights.MANAGER_NAMESPACE}
            items.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        for name in names:
            named = objects.namespace_object(name, self._created)
            items.append({"apiVersion": "v1", "kind": "Namespace", **named})
        cidr = objects.service_cidr(self.plan, self._created)
        items.append({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **cidr})
        items += workload.services(self.plan)
        items += workload.deployments(has_manager=self._has_manager)
        items += self._looks.objects
        for item in items:
            self._put(item)
        for item in rights.objects(self._kinds(), NAMESPACE, has_manager=self._has_manager):
            self._put(item)

    def _put(self, item: Json) -> None:
        found = item["metadata"]
        made = objects.metadata(found["name"], found.get("namespace", ""), self._created, kind=item["kind"])
        del made["kind"]
        self._store.put(self._kinds().of(item), {**item, "metadata": {**made, **found}})

    def _kinds(self) -> Kinds:
        return Kinds((), lambda: self._store.list(KIND["customresourcedefinitions"]))
