"""The index: what is visible of the cluster, and which pod and port an address and port lead to; no I/O.

A service's address and port lead to a ready endpoint, in turn; a pod's own address to that pod. What kube-proxy does
otherwise is said where it is not done: ``internalTrafficPolicy`` and topology hints are for nodes, and this machine is
none.

Bounds: ``MAX_OBJECTS`` of each kind; further ones are left out and counted.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from telehelper.core.frames import Proto
from telehelper.datapath.agentless.objects import Endpoint, EndpointSlice, Key, Pod, Service

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from telehelper.datapath.agentless.objects import Address, ServicePort

MAX_OBJECTS: Final = 20_000  # of each kind; some 30 MiB in all
MAX_NODES: Final = 50_000  # addresses of nodes; forgotten beyond, and learnt again

_Object = TypeVar("_Object", Service, EndpointSlice, Pod)


class Target(NamedTuple):
    """Where to forward a port to."""

    pod: Key
    port: int


class Refusal(NamedTuple):
    """Why there is nowhere: an errno, and one line for people."""

    code: int
    reason: str


class Route(NamedTuple):
    """A service's endpoint with the ports that its slice has."""

    endpoint: Endpoint
    slice: EndpointSlice


class _Kept(NamedTuple):
    """A client's endpoint, where a service has session affinity."""

    pod: Key
    used_at: float


