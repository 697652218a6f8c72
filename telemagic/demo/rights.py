"""The users of a demo cluster, and the roles that say what each may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.kinds import RBAC
from telemagic.demo.rbac import AUTHENTICATED, User

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telemagic.demo.kinds import Kind

Json = dict[str, Any]
ADMIN: Final = User("demo-user")
VIEWER: Final = User("demo-viewer")
NAMESPACED: Final = User("demo-namespaced")
KUBECONFIGS: Final = {
    "kubeconfig": ADMIN,
    "viewer.kubeconfig": VIEWER,
    "namespaced.kubeconfig": NAMESPACED,
}
MANAGER_NAMESPACE: Final = "telemagic"
MANAGER_ACCOUNT: Final = "telemagic-manager"
_V1: Final = f"{RBAC}/v1"
_REVIEWS: Final = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
_READ: Final = ("get", "list", "watch")
_FORWARD: Final = {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}


def objects(kinds: Iterable[Kind], namespace: str, *, has_manager: bool) -> list[Json]:
    """Return the roles and bindings that a demo cluster starts with.

    Parameters
    ----------
    kinds
        What a viewer may look at.
    namespace
        The shop's.
    has_manager
        Whether there is a manager, with its namespace and its service account.
    """
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        groups.setdefault(kind.group, []).append(kind.plural)
    groups[""].append("pods/log")
    found = [
        _cluster_role("cluster-admin", [_rule(["*"], ["*"], ["*"])]),
        _cluster_role("view", [_rule([group], plurals, _READ) for group, plurals in groups.items()]),
        _cluster_role("system:basic-user", [_rule(["authorization.k8s.io"], _REVIEWS, ["create"])]),
        _cluster_binding("system:basic-user", "system:basic-user", {"kind": "Group", "name": AUTHENTICATED}),
        _cluster_binding("cluster-admin", "cluster-admin", {"kind": "Group", "name": "system:masters"}),
        _cluster_binding("demo-admin", "cluster-admin", _user(ADMIN)),
        _cluster_binding("demo-viewer", "view", _user(VIEWER)),
        _role("demo-namespaced", namespace, _NAMESPACED_RULES),
        _binding("demo-namespaced", namespace, _user(NAMESPACED)),
    ]
    if has_manager:
        account = {"kind": "ServiceAccount", "name": MANAGER_ACCOUNT, "namespace": MANAGER_NAMESPACE}
        own = [_rule([""], ["pods"], ["get", "list"]), _FORWARD]
        found += [
            _role("demo-namespaced", MANAGER_NAMESPACE, own),
            _binding("demo-namespaced", MANAGER_NAMESPACE, _user(NAMESPACED)),
            _cluster_role(MANAGER_ACCOUNT, _MANAGER_RULES),
            _cluster_binding(MANAGER_ACCOUNT, MANAGER_ACCOUNT, account),
        ]
    return found


def _rule(groups: Sequence[str], resources: Sequence[str], verbs: Sequence[str]) -> Json:
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


_NAMESPACED_RULES: Final = [
    _rule([""], ["pods", "services", "endpoints"], _READ),
    _rule(["discovery.k8s.io"], ["endpointslices"], _READ),
    _FORWARD,
]
# What tells a manager of its cluster's networks, in all the kinds of clusters there are.
_MANAGER_RULES: Final = [
    _rule([""], ["namespaces", "nodes", "pods", "services", "endpoints", "configmaps"], _READ),
    _rule(["discovery.k8s.io"], ["endpointslices"], _READ),
    _rule(["networking.k8s.io"], ["servicecidrs"], _READ),
    _rule(["crd.projectcalico.org"], ["ippools"], _READ),
    _rule(["cilium.io"], ["ciliumnodes", "ciliumpodippools"], _READ),
    _rule(["config.openshift.io"], ["networks"], _READ),
    _rule(["acn.azure.com"], ["nodenetworkconfigs"], _READ),
    _rule(["crd.k8s.amazonaws.com"], ["eniconfigs"], _READ),
]


def _user(user: User) -> Json:
    return {"kind": "User", "apiGroup": RBAC, "name": user.name}


def _cluster_role(name: str, rules: list[Json]) -> Json:
    return {"apiVersion": _V1, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}


def _role(name: str, namespace: str, rules: list[Json]) -> Json:
    return {
        "apiVersion": _V1,
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": rules,
    }


def _cluster_binding(name: str, role: str, subject: Json) -> Json:
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    return {
        "apiVersion": _V1,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": reference,
        "subjects": [subject],
    }


def _binding(name: str, namespace: str, subject: Json) -> Json:
    reference = {"apiGroup": RBAC, "kind": "Role", "name": name}
    return {
        "apiVersion": _V1,
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": reference,
        "subjects": [subject],
    }
