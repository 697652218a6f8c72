"""What a demo cluster has from the start, as API objects: the shop, the cluster's name server and the manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import programs

if TYPE_CHECKING:
    from telemagic.demo.plan import Address, AddressPlan

Json = dict[str, Any]
SILENT: Final = "demo.telemagic/silent"  # annotation of services that lose packets instead of refusing them
# The first pods' numbers in the address plan; later ones get the next that is free.
POD_NUMBERS: Final = {"coredns": 2, "traffic-manager": 3, "catalog": 11, "postgres": 12}
_Ports = tuple[tuple[str, int, str], ...]

_DNS: Final = (("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"))
_HTTP: Final = (("http", 8000, "TCP"),)
_TALLY: Final = (("tally", 7000, "TCP"),)
_POSTGRES: Final = (("postgresql", 5432, "TCP"),)
_MANAGER: Final = (
    ("grpc", 8081, "TCP"),
    ("carrier", 8082, "TCP"),
    ("carrier-tls", 8083, "TCP"),
    ("carrier-tcp", 8084, "TCP"),
)
_MANAGER_ARGS: Final = (
    *("--grpc-port", "8081", "--carrier-port", "8082"),
    *("--carrier-listen", "tls://0.0.0.0:8083", "--carrier-listen", "tcp://0.0.0.0:8084"),
)


def deployments(*, has_manager: bool) -> list[Json]:
    """Return the Deployments that a cluster starts with."""
    found = [
        _deployment("postgres", "shop", programs.POSTGRES_IMAGE, _POSTGRES),
        _deployment("catalog", "shop", programs.CATALOG_IMAGE, (*_HTTP, *_TALLY)),
        _deployment(
            "coredns", "kube-system", programs.NAMESERVER_IMAGE, _DNS, labels={"k8s-app": "kube-dns"}
        ),
    ]
    if has_manager:
        found.append(
            _deployment(
                "traffic-manager",
                "telemagic",
                programs.MANAGER_IMAGE,
                _MANAGER,
                labels={"app.kubernetes.io/name": "telemagic-manager"},
                arguments=_MANAGER_ARGS,
                account="telemagic-manager",
            )
        )
    return found


def services(plan: AddressPlan) -> list[Json]:
    """Return the Services that a cluster starts with."""
    found = [
        _service("kubernetes", "default", plan.service(1)[:1], (("https", 443, "TCP"),)),
        _service("kube-dns", "kube-system", plan.service(10), _DNS, "coredns"),
        _service("postgres", "shop", plan.service(20), _POSTGRES, "postgres"),
        _service("catalog", "shop", plan.service(21), _HTTP, "catalog"),
        _service("catalog-pods", "shop", (), _HTTP, "catalog", versions=plan.versions),
        _service("tally", "shop", plan.service(22), _TALLY, "catalog"),
        _silent(_service("blackhole", "shop", plan.service(66)[:1], (("http", 80, "TCP"),), "blackhole")),
    ]
    if plan.ipv6:
        silent = _service(
            "blackhole-v6", "shop", plan.service(67)[1:], (("http", 80, "TCP"),), "blackhole-v6"
        )
        found.append(_silent(silent))
    return found


def _deployment(
    name: str,
    namespace: str,
    image: str,
    ports: _Ports,
    *,
    labels: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    account: str = "default",
) -> Json:
    own = {"app": name, "app.kubernetes.io/name": name, **(labels or {})}
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        **({"args": list(arguments)} if arguments else {}),
        "ports": [
            {"name": title, "containerPort": port, "protocol": protocol} for title, port, protocol in ports
        ],
        "resources": {},
    }
    pod = {
        "containers": [container],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 30,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": own},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": own}, "spec": pod},
            "strategy": {"type": "RollingUpdate"},
        },
    }


def _service(
    name: str,
    namespace: str,
    addresses: tuple[Address, ...],
    ports: _Ports,
    app: str = "",
    versions: tuple[int, ...] = (),
) -> Json:
    """Return a Service; without an address it is headless, without an app nothing here is behind it."""
    texts = [str(address) for address in addresses] or ["None"]
    families = [f"IPv{version}" for version in versions or [address.version for address in addresses]]
    spec: Json = {
        "type": "ClusterIP",
        "clusterIP": texts[0],
        "clusterIPs": texts,
        "ipFamilies": families,
        "ipFamilyPolicy": "SingleStack" if len(families) == 1 else "RequireDualStack",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [
            {"name": title, "port": port, "targetPort": port, "protocol": protocol}
            for title, port, protocol in ports
        ],
    }
    if app:
        spec["selector"] = {"app": app}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app or name}},
        "spec": spec,
        "status": {"loadBalancer": {}},
    }


def _silent(service: Json) -> Json:
    service["metadata"]["annotations"] = {SILENT: "true"}
    return service