class Index:
    """Services, endpoints and pods by name and by address.

    Attributes
    ----------
    namespaces
        Those whose objects are here; None if all namespaces' are.
    left_out
        How many objects were beyond ``MAX_OBJECTS``.
    version
        Grows with each change.
    """

    def __init__(self, namespaces: Collection[str] | None = None) -> None:
        self.namespaces = None if namespaces is None else frozenset(namespaces)
        self.left_out = 0
        self.version = 0
        self._services: dict[Key, Service] = {}
        self._slices: dict[Key, EndpointSlice] = {}
        self._pods: dict[Key, Pod] = {}
        self._slices_of: defaultdict[Key, dict[Key, EndpointSlice]] = defaultdict(dict)
        self._service_at: dict[Address, Key] = {}
        self._pod_at: dict[Address, Key] = {}
        self._node_at: dict[Address, str] = {}  # kept when its pods go: nodes are few
        self._endpoint_at: defaultdict[Address, dict[Key, Route]] = defaultdict(dict)  # by slice
        self._turns: dict[tuple[Key, str], int] = {}
        self._kept: dict[tuple[Key, Address], _Kept] = {}

    # --- changes

    def put(self, item: Service | EndpointSlice | Pod) -> None:
        """Add an object, or replace the one of the same name."""
        match item:
            case Service():
                if self._store(self._services, item):
                    self._point(self._service_at, item.key, item.addresses)
            case EndpointSlice():
                if self._store(self._slices, item):
                    self._slices_of[item.service][item.key] = item
                    for endpoint in item.endpoints:
                        self._endpoint_at[endpoint.address][item.key] = Route(endpoint, item)
            case Pod():
                if self._store(self._pods, item):
                    if item.is_on_host:
                        if len(self._node_at) > MAX_NODES:  # no cluster has so many
                            self._node_at.clear()
                        self._node_at.update(dict.fromkeys(item.addresses, item.node))
                    else:
                        self._point(self._pod_at, item.key, item.addresses)

    def remove(self, kind: type[Service | EndpointSlice | Pod], key: Key) -> None:
        """Take an object out; nothing happens if it is not there."""
        self.version += 1
        if kind is Service:
            gone = self._services.pop(key, None)
            self._unpoint(self._service_at, key, gone.addresses if gone is not None else ())
            self._turns = {entry: turn for entry, turn in self._turns.items() if entry[0] != key}
            self._kept = {entry: kept for entry, kept in self._kept.items() if entry[0] != key}
        elif kind is Pod:
            lost = self._pods.pop(key, None)
            self._unpoint(self._pod_at, key, lost.addresses if lost is not None else ())
        else:
            self._remove_slice(key)

    def keys(self, kind: type[Service | EndpointSlice | Pod]) -> list[Key]:
        """Return the names of all objects of a kind."""
        tables: dict[type, Iterable[Key]] = {
            Service: self._services,
            EndpointSlice: self._slices,
            Pod: self._pods,
        }
        return list(tables[kind])

    def _store(self, table: dict[Key, _Object], item: _Object) -> bool:
        if item.key not in table and len(table) >= MAX_OBJECTS:
            self.left_out += 1
            return False
        if table.get(item.key) == item:
            return False
        # Not for a service: its turns and its clients outlive a change of a label.
        if isinstance(item, Service):
            self._unpoint(
                self._service_at, item.key, self._services[item.key].addresses if item.key in table else ()
            )
        else:
            self.remove(type(item), item.key)
        table[item.key] = item
        self.version += 1
        return True

    def _remove_slice(self, key: Key) -> None:
        gone = self._slices.pop(key, None)
        if gone is not None:
            self._slices_of[gone.service].pop(key)
            if not self._slices_of[gone.service]:
                del self._slices_of[gone.service]
            for address in {endpoint.address for endpoint in gone.endpoints}:
                self._endpoint_at[address].pop(key)
                if not self._endpoint_at[address]:
                    del self._endpoint_at[address]

    @staticmethod
    def _point(table: dict[Address, Key], key: Key, addresses: Iterable[Address]) -> None:
        for address in addresses:
            table[address] = key

    @staticmethod
    def _unpoint(table: dict[Address, Key], key: Key, addresses: Iterable[Address]) -> None:
        for address in addresses:
            if table.get(address) == key:  # else another has it by now
                del table[address]

    # --- looking

    def service(self, key: Key) -> Service | None:
        """Return a service by its name."""
        return self._services.get(key)

    def service_at(self, address: Address) -> Service | None:
        """Return the service that has a cluster address."""
        key = self._service_at.get(address)
        return None if key is None else self._services.get(key)

    def pod_at(self, address: Address) -> Pod | None:
        """Return the pod that has an address; none on a node's network."""
        key = self._pod_at.get(address)
        return None if key is None else self._pods.get(key)

    def node_at(self, address: Address) -> str:
        """Return the node that has an address, as far as pods on its network show; empty if there is none."""
        return self._node_at.get(address, "")

    def routes(self, service: Key) -> Iterator[Route]:
        """Go through the ready endpoints of a service."""
        for each in self._slices_of.get(service, {}).values():
            for endpoint in each.endpoints:
                if endpoint.is_ready:
                    yield Route(endpoint, each)

    def routes_at(self, address: Address) -> list[Route]:
        """Return the endpoints that have an address, ready or not."""
        return list(self._endpoint_at[address].values()) if address in self._endpoint_at else []

    def sees(self, namespace: str) -> bool:
        """Whether a namespace's objects are here, so that what is not here is nowhere."""
        return self.namespaces is None or namespace in self.namespaces

    def has_namespace(self, namespace: str) -> bool:
        """Whether anything of a namespace is here, or would be."""
        return (self.namespaces is not None and namespace in self.namespaces) or any(
            key.namespace == namespace for table in (self._services, self._pods) for key in table
        )

    # --- choosing

    def find(self, protocol: Proto, src: Address, dst: Address, dport: int, now: float) -> Target | Refusal:
        """Choose where a flow goes.

        Parameters
        ----------
        protocol, src, dst, dport
            What was opened; `src` is the client that session affinity is about.
        now
            Monotonic seconds.
        """
        if protocol is not Proto.TCP:
            return Refusal(errno.EPROTONOSUPPORT, f"{protocol.name} does not work without a traffic manager")
        service = self.service_at(dst)
        if service is not None:
            return self._through(service, src, dst, dport, now)
        pod = self.pod_at(dst)
        if pod is not None:
            return Target(pod.key, dport)
        where = "" if self.namespaces is None else f" of namespace {', '.join(sorted(self.namespaces))}"
        return Refusal(errno.EHOSTUNREACH, f"{dst} is no service and no pod{where} that can be forwarded to")

    def forget_pod(self, pod: Key) -> None:
        """Take out a pod that turned out to be gone, until the API server shows it again."""
        self.remove(Pod, pod)

    def _through(
        self, service: Service, src: Address, dst: Address, dport: int, now: float
    ) -> Target | Refusal:
        name = f"{service.key.name}.{service.key.namespace}"
        port = next((each for each in service.ports if (each.protocol, each.number) == ("TCP", dport)), None)
        if port is None:
            return Refusal(errno.ECONNREFUSED, f"connection refused: service {name} has no TCP port {dport}")
        routes = [
            route for route in self.routes(service.key) if route.endpoint.address.version == dst.version
        ]
        if not routes:
            return Refusal(errno.ECONNREFUSED, f"connection refused: service {name} has no ready endpoint")
        targets = [target for route in routes if (target := self._target(route, port)) is not None]
        if not targets:
            return Refusal(errno.EHOSTUNREACH, self._why_not(name, port, routes))
        return self._choose(service, port, src, targets, now)

    def _target(self, route: Route, port: ServicePort) -> Target | None:
        pod = self._pods.get(route.endpoint.pod) if route.endpoint.pod is not None else None
        if pod is None or pod.is_on_host:
            return None
        for each in route.slice.ports:
            if (each.name, each.protocol) == (port.name, port.protocol):
                return Target(pod.key, each.number)
        return None

    def _why_not(self, name: str, port: ServicePort, routes: list[Route]) -> str:
        pods = [route.endpoint.pod for route in routes]
        if all(pod is None for pod in pods):
            return f"service {name} has no pods behind it, and without a traffic manager only pods can be reached"
        if any(pod is not None and (found := self._pods.get(pod)) and found.is_on_host for pod in pods):
            return f"the pods of service {name} are on their node's network: a port-forward would end at the node"
        if not any(pod in self._pods for pod in pods):
            return f"the pods of service {name} are not visible"
        return f"no endpoint of service {name} has its port {port.name or port.number}"

    def _choose(
        self, service: Service, port: ServicePort, src: Address, targets: list[Target], now: float
    ) -> Target:
        client = (service.key, src)
        kept = self._kept.get(client)
        if service.affinity and kept is not None and now - kept.used_at < service.affinity:
            for target in targets:
                if target.pod == kept.pod:
                    self._kept[client] = _Kept(target.pod, now)
                    return target
        turn = self._turns.get((service.key, port.name), 0)
        self._turns[service.key, port.name] = turn + 1
        chosen = targets[turn % len(targets)]
        if service.affinity:
            self._kept[client] = _Kept(chosen.pod, now)
        return chosen
