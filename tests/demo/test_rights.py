"""The users of a demo cluster, judged by the roles that it starts with."""

from __future__ import annotations

import pytest

from telemagic.demo import rbac, rights
from telemagic.demo.kinds import KIND, Kinds
from telemagic.demo.rbac import Attributes, Authorizer, User
from telemagic.demo.store import Store

MANAGER = rbac.service_account(rights.MANAGER_NAMESPACE, rights.MANAGER_ACCOUNT)


def authorizer(*, has_manager: bool = True) -> Authorizer:
    kinds, store = Kinds(), Store()
    for item in rights.objects(kinds, "shop", has_manager=has_manager):
        store.put(kinds.of(item), item)
    return Authorizer(lambda plural: store.list(KIND[plural]))


def asked(text: str) -> Attributes:
    """Read "VERB GROUP/RESOURCE[/SUBRESOURCE] [NAMESPACE]"; the core group is empty."""
    verb, what, *namespace = text.split()
    group, resource, *subresource = what.split("/")
    return Attributes(verb, group, resource, *(subresource or [""]), *(namespace or [""]))


@pytest.mark.parametrize(
    ("user", "text", "expected"),
    [
        (rights.ADMIN, "delete /nodes", True),
        (rights.ADMIN, "create /pods/portforward shop", True),
        (rights.ADMIN, "escalate rbac.authorization.k8s.io/clusterroles", True),
        (rights.VIEWER, "list /nodes", True),
        (rights.VIEWER, "watch rbac.authorization.k8s.io/clusterroles", True),
        (rights.VIEWER, "get /pods/log shop", True),
        (rights.VIEWER, "list networking.k8s.io/servicecidrs", True),
        (rights.VIEWER, "get /pods/portforward shop", False),
        (rights.VIEWER, "create /services shop", False),
        (rights.VIEWER, "delete /pods shop", False),
        (rights.NAMESPACED, "list /pods shop", True),
        (rights.NAMESPACED, "watch /endpoints shop", True),
        (rights.NAMESPACED, "list discovery.k8s.io/endpointslices shop", True),
        (rights.NAMESPACED, "get /pods/portforward shop", True),
        (rights.NAMESPACED, "create /pods/portforward shop", True),
        (rights.NAMESPACED, "list /pods telemagic", True),
        (rights.NAMESPACED, "create /pods/portforward telemagic", True),
        (rights.NAMESPACED, "watch /pods telemagic", False),
        (rights.NAMESPACED, "list /services telemagic", False),
        (rights.NAMESPACED, "list /configmaps shop", False),
        (rights.NAMESPACED, "create /services shop", False),
        (rights.NAMESPACED, "list /pods", False),
        (rights.NAMESPACED, "list /namespaces", False),
        (rights.NAMESPACED, "get /nodes", False),
        (MANAGER, "list /nodes", True),
        (MANAGER, "list networking.k8s.io/servicecidrs", True),
        (MANAGER, "get /configmaps kube-system", True),
        (MANAGER, "watch discovery.k8s.io/endpointslices", True),
        (MANAGER, "list /secrets", False),
        (MANAGER, "get /pods/portforward shop", False),
        (MANAGER, "create /services shop", False),
        (User("nobody"), "list /pods shop", False),
        (User("nobody"), "create authorization.k8s.io/selfsubjectaccessreviews", True),
        (User("nobody", ()), "create authorization.k8s.io/selfsubjectaccessreviews", False),
    ],
)  # fmt: skip
def test_what_each_user_may(user: User, text: str, expected: bool) -> None:
    assert authorizer().allows(user, asked(text)) is expected


def test_without_a_manager_nobody_has_rights_in_its_namespace() -> None:
    found = authorizer(has_manager=False)
    assert not found.allows(rights.NAMESPACED, asked("list /pods telemagic"))
    assert not found.allows(MANAGER, asked("list /nodes"))
    assert found.allows(rights.NAMESPACED, asked("list /pods shop"))


def test_every_user_has_a_kubeconfig_of_its_own() -> None:
    assert len({user.name for user in rights.KUBECONFIGS.values()}) == len(rights.KUBECONFIGS) == 3
