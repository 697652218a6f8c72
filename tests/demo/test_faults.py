"""Faults as requests feel them, and what they may be asked with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from telemagic.commands import demo as command
from telemagic.demo import breaking, faults, likeness
from telemagic.demo.faults import Faults
from telemagic.demo.kinds import KIND, Target
from telemagic.demo.rbac import Attributes, User
from telemagic.demo.refusals import Refused

LIST_NODES = Attributes("list", "", "nodes")
FORWARD = Attributes("get", "", "pods", "portforward", "shop", "one")
ALICE = User("alice")


@pytest.mark.parametrize(
    ("verb", "resource", "hit"),
    [
        ("list", "nodes", True),
        ("*", "nodes", True),
        ("list", "*", True),
        ("*", "*", True),
        ("get", "nodes", False),
        ("list", "pods", False),
        ("list", "node", False),
    ],
)
def test_what_is_forbidden_to_everybody(verb: str, resource: str, hit: bool) -> None:
    found = Faults()
    found.forbid(verb, resource)
    assert found.is_forbidden(LIST_NODES) is hit


def test_a_subresource_is_forbidden_by_its_own_name() -> None:
    found = Faults()
    found.forbid("get", "pods")
    assert not found.is_forbidden(FORWARD)
    found.forbid("get", "pods/portforward")
    assert found.is_forbidden(FORWARD)
    found.allow("get", "pods/portforward")
    assert not found.is_forbidden(FORWARD)


def test_it_reads_as_if_no_role_allowed_it() -> None:
    found = Faults()
    found.forbid("list", "nodes")
    with pytest.raises(Refused) as caught:
        found.check(Target(KIND["nodes"]), LIST_NODES, ALICE)
    assert caught.value.code == 403
    assert caught.value.message == (
        'nodes is forbidden: User "alice" cannot list resource "nodes" in API group "" at the cluster scope'
    )


def test_clearing_ends_everything() -> None:
    found = Faults()
    found.page = found.truncated = found.no_upgrade = True
    found.expired.add("t")
    found.passage.switch("carriers-frozen", is_on=True)
    found.forbid("*", "*")
    found.clear()
    found.check(Target(KIND["nodes"]), LIST_NODES, ALICE)
    found.check_upgrade()
    assert (found.page, found.shorten(b"1234"), found.expired) == (False, b"1234", set())
    assert found.passage.faults == set()


def test_half_of_an_answer_gets_through_and_no_websocket() -> None:
    found = Faults()
    found.truncated = found.no_upgrade = True
    assert found.shorten(b'{"a": 1}') == b'{"a"'
    with pytest.raises(Refused) as caught:
        found.check_upgrade()
    assert caught.value.code == 502


@pytest.mark.parametrize(
    ("name", "options", "seconds"),
    [
        ("api-stop", {}, 0),
        ("api-stop", {"seconds": 1}, 1),
        ("api-html", {"seconds": 0.5}, 0.5),
        ("forbid", {"verb": "get", "resource": "*", "seconds": 2}, 2),
        ("pod-deleted", {"app": "web"}, 0),
        ("token-renewed", {}, 0),
        ("manager-frozen", {"seconds": 3}, 3),
        ("carriers-frozen", {"seconds": 1.5}, 1.5),
        ("carriers-slow", {}, 0),
        ("carriers-cut", {}, 0),
        ("clear", {}, 0),
    ],
)
def test_right_options(name: str, options: dict[str, Any], seconds: float) -> None:
    assert breaking.check(name, options) == seconds


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nonsense", {}, "no fault 'nonsense'; there are: api-stop"),
        ("forbid", {"verb": "get"}, "needs verb and resource"),
        ("forbid", {"verb": "get", "resource": ""}, "needs verb and resource"),
        ("forbid", {"verb": "get", "resource": 7}, "needs verb and resource"),
        ("pod-deleted", {}, "needs app"),
        ("pod-deleted", {"app": "x", "seconds": 1}, "has no seconds"),
        ("clear", {"seconds": 1}, "has no seconds"),
        ("carriers-cut", {"seconds": 1}, "has no seconds"),
        ("carriers-frozen", {"app": "x"}, "has no app"),
        ("api-stop", {"verb": "get"}, "has no verb"),
        ("api-stop", {"seconds": -1}, "-1 is no number of seconds"),
        ("api-stop", {"seconds": float("inf")}, "no number of seconds"),
        ("api-stop", {"seconds": float("nan")}, "no number of seconds"),
        ("api-stop", {"seconds": "1"}, "no number of seconds"),
    ],
)
def test_wrong_options_are_explained(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        breaking.check(name, options)


def test_every_fault_and_every_kind_of_cluster_is_documented() -> None:
    for name in faults.NAMES:
        assert f"\n{name} " in (faults.__doc__ or ""), name
        assert re.search(rf"^ +{name} ", command.DETAIL, re.MULTILINE), name
    assert command.KINDS.split(", ") == list(likeness.KINDS)
