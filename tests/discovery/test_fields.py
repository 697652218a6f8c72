from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.discovery import fields, questions
from telehelper.discovery.fields import (
    MAX_ENTRIES,
    addresses,
    dicts,
    field,
    items,
    key,
    name,
    networks,
    strings,
    text,
)


@pytest.mark.parametrize(
    "listing", [None, 7, [], {}, {"items": None}, {"items": {}}, {"items": [7, "x", None]}]
)
def test_what_is_no_list_has_no_items(listing: Any) -> None:
    assert items(listing) == []


def test_a_list_is_read_to_a_bound() -> None:
    assert len(items({"items": [{}] * (MAX_ENTRIES + 5)})) == MAX_ENTRIES
    assert len(strings(["x"] * (MAX_ENTRIES + 5))) == MAX_ENTRIES
    assert len(dicts([{}] * (MAX_ENTRIES + 5))) == MAX_ENTRIES


def test_fields_on_a_path() -> None:
    item = {"spec": {"a": {"b": "c"}, "n": 7}}
    assert field(item, "spec", "a", "b") == text(item, "spec", "a", "b") == "c"
    assert field(item, "spec", "n") == 7
    assert (field(item, "spec", "a", "b", "c"), field(7, "x"), text(item, "spec", "n")) == (None, None, "")


def test_names_are_short_and_printable() -> None:
    assert (
        name({"metadata": {"name": "a\x1b[31mb\n" + "c" * 100}})
        == (r"a\x1b[31mb\n" + "c" * 100)[: fields.MAX_NAME]
    )
    assert name({"metadata": {"name": 7}}) == name(None) == ""
    assert key({"metadata": {"name": "a", "namespace": "b"}}) == ("b", "a")
    assert key({}) == ("", "")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.0.0.0/8, fd00::/64", ["10.0.0.0/8", "fd00::/64"]),
        ("10.0.0.7/24", ["10.0.0.0/24"]),
        ("10.0.0.7", ["10.0.0.7/32"]),
        ("fe80::1%eth0", []),
        ("fe80::%eth0/64", []),
        ("10.0.0.0/33,,x,10.1.0.0/16", ["10.1.0.0/16"]),
        ("1" * 10_000, []),
    ],
)
def test_networks(written: str, read: list[str]) -> None:
    assert [str(network) for network in networks([written])] == read


@settings(deadline=None)
@given(st.lists(st.text(max_size=20)))
def test_texts_of_any_kind_are_addresses_or_skipped(texts: list[str]) -> None:
    assert all(found.version in (4, 6) for found in addresses(texts))
    assert all(found.version in (4, 6) for found in networks(texts))


def test_addresses() -> None:
    assert [str(one) for one in addresses(["10.0.0.1", "None", "", "fd00::1", "fe80::1%eth0"])] == [
        "10.0.0.1",
        "fd00::1",
    ]


def test_a_list_in_one_namespace() -> None:
    assert questions.in_namespace(questions.PODS, "shop") == "/api/v1/namespaces/shop/pods"
    slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
    assert questions.in_namespace(questions.SLICES, "shop") == slices


def test_of_a_pod_little_is_kept() -> None:
    pod = {
        "metadata": {
            "name": "a",
            "namespace": "b",
            "annotations": {"x": "y" * 1000},
            "managedFields": [{}] * 9,
        },
        "spec": {"hostNetwork": True, "containers": [{"env": [{"value": "secret"}]}]},
        "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{}]},
    }
    kept = questions.slim(questions.PODS, pod)
    assert "secret" not in str(kept)
    assert len(str(kept)) < 300
    assert kept["spec"] == {"hostNetwork": True}
    assert questions.slim(questions.KUBE_DNS, pod) is pod, "of single objects everything"
