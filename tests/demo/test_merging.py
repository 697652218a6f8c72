"""Patches: RFC 7396's own examples, and applies that are merged by name and change nothing the second time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemagic.demo.merging import apply, merge_patch


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_rfc_7396_appendix_a_says(target: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy((target, patch))
    assert merge_patch(target, patch) == expected
    assert (target, patch) == before


def test_an_apply_keeps_what_it_does_not_mention() -> None:
    target = {"metadata": {"name": "x", "uid": "1", "labels": {"a": "1"}}, "status": {"ready": 1}}
    wanted = {"metadata": {"name": "x", "labels": {"b": "2"}}}
    assert apply(target, wanted) == {
        "metadata": {"name": "x", "uid": "1", "labels": {"a": "1", "b": "2"}},
        "status": {"ready": 1},
    }


def test_containers_are_told_apart_by_name() -> None:
    target = [{"name": "one", "image": "a", "resources": {}}, {"name": "two", "image": "b"}]
    wanted = [{"name": "two", "image": "c"}, {"name": "three", "image": "d"}]
    assert apply(target, wanted) == [
        {"name": "one", "image": "a", "resources": {}},
        {"name": "two", "image": "c"},
        {"name": "three", "image": "d"},
    ]


def test_ports_are_told_apart_by_number_and_protocol() -> None:
    target = [
        {"port": 53, "protocol": "UDP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns-tcp"},
    ]
    assert apply(target, [{"port": 53, "targetPort": 5353}]) == [
        {"port": 53, "protocol": "UDP", "name": "dns"},
        {"port": 53, "protocol": "TCP", "name": "dns-tcp", "targetPort": 5353},
    ]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (["get"], ["list"]),
        ([{"verbs": ["get"]}], [{"verbs": ["list"]}]),
        ([{"kind": "User", "name": "a"}], [{"kind": "Group", "name": "a"}]),
        ([1], [{"name": "a"}]),
    ],
)
def test_other_lists_are_replaced(target: list[Any], wanted: list[Any]) -> None:
    assert apply(target, wanted) == wanted


def test_null_takes_away_and_directives_are_left_out() -> None:
    target = {"spec": {"a": 1, "b": 2}}
    wanted = {"spec": {"a": None, "$setElementOrder/b": ["x"], "$retainKeys": ["b"]}}
    assert apply(target, wanted) == {"spec": {"b": 2}}
    assert apply(None, {"a": {"b": None}}) == {"a": {}}


def test_an_empty_list_takes_no_named_item_away() -> None:
    assert apply({"env": [{"name": "a"}], "args": ["x"]}, {"env": [], "args": []}) == {
        "env": [{"name": "a"}],
        "args": [],
    }


JSON = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: (
        st.dictionaries(st.sampled_from(["name", "port", "kind", "a"]), inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("xyz")}, optional={"v": inner}), max_size=3)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_applying_twice_is_applying_once(target: Any, wanted: Any) -> None:
    once = apply(target, wanted)
    assert apply(once, wanted) == once


@given(JSON, JSON)
def test_a_merge_patch_twice_is_one(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
