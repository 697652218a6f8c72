"""Access control, by the rules of kubernetes pkg/registry/rbac/validation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemagic.demo import rbac
from telemagic.demo.rbac import Attributes, Authorizer, Rule, User

if TYPE_CHECKING:
    from collections.abc import Sequence

ALICE = User("alice", ("team", rbac.AUTHENTICATED))
BOB = User("bob")
ROBOT = rbac.service_account("shop", "robot")
GET_PODS = Attributes("get", "", "pods", namespace="shop", name="one")


def role(name: str, *rules: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "rules": list(rules),
    }


def binding(
    name: str, kind: str, role_name: str, *subjects: dict[str, str], namespace: str = ""
) -> dict[str, Any]:
    return {
        **role(name, namespace=namespace),
        "roleRef": {"kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


def user(name: str) -> dict[str, str]:
    return {"kind": "User", "name": name}


def rule(verbs: str, groups: str, resources: str, names: str = "") -> dict[str, Any]:
    """Write a rule with its parts separated by spaces; the core group is `core`."""
    found = {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
    }
    return found | ({"resourceNames": names.split()} if names else {})


def authorizer(**objects: list[dict[str, Any]]) -> Authorizer:
    return Authorizer(lambda plural: objects.get(plural, []))


def everywhere(*rules: dict[str, Any], subject: dict[str, str] | None = None) -> Authorizer:
    return authorizer(
        clusterroles=[role("r", *rules)],
        clusterrolebindings=[binding("b", "ClusterRole", "r", subject or user("alice"))],
    )


def in_shop(*rules: dict[str, Any], subject: dict[str, str] | None = None) -> Authorizer:
    return authorizer(
        roles=[role("r", *rules, namespace="shop")],
        rolebindings=[binding("b", "Role", "r", subject or user("alice"), namespace="shop")],
    )


# --- one rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "asked", "expected"),
    [
        (rule("get", "core", "pods"), GET_PODS, True),
        (rule("get list", "core apps", "nodes pods"), GET_PODS, True),
        (rule("list", "core", "pods"), GET_PODS, False),
        (rule("get", "apps", "pods"), GET_PODS, False),
        (rule("get", "core", "nodes"), GET_PODS, False),
        (rule("*", "*", "*"), GET_PODS, True),
        (rule("*", "core", "pods"), replace(GET_PODS, verb="anything"), True),
        (rule("get", "*", "pods"), replace(GET_PODS, group="metrics.k8s.io"), True),
        (rule("get", "core", "*"), replace(GET_PODS, resource="nodes"), True),
        ({}, GET_PODS, False),
        ({"verbs": ["get"], "apiGroups": None, "resources": ["pods"]}, GET_PODS, False),
    ],
)
def test_a_rule_allows_what_all_of_its_parts_do(
    written: dict[str, Any], asked: Attributes, expected: bool
) -> None:
    assert Rule.of(written).allows(asked) is expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("pods/portforward", True),
        ("*", True),
        ("*/portforward", True),
        ("pods", False),
        ("pods/*", False),
        ("*/log", False),
        ("portforward", False),
    ],
)
def test_a_subresource_is_a_resource_of_its_own(resources: str, expected: bool) -> None:
    asked = replace(GET_PODS, subresource="portforward")
    assert Rule.of(rule("get", "core", resources)).allows(asked) is expected


def test_a_rule_for_a_subresource_says_nothing_of_the_resource() -> None:
    assert not Rule.of(rule("get", "core", "pods/log")).allows(GET_PODS)
    assert not Rule.of(rule("get", "core", "*/log")).allows(GET_PODS)


def test_a_rule_with_names_is_for_those_objects_alone() -> None:
    named = Rule.of(rule("get list", "core", "pods", "one two"))
    assert named.allows(GET_PODS)
    assert not named.allows(replace(GET_PODS, name="three"))
    assert not named.allows(replace(GET_PODS, verb="list", name="")), "a list names none"


# --- bindings ----------------------------------------------------------------------------------------------------


def test_nobody_may_do_anything_without_a_binding() -> None:
    assert not authorizer(clusterroles=[role("r", rule("*", "*", "*"))]).allows(ALICE, GET_PODS)


def test_a_cluster_role_binding_counts_everywhere() -> None:
    found = everywhere(rule("get", "core", "pods"))
    for namespace in ("shop", "other", ""):
        assert found.allows(ALICE, replace(GET_PODS, namespace=namespace))
    assert not found.allows(BOB, GET_PODS)


def test_a_role_binding_counts_in_its_own_namespace() -> None:
    found = in_shop(rule("*", "*", "*"))
    assert found.allows(ALICE, GET_PODS)
    assert not found.allows(ALICE, replace(GET_PODS, namespace="other"))
    assert not found.allows(ALICE, replace(GET_PODS, namespace="")), "nothing at the cluster scope"
    assert not found.allows(ALICE, Attributes("list", "", "nodes"))


def test_a_role_binding_may_give_a_cluster_role_in_its_namespace() -> None:
    found = authorizer(
        clusterroles=[role("view", rule("get", "core", "pods"))],
        rolebindings=[binding("b", "ClusterRole", "view", user("alice"), namespace="shop")],
    )
    assert found.allows(ALICE, GET_PODS)
    assert not found.allows(ALICE, replace(GET_PODS, namespace="other"))


def test_a_role_of_another_namespace_is_not_meant() -> None:
    found = authorizer(
        roles=[role("r", rule("*", "*", "*"), namespace="other")],
        rolebindings=[binding("b", "Role", "r", user("alice"), namespace="shop")],
    )
    assert not found.allows(ALICE, GET_PODS)


def test_a_binding_to_a_role_that_is_not_there_gives_nothing() -> None:
    assert not authorizer(clusterrolebindings=[binding("b", "ClusterRole", "gone", user("alice"))]).allows(
        ALICE, GET_PODS
    )


@pytest.mark.parametrize(
    ("subject", "who", "expected"),
    [
        (user("alice"), ALICE, True),
        (user("alice"), BOB, False),
        ({"kind": "Group", "name": "team"}, ALICE, True),
        ({"kind": "Group", "name": "team"}, BOB, False),
        ({"kind": "Group", "name": "alice"}, ALICE, False),
        ({"kind": "Group", "name": "system:authenticated"}, BOB, True),
        ({"kind": "Group", "name": "system:authenticated"}, ROBOT, True),
        ({"kind": "Group", "name": "system:serviceaccounts"}, ROBOT, True),
        ({"kind": "Group", "name": "system:serviceaccounts"}, ALICE, False),
        ({"kind": "Group", "name": "system:serviceaccounts:shop"}, ROBOT, True),
        ({"kind": "Group", "name": "system:serviceaccounts:other"}, ROBOT, False),
        ({"kind": "ServiceAccount", "name": "robot", "namespace": "shop"}, ROBOT, True),
        ({"kind": "ServiceAccount", "name": "robot", "namespace": "other"}, ROBOT, False),
        ({"kind": "ServiceAccount", "name": "other", "namespace": "shop"}, ROBOT, False),
        ({"kind": "ServiceAccount", "name": "robot"}, ROBOT, False),
        (user("system:serviceaccount:shop:robot"), ROBOT, True),
        ({"kind": "Robot", "name": "robot"}, ROBOT, False),
        ({}, ALICE, False),
    ],
)
def test_whom_a_subject_means(subject: dict[str, str], who: User, expected: bool) -> None:
    assert everywhere(rule("*", "*", "*"), subject=subject or {"kind": ""}).allows(who, GET_PODS) is expected


def test_a_service_account_without_a_namespace_is_of_the_bindings() -> None:
    found = in_shop(rule("*", "*", "*"), subject={"kind": "ServiceAccount", "name": "robot"})
    assert found.allows(ROBOT, GET_PODS)
    assert not found.allows(rbac.service_account("other", "robot"), GET_PODS)


def test_masters_may_do_everything_without_a_role() -> None:
    master = User("root", (rbac.MASTERS,))
    assert authorizer().allows(master, GET_PODS)
    assert authorizer().rules(master, "shop")[0].allows(Attributes("delete", "x", "y", "z"))


def test_what_allows_something_is_told() -> None:
    assert in_shop(rule("get", "core", "pods")).why(ALICE, GET_PODS) == (
        'RBAC: allowed by RoleBinding "b/shop" of Role "r" to User "alice"'
    )
    assert everywhere(rule("get", "core", "pods")).why(ALICE, GET_PODS) == (
        'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to User "alice"'
    )
    assert in_shop().why(ALICE, GET_PODS) is None


def test_the_rules_in_a_namespace_are_those_of_both_kinds_of_bindings() -> None:
    found = authorizer(
        clusterroles=[role("wide", rule("get", "core", "nodes"))],
        clusterrolebindings=[binding("w", "ClusterRole", "wide", user("alice"), user("alice"))],
        roles=[role("r", rule("list", "core", "pods", "one"), namespace="shop")],
        rolebindings=[binding("b", "Role", "r", user("alice"), namespace="shop")],
    )
    assert [one.json for one in found.rules(ALICE, "shop")] == [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["one"]},
    ]
    assert len(found.rules(ALICE, "other")) == 1
    assert found.rules(BOB, "shop") == []


# --- giving rights away ------------------------------------------------------------------------------------------


def lacking(own: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    missing = in_shop(*own).lacking(ALICE, map(Rule.of, wanted), "shop")
    return [one.json for one in missing]


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ([rule("get list", "core", "pods")], [rule("get", "core", "pods")]),
        ([rule("get", "core", "pods"), rule("list", "core", "pods")], [rule("get list", "core", "pods")]),
        ([rule("*", "*", "*")], [rule("*", "*", "*"), rule("get", "core", "pods/log", "one")]),
        ([rule("get", "core", "*/log")], [rule("get", "core", "pods/log")]),
        ([rule("get", "core", "pods")], [rule("get", "core", "pods", "one")]),
        ([rule("get", "core", "pods", "one two")], [rule("get", "core", "pods", "two")]),
        ([], []),
    ],
)
def test_who_has_rights_may_give_them(own: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert lacking(own, wanted) == []


@pytest.mark.parametrize(
    ("own", "wanted", "missing"),
    [
        ([], rule("get", "core", "pods"), rule("get", "core", "pods")),
        ([rule("get", "core", "pods")], rule("get list", "core", "pods"), rule("list", "core", "pods")),
        ([rule("get", "core", "pods")], rule("*", "core", "pods"), rule("*", "core", "pods")),
        ([rule("get", "core", "pods")], rule("get", "core apps", "pods"), rule("get", "apps", "pods")),
        ([rule("get", "core", "pods", "one")], rule("get", "core", "pods"), rule("get", "core", "pods")),
        ([rule("get", "core", "pods", "one")], rule("get", "core", "pods", "one two"), rule("get", "core", "pods", "two")),
        ([rule("get", "core", "pods")], rule("get", "core", "pods/log"), rule("get", "core", "pods/log")),
    ],
)  # fmt: skip
def test_who_lacks_a_right_may_not_give_it(
    own: list[dict[str, Any]], wanted: dict[str, Any], missing: dict[str, Any]
) -> None:
    assert lacking(own, [wanted]) == [missing]


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (GET_PODS, 'User "alice" cannot get resource "pods" in API group "" in the namespace "shop"'),
        (
            Attributes("list", "apps", "deployments"),
            'User "alice" cannot list resource "deployments" in API group "apps" at the cluster scope',
        ),
        (
            replace(GET_PODS, verb="create", subresource="portforward"),
            'User "alice" cannot create resource "pods/portforward" in API group "" in the namespace "shop"',
        ),
    ],
)
def test_a_refusal_is_worded_as_the_real_servers(asked: Attributes, words: str) -> None:
    assert rbac.refusal(ALICE, asked) == words


# --- any rules ---------------------------------------------------------------------------------------------------

VERBS, GROUPS, RESOURCES = ("get", "list"), ("", "apps"), ("pods", "pods/log", "nodes")
NAMES = ("one", "two")


def some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from((*values, "*")), min_size=1, max_size=2, unique=True).map(tuple)


RULES = st.builds(
    Rule,
    some(VERBS),
    some(GROUPS),
    some((*RESOURCES, "*/log")),
    st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
)
ASKED = st.builds(
    lambda verb, group, resource, name: Attributes(
        verb, group, resource.partition("/")[0], resource.partition("/")[2], "shop", name
    ),
    st.sampled_from((*VERBS, "delete")),
    st.sampled_from(GROUPS),
    st.sampled_from(RESOURCES),
    st.sampled_from((*NAMES, "")),
)


@given(RULES, RULES, ASKED)
def test_a_rule_that_covers_another_allows_all_that_it_does(
    one: Rule, other: Rule, asked: Attributes
) -> None:
    if all(one.covers(single) for single in other.single()) and other.allows(asked):
        assert one.allows(asked)


@given(RULES, ASKED)
def test_a_rule_allows_what_one_of_its_single_rules_does(one: Rule, asked: Attributes) -> None:
    assert one.allows(asked) is any(single.allows(asked) for single in one.single())


@given(st.lists(RULES, max_size=3), ASKED)
def test_rights_that_are_asked_for_one_by_one_are_those_that_are_listed(
    rules: list[Rule], asked: Attributes
) -> None:
    found = in_shop(*(one.json for one in rules))
    assert found.allows(ALICE, asked) is any(one.allows(asked) for one in found.rules(ALICE, "shop"))
