"""What is refused as an object, and where the message points."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemagic.demo import validation
from telemagic.demo.kinds import KIND, KINDS, Kind
from telemagic.demo.refusals import Refused
from tests.demo.api_objects import binding, deployment, role, service

DEFINITION = {
    "metadata": {"name": "pools.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Cluster",
        "names": {"plural": "pools", "kind": "Pool"},
        "versions": [{"name": "v1", "served": True}],
    },
}


def changed(item: dict[str, Any], value: object, *path: str | int) -> dict[str, Any]:
    """Return a copy with one value replaced."""
    found = copy.deepcopy(item)
    inner: Any = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return found


def check(plural: str, item: dict[str, Any]) -> None:
    validation.check_shape(KIND[plural], item)
    validation.check(KIND[plural], item)


@pytest.mark.parametrize(
    ("plural", "item"),
    [
        ("deployments", deployment("web")),
        ("services", service("web")),
        ("services", {"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "a.example"}}),
        ("services", {"metadata": {"name": "x"}, "spec": {"clusterIP": "None"}}),
        ("roles", role("r")),
        ("clusterroles", role("system:basic-user")),
        ("clusterroles", {**role("r"), "rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        ("rolebindings", binding("b", namespace="shop")),
        ("configmaps", {"metadata": {"name": "a.b-c"}, "data": {"x": "y"}}),
        ("customresourcedefinitions", DEFINITION),
        ("nodes", {"metadata": {"name": "n"}, "spec": {"podCIDR": 7}}),
    ],
)  # fmt: skip
def test_what_is_right_is_let_through(plural: str, item: dict[str, Any]) -> None:
    check(plural, item)


@pytest.mark.parametrize(
    ("plural", "item", "field"),
    [
        ("services", changed(service("web"), "x", "spec", "ports", 0, "port"), "spec.ports[0].port"),
        ("services", changed(service("web"), True, "spec", "ports", 0, "port"), "spec.ports[0].port"),
        ("services", changed(service("web"), {"a": 1}, "spec", "selector"), "spec.selector.a"),
        ("services", changed(service("web"), "x", "spec", "ports"), "spec.ports"),
        ("services", changed(service("web"), [None], "spec", "ports"), "spec.ports"),
        ("services", {"metadata": {"name": "x"}, "spec": []}, "spec"),
        ("deployments", changed(deployment("web"), 1.5, "spec", "replicas"), "spec.replicas"),
        ("deployments", changed(deployment("web"), "x", "spec", "template"), "spec.template"),
        ("roles", {**role("r"), "rules": [{"verbs": "get"}]}, "rules[0].verbs"),
        ("rolebindings", {**binding("b"), "subjects": ["alice"]}, "subjects[0]"),
        ("configmaps", {"metadata": {"name": 7}}, "metadata.name"),
        ("configmaps", {"metadata": {"name": "x", "labels": {"a": 1}}}, "metadata.labels.a"),
    ],
)
def test_another_type_is_a_bad_request_that_names_the_field(
    plural: str, item: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused) as caught:
        check(plural, item)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    kind = KIND[plural].kind
    assert f"cannot be handled as a {kind}: {field}: " in caught.value.message


@pytest.mark.parametrize(
    ("plural", "item", "field"),
    [
        ("configmaps", {"metadata": {"name": ""}}, "metadata.name"),
        ("configmaps", {"metadata": {"name": "Upper"}}, "metadata.name"),
        ("configmaps", {"metadata": {"name": "a/b"}}, "metadata.name"),
        ("namespaces", {"metadata": {"name": "a.b"}}, "metadata.name"),
        ("namespaces", {"metadata": {"name": "x" * 64}}, "metadata.name"),
        ("services", changed(service("web"), "a.b", "metadata", "name"), "metadata.name"),
        ("roles", role("a/b"), "metadata.name"),
        ("roles", role(".."), "metadata.name"),
        ("services", changed(service("web"), 0, "spec", "ports", 0, "port"), "spec.ports[0].port"),
        ("services", changed(service("web"), [], "spec", "ports"), "spec.ports"),
        ("services", changed(service("web"), "x" * 64, "spec", "ports", 0, "name"), "spec.ports[0].name"),
        ("services", changed(service("web"), [{"port": 1}, {"port": 2}], "spec", "ports"), "spec.ports[0].name"),
        ("services", {"metadata": {"name": "x"}, "spec": {"type": "ExternalName"}}, "spec.externalName"),
        ("deployments", changed(deployment("web"), -1, "spec", "replicas"), "spec.replicas"),
        ("deployments", changed(deployment("web"), {"app": "x"}, "spec", "selector", "matchLabels"), "labels"),
        ("deployments", changed(deployment("web"), {}, "spec", "selector"), "spec.selector"),
        ("deployments", changed(deployment("web"), None, "spec", "template", "spec"), "spec.template.spec.containers"),
        ("deployments", {"metadata": {"name": "x"}}, "spec.selector"),
        ("pods", {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}]}}, "spec.containers[0].image"),
        ("roles", {**role("r"), "rules": [{"verbs": ["get"]}]}, "rules[0].resources"),
        ("roles", {**role("r"), "rules": [{"resources": ["pods"]}]}, "rules[0].verbs"),
        ("clusterrolebindings", binding("b", kind="Role"), "roleRef.kind"),
        ("rolebindings", {**binding("b"), "roleRef": None}, "roleRef.name"),
        ("rolebindings", {**binding("b"), "subjects": [{"kind": "ServiceAccount", "name": "x"}]}, "subjects[0].namespace"),
        ("customresourcedefinitions", changed(DEFINITION, "x", "metadata", "name"), "metadata.name"),
        ("customresourcedefinitions", changed(DEFINITION, "Global", "spec", "scope"), "spec.scope"),
        ("customresourcedefinitions", changed(DEFINITION, [], "spec", "versions"), "spec.versions"),
        ("customresourcedefinitions", changed(DEFINITION, [{}], "spec", "versions"), "spec.versions.name"),
        ("customresourcedefinitions", changed(DEFINITION, {}, "spec", "names"), "spec.names.plural"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named_with_its_field(plural: str, item: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as caught:
        check(plural, item)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert any(field in cause["field"] for cause in caught.value.details["causes"])


def test_several_problems_are_told_at_once() -> None:
    with pytest.raises(Refused) as caught:
        check("deployments", {"metadata": {"name": "X"}, "spec": {}})
    assert caught.value.message.startswith(
        'Deployment.apps "X" is invalid: [metadata.name: Invalid value: "X": '
    )
    assert "spec.selector: Required value" in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ("spec", "rules", "roleRef", "subjects", "containers", "selector", "template", "ports", "names", "versions")
    ),
    st.deferred(lambda: FIELDS | JSON | st.lists(FIELDS, max_size=2)),
    max_size=4,
)  # fmt: skip


@given(st.sampled_from(KINDS), FIELDS)
def test_any_object_is_let_through_or_refused(kind: Kind, fields: dict[str, Any]) -> None:
    item = {**fields, "metadata": {"name": "x"}}
    with contextlib.suppress(Refused):
        validation.check_shape(kind, item)
        validation.check(kind, item)
