"""Paths, and what discovery tells."""

from __future__ import annotations

from typing import Any

import pytest

from telemagic.demo.kinds import KIND, KINDS, Kinds, Target, of_definition

POOLS = {
    "metadata": {"name": "pools.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Cluster",
        "names": {"plural": "pools", "kind": "Pool", "shortNames": ["po2"]},
        "versions": [{"name": "v1alpha1", "served": False}, {"name": "v2"}],
    },
}


def target(path: str, kinds: Kinds | None = None) -> Target | None:
    return (kinds or Kinds()).target(path.strip("/").split("/"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/pods", Target(KIND["pods"])),
        ("/api/v1/namespaces", Target(KIND["namespaces"])),
        ("/api/v1/namespaces/shop", Target(KIND["namespaces"], "", "shop")),
        ("/api/v1/namespaces/shop/status", Target(KIND["namespaces"], "", "shop", "status")),
        ("/api/v1/namespaces/shop/pods", Target(KIND["pods"], "shop")),
        ("/api/v1/namespaces/shop/pods/one", Target(KIND["pods"], "shop", "one")),
        ("/api/v1/namespaces/shop/pods/one/portforward", Target(KIND["pods"], "shop", "one", "portforward")),
        ("/apis/apps/v1/namespaces/shop/deployments/web", Target(KIND["deployments"], "shop", "web")),
        ("/apis/networking.k8s.io/v1/servicecidrs", Target(KIND["servicecidrs"])),
        ("/api/v1/deployments", None),
        ("/apis/apps/v1/pods", None),
        ("/apis/apps/v1", None),
        ("/api/v1/namespaces/shop/nodes", None),
        ("/api/v1/namespaces/shop/pods/one/log/more", None),
        ("/api/v2/pods", None),
        ("/nonsense", None),
        ("", None),
    ],
)
def test_what_a_path_names(path: str, expected: Target | None) -> None:
    assert target(path) == expected


def test_plurals_of_built_in_kinds_are_unique() -> None:
    assert len(KIND) == len(KINDS)


def test_a_kind_that_is_missing_is_nowhere() -> None:
    kinds = Kinds({"networking.k8s.io/v1/servicecidrs", "v1/secrets"})
    assert target("/apis/networking.k8s.io/v1/servicecidrs", kinds) is None
    assert target("/api/v1/secrets", kinds) is None
    assert "servicecidrs" not in {kind.plural for kind in kinds}
    group = kinds.discovery(["apis", "networking.k8s.io", "v1"])
    assert group is not None
    assert [one["name"] for one in group["resources"]] == ["networkpolicies"]


def test_a_definition_makes_a_kind_while_it_is_there() -> None:
    definitions: list[dict[str, Any]] = []
    kinds = Kinds((), lambda: definitions)
    assert target("/apis/example.com/v2/pools", kinds) is None
    definitions.append(POOLS)
    found = target("/apis/example.com/v2/pools/one", kinds)
    assert found == Target(of_definition(POOLS), "", "one")
    assert kinds.of({"apiVersion": "example.com/v2", "kind": "Pool"}) == of_definition(POOLS)
    groups = kinds.discovery(["apis"])
    assert groups is not None
    assert {"name": "example.com"}.items() <= groups["groups"][-1].items() or "example.com" in {
        group["name"] for group in groups["groups"]
    }
    definitions.clear()
    with pytest.raises(KeyError):
        kinds.of({"apiVersion": "example.com/v2", "kind": "Pool"})


def test_discovery_lists_versions_groups_and_resources() -> None:
    kinds = Kinds()
    assert (kinds.discovery(["api"]) or {})["versions"] == ["v1"]
    names = {group["name"] for group in (kinds.discovery(["apis"]) or {})["groups"]}
    assert {"apps", "rbac.authorization.k8s.io", "authorization.k8s.io"} <= names
    assert (kinds.discovery(["apis", "apps"]) or {})["preferredVersion"]["groupVersion"] == "apps/v1"
    core = {one["name"]: one for one in (kinds.discovery(["api", "v1"]) or {})["resources"]}
    assert core["pods/portforward"]["verbs"] == ["create", "get"]
    assert core["services"]["shortNames"] == ["svc"]
    reviews = {
        one["kind"] for one in (kinds.discovery(["apis", "authorization.k8s.io", "v1"]) or {})["resources"]
    }
    assert reviews == {"SelfSubjectAccessReview", "SelfSubjectRulesReview"}
    for path in (["apis", "nonsense"], ["apis", "apps", "v2"], ["api", "v2"]):
        assert kinds.discovery(path) is None


def test_messages_name_a_resource_with_its_group() -> None:
    assert (KIND["pods"].qualified, KIND["deployments"].qualified) == ("pods", "deployments.apps")


def test_what_cannot_run_here_cannot_be_made_here() -> None:
    for plural in ("replicasets", "statefulsets", "daemonsets"):
        assert "create" not in KIND[plural].verbs
        assert "patch" not in KIND[plural].verbs
