"""A Kubernetes node with containerd, and the API server in front of it: `python -m tests.farend.node FOLDER IDLE CGROUP`.

Process 1 of its own process, mount and network namespaces: whatever runs on the node ends with it, however it ends, and
so do its mounts, its file systems (they are in memory) and its networks. It ends by itself when its standard input
closes. What outlives it are control groups, and `cgroups.py` removes those.

Pods: the manager, made of the very Deployment that is installed; a shop's catalog and a name server; and a manager
that sends no heartbeat, in a namespace of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import copy
import json
import secrets
import socket
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dns
import uvloop
import yaml
from pyroute2 import IPRoute

from telemagic.demo import namespaces, objects, rbac
from telemagic.demo.apiserver import ApiServer
from telemagic.demo.certificates import Authority
from telemagic.demo.kinds import KIND
from telemagic.demo.plan import CLUSTER_DOMAIN, AddressPlan
from telemagic.demo.store import Store
from tests.farend import cgroups, control, cri, image, upgrade
from tests.farend.containerd import Containerd
from tests.farend.control import SILENT
from tests.farend.pods import Kubelet, Place, RunningPod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

Json = dict[str, Any]
PLAN: Final = AddressPlan(IPv4Network("198.19.0.0/20"), ipv6=False)
NAMESPACE: Final = "telemagic"
SHOP: Final = "shop"
USER: Final = rbac.User("someone")
ADMIN: Final = rbac.User("admin", (rbac.MASTERS, rbac.AUTHENTICATED))
_EXTRA: Final = "/opt/extra"  # for the name server, which needs a package that the manager does not
_NO_HEARTBEAT: Final = (
    "import telehelper.core.mux as mux; mux.PING_INTERVAL = mux.FIRST_PING = mux.DEAD_AFTER = 1e6; "
    "import sys; from telehelper.manager.main import main; sys.exit(main())"
)


def isolate(folder: Path) -> None:
    """Make mounts of our own where containerd and its plugins write, all of them in memory."""
    quiet = namespaces.MS_NOSUID | namespaces.MS_NODEV
    namespaces.mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
    namespaces.mount("tmpfs", "/run", "tmpfs", quiet, "mode=0755")
    upper, work = folder / "var-upper", folder / "var-work"
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir=/var/lib,upperdir={upper},workdir={work}"
    namespaces.mount("overlay", "/var/lib", "overlay", 0, options)
    namespaces.loopback_up()
    with IPRoute() as netlink:
        for address in (*PLAN.nodes, *PLAN.service(1)):
            netlink.addr("add", index=netlink.link_lookup(ifname="lo")[0], address=str(address), prefixlen=32)


def template_of_manager() -> Json:
    """Return the pod template of the Deployment that is installed."""
    found: Json = yaml.safe_load((image.MANIFESTS / "deployment.yaml").read_text())["spec"]["template"]
    return found


def derived(app: str, command: Sequence[str], **environment: str) -> Json:
    """Return a template as restricted as the manager's, which runs something else of its image."""
    found = copy.deepcopy(template_of_manager())
    found["metadata"]["labels"] = {"app": app}
    (container,) = found["spec"]["containers"]
    container |= {"name": app, "command": list(command), "args": [], "ports": [], "resources": {}}
    container["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    found["spec"]["automountServiceAccountToken"] = False
    return found


class Node:
    """The node; `run` it."""

    def __init__(self, folder: Path, idle: float, cgroup: str) -> None:
        self._folder = folder
        self._cgroup = cgroup
        self._state = folder / "state"
        self._idle = idle
        self._created = time.time()
        self._store = Store()
        self._pods: dict[tuple[str, str], RunningPod] = {}
        self._manager: RunningPod | None = None
        self._dns: Json = {}
        self._authority = Authority(["farend"], [*PLAN.nodes, *PLAN.service(1)])
        self._tls = self._authority.server_context(self._state)
        user, admin, account = (secrets.token_urlsafe(32) for _ in range(3))
        self._write_kubeconfig("kubeconfig", USER, user)
        self._write_kubeconfig("admin.kubeconfig", ADMIN, admin)
        self._write_account(account)
        who = {user: USER, admin: ADMIN, account: rbac.service_account(NAMESPACE, "telemagic-manager")}
        self._api = ApiServer(
            self._store,
            self._pods,  # type: ignore[arg-type]  # it only hands them on to us
            who,
            services=PLAN.services,
            forward=self._forward,  # type: ignore[arg-type]
        )

    async def run(self) -> None:
        """Bring everything up, tell that it is, and serve until standard input closes."""
        async with contextlib.AsyncExitStack() as stack:
            self._fill()
            await self._api.start()
            stack.push_async_callback(self._api.close)
            listener = socket.create_server((str(PLAN.service(1)[0]), 443))
            await self._api.listen(listener, self._tls)
            containerd = await stack.enter_async_context(Containerd(self._state, PLAN.pods[0], self._idle))
            pb = await asyncio.to_thread(cri.messages, self._state)
            self._runtime = await stack.enter_async_context(cri.Runtime(containerd.socket, pb))
            archive = self._folder / image.ARCHIVE
            while not archive.exists():  # noqa: ASYNC110  # another process is making it
                await asyncio.sleep(0.05)
            await containerd.ctr("images", "import", str(archive))
            archive.unlink()  # large, and whoever started us may be killed
            self._kubelet = Kubelet(containerd, self._runtime, self._place())
            await self._start_pods()
            await stack.enter_async_context(control.serve(self._folder, self._answer))
            sys.stdout.write("up\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
            for pod in self._pods.values():
                await self._kubelet.remove(pod)

    async def _start_pods(self) -> None:
        catalog = derived(
            "catalog",
            ["python", "-P", "-m", "telemagic.demo.catalog", "--port", "8000", "--tally-port", "7000"],
        )
        found = await self._kubelet.start(SHOP, "catalog", catalog)
        self._publish(found)
        self._put("services", self._headless("catalog"))
        (self._state / "zone.json").write_text(json.dumps(self._zone(found)))
        server = derived(
            "coredns",
            [
                "python",
                "-P",
                "-m",
                "telemagic.demo.nameserver",
                "--port",
                "53",
                "--address=0.0.0.0",
                "/etc/zone.json",
            ],
            PYTHONPATH=_EXTRA,
        )
        server["spec"]["securityContext"]["sysctls"] = [
            {"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}
        ]
        mounts = (
            {
                "container_path": f"{_EXTRA}/dns",
                "host_path": str(Path(dns.__file__).parent),
                "readonly": True,
            },
            {
                "container_path": "/etc/zone.json",
                "host_path": str(self._state / "zone.json"),
                "readonly": True,
            },
        )
        names = await self._kubelet.start("kube-system", "coredns", server, mounts=mounts)
        self._publish(names)
        search = [f"{NAMESPACE}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN]
        self._dns = {"servers": [names.address], "searches": search}
        await asyncio.gather(self._start_manager(), self._start_silent_manager())

    async def _start_manager(self) -> None:
        template = template_of_manager()
        self._manager = await self._kubelet.start(NAMESPACE, "telemagic-manager", template, dns=self._dns)
        self._publish(self._manager)

    async def _start_silent_manager(self) -> None:
        template = template_of_manager()
        template["spec"]["containers"][0]["command"] = ["python", "-P", "-c", _NO_HEARTBEAT]
        self._publish(await self._kubelet.start(SILENT, "manager", template, dns=self._dns))

    # --- what the tests ask for ---

    async def _answer(self, request: Json, fds: list[int]) -> Json:
        assert self._manager is not None
        match request["op"]:
            case "attach":
                await self._api.listen(socket.socket(fileno=fds[0]), self._tls)
                return {}
            case "kill":
                await self._kubelet.kill(self._manager)
                self._publish(self._manager, ready=False)
                return {"name": self._manager.name, "address": self._manager.address}
            case "replace":
                old = self._manager
                self._store.delete(KIND["pods"], old.namespace, old.name)
                del self._pods[old.namespace, old.name]
                await self._start_manager()
                await self._kubelet.remove(old)
                return {"name": self._manager.name, "address": self._manager.address}
            case "execute":
                return {"said": await self._kubelet.execute(self._manager, *request["command"])}
            case "log":
                return {"said": self._kubelet.log(self._manager.name)}
            case op:
                return {"error": f"unknown: {op}"}

    async def _forward(
        self, request: web.Request, pod: RunningPod, ports: Sequence[int]
    ) -> web.StreamResponse:
        answer = await self._runtime.call("PortForward", pod_sandbox_id=pod.sandbox, port=ports)
        return await upgrade.hand_on(request, answer.url)

    # --- files and objects ---

    def _place(self) -> Place:
        for name in ("logs", "volumes"):
            (self._state / name).mkdir()
        environment = {"KUBERNETES_SERVICE_HOST": str(PLAN.service(1)[0]), "KUBERNETES_SERVICE_PORT": "443"}
        logs, volumes, account = (self._state / name for name in ("logs", "volumes", "account"))
        return Place(logs, volumes, account, f"/{self._cgroup}", environment, str(PLAN.nodes[0]))

    def _write_account(self, token: str) -> None:
        folder = self._state / "account"
        folder.mkdir()
        (folder / "token").write_text(token)
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "ca.crt").write_bytes(self._authority.ca_pem)

    def _write_kubeconfig(self, file: str, user: rbac.User, token: str) -> None:
        cluster = {
            "server": f"https://127.0.0.1:{control.API_PORT}",
            "certificate-authority-data": base64.b64encode(self._authority.ca_pem).decode(),
        }
        context = {"cluster": "farend", "user": user.name, "namespace": SHOP}
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "farend",
            "clusters": [{"name": "farend", "cluster": cluster}],
            "contexts": [{"name": "farend", "context": context}],
            "users": [{"name": user.name, "user": {"token": token}}],
        }
        (self._folder / file).write_text(yaml.safe_dump(body))

    def _put(self, plural: str, item: Json) -> None:
        self._store.put(KIND[plural], item)

    def _fill(self) -> None:
        """Put into the API what an installation puts there, and a user with just the rights that it names."""
        kinds = {kind.kind: kind for kind in KIND.values()}
        for name in ("namespace", "serviceaccount", "discovery", "user"):
            for item in yaml.safe_load_all((image.MANIFESTS / f"{name}.yaml").read_text()):
                self._store.put(kinds[item["kind"]], item)
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "telemagic-user"}
        for namespace in (NAMESPACE, SILENT):
            body = {"roleRef": role, "subjects": [{"kind": "User", "name": USER.name}]}
            self._put("rolebindings", {"metadata": {"name": "someone", "namespace": namespace}, **body})
        user = next(yaml.safe_load_all((image.MANIFESTS / "user.yaml").read_text()))
        user["metadata"]["namespace"] = SILENT
        self._put("roles", user)
        for name in (SHOP, "kube-system", SILENT):
            self._put("namespaces", objects.namespace_object(name, self._created))
        self._put("nodes", objects.node(PLAN, self._created))
        self._put("servicecidrs", objects.service_cidr(PLAN, self._created))

    def _headless(self, name: str) -> Json:
        metadata = objects.metadata(name, SHOP, self._created)
        ports = [{"name": "http", "port": 8000}, {"name": "tally", "port": 7000}]
        return {
            "metadata": metadata,
            "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": ports},
        }

    def _zone(self, catalog: RunningPod) -> Json:
        service = {
            "name": "catalog",
            "namespace": SHOP,
            "addresses": [],
            "ports": [["http", "tcp", 8000], ["tally", "tcp", 7000]],
            "endpoints": [catalog.address],
        }
        pods = [{"namespace": SHOP, "addresses": [catalog.address]}]
        return {"domain": CLUSTER_DOMAIN, "reverse": [str(PLAN.slot)], "pods": pods, "services": [service]}

    def _publish(self, pod: RunningPod, *, ready: bool = True) -> None:
        self._pods[pod.namespace, pod.name] = pod
        state = "True" if ready else "False"
        labels = pod.template["metadata"]["labels"]
        metadata = objects.metadata(pod.name, pod.namespace, time.time(), labels=labels)
        status = {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "conditions": [{"type": "Ready", "status": state}],
        }
        spec = {**pod.template["spec"], "nodeName": objects.NODE_NAME}
        self._put("pods", {"metadata": metadata, "spec": spec, "status": status})


def main() -> None:
    """Run a node in the namespaces that the caller has made."""
    parser = argparse.ArgumentParser(prog="python -m tests.farend.node", description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        help="with an empty `state`; gets images.tar, and from us control socket and kubeconfigs",
    )
    parser.add_argument(
        "idle", type=float, help="seconds after which containerd hangs up an idle port-forward"
    )
    parser.add_argument("cgroup", help="name of the control group that all pods are in")
    options = parser.parse_args()
    isolate(options.folder / "state")
    try:
        uvloop.run(Node(options.folder, options.idle, options.cgroup).run())
    finally:
        cgroups.remove(options.cgroup)


if __name__ == "__main__":
    main()
