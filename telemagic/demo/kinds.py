"""The kinds of objects that the demo's API server has: their names in paths, and what discovery tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_ALL: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NOT_MADE: Final = ("delete", "deletecollection", "get", "list", "watch")
RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, as discovery shows it."""

    group_version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.group_version.rpartition("/")[0]

    @property
    def qualified(self) -> str:
        """The resource with its group, as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def resource(self) -> dict[str, Any]:
        """The entry in an APIResourceList."""
        entry: dict[str, Any] = {
            "name": self.plural,
            "singularName": self.singular or self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": list(self.verbs),
        }
        if self.short:
            entry["shortNames"] = list(self.short)
        if self.plural in ("pods", "services", "deployments", "replicasets"):
            entry["categories"] = ["all"]
        return entry


KINDS: Final = (
    Kind("v1", "namespaces", "Namespace", namespaced=False, short=("ns",)),
    Kind("v1", "nodes", "Node", namespaced=False, short=("no",)),
    Kind("v1", "pods", "Pod", short=("po",)),
    Kind("v1", "services", "Service", short=("svc",)),
    Kind("v1", "endpoints", "Endpoints", singular="endpoints", short=("ep",)),
    Kind("v1", "events", "Event", short=("ev",)),
    Kind("v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("v1", "secrets", "Secret"),
    Kind("v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("apps/v1", "deployments", "Deployment", short=("deploy",)),
    # A cluster that cannot run these must not take them.
    Kind("apps/v1", "replicasets", "ReplicaSet", short=("rs",), verbs=_NOT_MADE),
    Kind("apps/v1", "statefulsets", "StatefulSet", short=("sts",), verbs=_NOT_MADE),
    Kind("apps/v1", "daemonsets", "DaemonSet", short=("ds",), verbs=_NOT_MADE),
    Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
    Kind("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",)),
    Kind("coordination.k8s.io/v1", "leases", "Lease"),
    Kind(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        short=("crd", "crds"),
    ),
    Kind(f"{RBAC}/v1", "roles", "Role"),
    Kind(f"{RBAC}/v1", "rolebindings", "RoleBinding"),
    Kind(f"{RBAC}/v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind(f"{RBAC}/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
)
KIND: Final = {kind.plural: kind for kind in KINDS}  # of the built-in ones, whose plurals are unique


@dataclass(frozen=True, slots=True)
class Target:
    """What a request path names."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def of_definition(item: dict[str, Any]) -> Kind:
    """Return the kind that a CustomResourceDefinition defines, in the first version that it serves."""
    spec = item["spec"]
    names = spec["names"]
    versions = spec["versions"]
    version = next((one["name"] for one in versions if one.get("served", True)), versions[0]["name"])
    return Kind(
        f"{spec['group']}/{version}",
        names["plural"],
        names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular", ""),
        short=tuple(names.get("shortNames") or ()),
    )


class Kinds:
    """The kinds of one cluster, and its discovery documents.

    Parameters
    ----------
    missing
        What this cluster does not have, as group/version/plural.
    definitions
        Gives the CustomResourceDefinitions there are at the moment.
    """

    def __init__(
        self,
        missing: Collection[str] = (),
        definitions: Callable[[], Iterable[dict[str, Any]]] = tuple,
    ) -> None:
        self._built_in = tuple(kind for kind in KINDS if f"{kind.group_version}/{kind.plural}" not in missing)
        self._definitions = definitions

    def __iter__(self) -> Iterator[Kind]:
        yield from self._built_in
        yield from map(of_definition, self._definitions())

    def of(self, item: dict[str, Any]) -> Kind:
        """Return the kind of an object.

        Raises
        ------
        KeyError
            There is none of that name here.
        """
        named = (item.get("apiVersion"), item.get("kind"))
        for kind in self:
            if (kind.group_version, kind.kind) == named:
                return kind
        raise KeyError(named)

    def target(self, parts: list[str]) -> Target | None:
        """Take a path apart: api/v1/… or apis/GROUP/VERSION/…, then [namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]."""
        depth = {"api": 2, "apis": 3}.get(parts[0], len(parts))
        group_version, rest = "/".join(parts[1:depth]), parts[depth:]
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        for kind in self:
            if not rest or (kind.group_version, kind.plural) != (group_version, rest[0]) or len(rest) > 3:
                continue
            if namespace and not kind.namespaced:
                return None
            _, name, subresource, *_ = (*rest, "", "")
            return Target(kind, namespace, name, subresource)
        return None

    def discovery(self, parts: list[str]) -> dict[str, Any] | None:
        """Answer a discovery path; None if it is none."""
        groups = self._groups()
        match parts:
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
            case ["apis"]:
                listed = [_group(name, versions) for name, versions in groups.items()]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["api", "v1"]:
                return self._resources("v1")
            case ["apis", group] if group in groups:
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, groups[group])}
            case ["apis", group, version] if version in groups.get(group, ()):
                return self._resources(f"{group}/{version}")
        return None

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for group_version in dict.fromkeys(
            (*(kind.group_version for kind in self), "authorization.k8s.io/v1")
        ):
            group, _, version = group_version.rpartition("/")
            if group:
                groups.setdefault(group, []).append(version)
        return groups

    def _resources(self, group_version: str) -> dict[str, Any]:
        resources = [kind.resource for kind in self if kind.group_version == group_version]
        if group_version == "v1":
            for name, kind, verbs in _SUBRESOURCES:
                resources.append(
                    {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": list(verbs)}
                )
        if group_version == "authorization.k8s.io/v1":
            resources += [
                Kind(group_version, f"{kind.lower()}s", kind, namespaced=False, verbs=("create",)).resource
                for kind in ("SelfSubjectAccessReview", "SelfSubjectRulesReview")
            ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": resources,
        }


_SUBRESOURCES: Final = (
    ("pods/log", "Pod", ("get",)),
    ("pods/portforward", "PodPortForwardOptions", ("create", "get")),
)


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}
