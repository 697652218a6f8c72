"""The demo cluster's only node: it gives pods addresses, networks and disks, runs them, and takes all of it back.

It follows the store, as a kubelet and a kube-proxy follow the API server: a pod object that nobody runs is started, one
that is being deleted is ended and then removed, and services lead to the pods behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import endpoints, namespaces, objects, programs, rbac, zone
from telemagic.demo.controllers import is_live, is_ready
from telemagic.demo.kinds import KIND
from telemagic.demo.kubelet import Kubelet, Pod
from telemagic.demo.network import Backend, NodeNetwork
from telemagic.demo.plan import CLUSTER_DOMAIN
from telemagic.demo.workload import POD_NUMBERS, SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from telemagic.demo.plan import Address, AddressPlan
    from telemagic.demo.store import Store

Json = dict[str, Any]
Key = tuple[str, str]  # namespace and name
_PODS: Final = KIND["pods"]
_FIRST_NUMBER: Final = 20  # of pods that came later; see POD_NUMBERS
_LAST_NUMBER: Final = 2_000  # fits into the plan's /21


class Node:
    """Runs the pods of a store.

    Parameters
    ----------
    store
        Whose pods and services these are.
    plan
        The addresses.
    state
        The node's disk.
    tokens
        Gets a token for every pod that is to have one.
    show_pod
        Changes what is shown of a pod.
    """

    def __init__(
        self,
        store: Store,
        plan: AddressPlan,
        state: Path,
        tokens: dict[str, rbac.User],
        show_pod: Callable[[Json], Json],
    ) -> None:
        self.pods: dict[Key, Pod] = {}
        self._store = store
        self._plan = plan
        self._state = state
        self._tokens = tokens
        self._show_pod = show_pod
        self._kubelet = Kubelet(self._publish)
        self._network = NodeNetwork([*plan.nodes, *plan.service(1)[:1]])
        self._network_lock = asyncio.Lock()
        self._ending: dict[Key, asyncio.Task[None]] = {}
        self._numbers = itertools.cycle(range(_FIRST_NUMBER, _LAST_NUMBER))
        self._used_numbers: dict[Key, int] = {}
        self._first_numbers = dict(POD_NUMBERS)
        self._routed: dict[Address, Backend] = {}
        self._set_ups: dict[Key, asyncio.Task[None]] = {}
        self._pod_tokens: dict[Key, str] = {}
        self._network_changes: set[asyncio.Task[None]] = set()
        # Done when there is an API server whose certificate can be given to pods.
        self._certificate: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._zone_file = state / "zone.json"
        self._zone_text = ""

    def start(self) -> asyncio.Task[None]:
        """Begin with the network; what is returned ends when the node is up. Pods can be started at once."""
        self._write_zone()
        return asyncio.create_task(self._change_network(self._network.build))

    def let_in(self, ca_pem: bytes) -> None:
        """Let containers start: the API server they will ask is there, with this certificate authority."""
        self._certificate.set_result(ca_pem)

    async def wait_ready(self, seconds: float) -> None:
        """Wait until all pods are ready.

        Raises
        ------
        HelperMissing
            One does not get ready.
        """
        await self._kubelet.wait_ready(list(self.pods.values()), seconds)

    async def close(self) -> None:
        """End all pods."""
        tasks = [*self._ending.values(), *self._set_ups.values()]
        for task in tasks:
            task.cancel()
        await self._kubelet.close()
        await asyncio.gather(*tasks, *self._network_changes, return_exceptions=True)
        for pod in self.pods.values():
            os.close(pod.network)

    def network_of(self, app: str) -> int:
        """Return the descriptor of the network namespace of an app's first pod, still ours; KeyError if there is none."""
        for pod in self.pods_of(app):
            return pod.network
        raise KeyError(app)

    def pods_of(self, app: str) -> Iterator[Pod]:
        """Go through the pods of an app that run, or are about to."""
        for item in self.items_of(app):
            if _key(item) in self.pods:
                yield self.pods[_key(item)]

    def items_of(self, app: str) -> Iterator[Json]:
        """Go through the pods of an app that are there to stay."""
        for item in self._store.list(_PODS):
            labels = item["metadata"].get("labels") or {}
            if is_live(item) and app in (labels.get("app"), labels.get("app.kubernetes.io/name")):
                yield item

    def sync(self) -> None:
        """Start and end what has to be; the store's objects say it."""
        items = {_key(item): item for item in self._store.list(_PODS) if _is_ours(item)}
        for key, item in items.items():
            if not is_live(item) or key in self._ending:
                continue
            if key not in self.pods and "containerStatuses" not in item["status"]:
                self._start(key, item)
        for key, item in items.items():
            if not is_live(item) and key not in self._ending:
                self._begin_end(key)
        for key in self.pods.keys() - items.keys() - self._ending.keys():
            self._begin_end(key)
        self._write_zone()

    async def route(self) -> None:
        """Let services lead to their pods."""
        backends: dict[Address, Backend] = {}
        items = [item for item in self._store.list(_PODS) if _key(item) in self.pods]
        for service in self._store.list(KIND["services"]):
            behind = [item for item in items if endpoints.selects(service, item)]
            behind.sort(key=lambda item: (not is_live(item), not is_ready(item)))
            pods = tuple(self.pods[_key(item)].network for item in behind if is_live(item))
            is_silent = (service["metadata"].get("annotations") or {}).get(SILENT) == "true"
            for text in service["spec"].get("clusterIPs") or ():
                if text != "None" and not endpoints.is_api(service):
                    backends[ip_address(text)] = Backend(pods, is_silent)
        if backends != self._routed:
            self._routed = backends
            await self._change_network(lambda: self._network.serve(backends))

    async def _change_network(self, work: Callable[[], None]) -> None:
        """Do one thing with the network after the other; one that has begun ends, whoever waited for it."""
        task = asyncio.create_task(self._locked(work))
        self._network_changes.add(task)
        task.add_done_callback(self._network_changes.discard)
        await asyncio.shield(task)

    async def _locked(self, work: Callable[[], None]) -> None:
        async with self._network_lock:
            await asyncio.to_thread(work)

    def _start(self, key: Key, item: Json) -> None:
        (container, *_) = item["spec"]["containers"]
        number = self._number(key, item)
        addresses = self._plan.pod(number)
        directory = self._state / "pods" / item["metadata"]["uid"]
        served = [
            ip_address(text)
            for service in self._store.list(KIND["services"])
            if endpoints.selects(service, item)
            for text in service["spec"].get("clusterIPs") or ()
            if text != "None"
        ]
        place = programs.Place(directory, (*addresses, *served), self._zone_file, self._plan.slots)
        program = programs.find(container, place)
        if program is None:
            del self._used_numbers[key]
            self._show(item, objects.unpulled_status(item, self._plan))
            return
        directory.mkdir(parents=True)
        own = {
            "KUBERNETES_SERVICE_HOST": str(self._plan.service(1)[0]),
            "KUBERNETES_SERVICE_PORT": "443",
            **programs.environment(container, item, addresses),
        }
        spec = programs.PodSpec(key[1], key[0], program, addresses, own)
        pod = self.pods[key] = Pod(spec, namespaces.new_network())
        self._show(item, objects.pod_status(pod, item, self._plan))
        task = self._set_ups[key] = asyncio.create_task(self._set_up(pod, item, directory))
        task.add_done_callback(complain)
        self._kubelet.start(pod, task)

    async def _set_up(self, pod: Pod, item: Json, directory: Path) -> None:
        """Do what has to be done before a container starts."""
        await self._change_network(lambda: self._network.plug(pod.network, pod.spec.addresses))
        self._routed = {}  # it may be behind a service that leads to nobody so far
        await self.route()
        self._mount(item, directory, await asyncio.shield(self._certificate))

    def _mount(self, item: Json, directory: Path, ca_pem: bytes) -> None:
        namespace = item["metadata"]["namespace"]
        search = f"{namespace}.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}"
        nameserver = self._plan.service(10)[0]
        (directory / "resolv.conf").write_text(f"search {search}\nnameserver {nameserver}\noptions ndots:5\n")
        account = directory / "account"
        account.mkdir()
        name = item["spec"].get("serviceAccountName") or "default"
        found = self._store.get(KIND["serviceaccounts"], namespace, name) or {}
        wanted = item["spec"].get("automountServiceAccountToken")
        if wanted is None:
            wanted = found.get("automountServiceAccountToken")
        if wanted is False:
            return
        token = secrets.token_urlsafe(32)
        self._pod_tokens[_key(item)] = token
        self._tokens[token] = rbac.service_account(namespace, name)
        (account / "token").write_text(token)
        (account / "namespace").write_text(namespace)
        (account / "ca.crt").write_bytes(ca_pem)

    def _begin_end(self, key: Key) -> None:
        task = self._ending[key] = asyncio.create_task(self._end(key))
        task.add_done_callback(complain)

    async def _end(self, key: Key) -> None:
        """End a pod's process, take its place away, and then its object."""
        pod = self.pods.get(key)
        if pod is not None:
            await self._kubelet.stop(pod)
            self._set_ups.pop(key).cancel()
            del self.pods[key]
            self._tokens.pop(self._pod_tokens.pop(key, ""), None)
            with contextlib.suppress(KeyError):  # it was never plugged in
                await self._change_network(lambda: self._network.unplug(pod.network))
            os.close(pod.network)
        item = self._store.delete(_PODS, *key)
        if item is not None:
            await asyncio.to_thread(
                shutil.rmtree, self._state / "pods" / item["metadata"]["uid"], ignore_errors=True
            )
        self._used_numbers.pop(key, None)
        del self._ending[key]

    def _number(self, key: Key, item: Json) -> int:
        """Choose the number of a pod's addresses: nobody's, and not the one of a pod that has just gone."""
        app = (item["metadata"].get("labels") or {}).get("app", "")
        used = set(self._used_numbers.values())
        number = self._first_numbers.pop(app, 0)
        if not number:
            number = next(number for number in self._numbers if number not in used)
        self._used_numbers[key] = number
        return number

    def _publish(self, pod: Pod) -> None:
        item = self._store.get(_PODS, pod.spec.namespace, pod.spec.name)
        if item is not None:
            self._show(item, objects.pod_status(pod, item, self._plan))

    def _show(self, item: Json, status: Json) -> None:
        self._store.put(_PODS, self._show_pod({**item, "status": status}))

    def _write_zone(self) -> None:
        pods = [item for item in self._store.list(_PODS) if is_live(item) and item["status"].get("podIPs")]
        text = json.dumps(zone.describe(self._plan, self._store.list(KIND["services"]), pods))
        if text != self._zone_text:
            self._zone_text = text
            fresh = self._zone_file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self._zone_file)


def complain(task: asyncio.Task[None]) -> None:
    """Have the loop write down why a task that nobody waits for has failed; a callback."""
    if not task.cancelled():
        task.result()


def _key(item: Json) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _is_ours(item: Json) -> bool:
    """Tell whether a pod is to be run, and not only shown as the control plane's are."""
    return not item["spec"].get("hostNetwork")
