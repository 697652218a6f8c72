"""The difference of two configurations, and doing all of it or nothing."""

from __future__ import annotations

import socket
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.errors import VifError
from telehelper.netd.fakes import RecordingNet
from telehelper.netd.plan import Change, Item, VifConfig, apply, device_name, difference, network_of

A, B, C = ip_interface("198.19.240.1/32"), ip_interface("198.19.240.5/32"), ip_interface("2001:2::1/128")
ONE, TWO, SIX = ip_network("198.18.0.0/20"), ip_network("198.18.16.0/20"), ip_network("fd00::/64")


def applied(changes: list[Change], config: set[Item]) -> set[Item]:
    """What a faithful kernel would have after these changes."""
    config = set(config)
    for verb, item in changes:
        assert (item in config) == (verb == "drop")
        config ^= {item}
    return config


CONFIGS = st.lists(st.sampled_from([A, B, C, ONE, TWO, SIX]), unique=True).map(tuple)


@given(CONFIGS, CONFIGS)
def test_applying_the_difference_gives_the_wanted(before: VifConfig, after: VifConfig) -> None:
    assert applied(difference(before, after), set(before)) == set(after)
    assert difference(after, after) == []


def test_adds_come_before_drops_and_routes_are_dropped_before_addresses() -> None:
    changes = difference((A, ONE, TWO), (B, TWO, SIX))
    assert [str(change) for change in changes] == [
        "add address 198.19.240.5/32",
        "add route fd00::/64",
        "drop route 198.18.0.0/20",
        "drop address 198.19.240.1/32",
    ]


def test_changes_are_made_in_order_and_said() -> None:
    net, said = RecordingNet(), list[str]()
    apply(net, 7, difference((A, ONE, TWO), (B, ONE)), said.append)
    assert net.deeds == [
        "add 198.19.240.5/32 dev 7",
        "drop 198.18.16.0/20 dev 7",
        "drop 198.19.240.1/32 dev 7",
    ]
    assert said == [
        "add address 198.19.240.5/32",
        "drop route 198.18.16.0/20",
        "drop address 198.19.240.1/32",
    ]


def test_after_a_failure_everything_before_it_is_taken_back() -> None:
    net, said = RecordingNet(), list[str]()
    net.refuse = ("drop 198.18.16.0/20 dev 7", "drop 198.18.0.0/20 dev 7")
    with pytest.raises(VifError, match=r"cannot drop 198.18.16.0/20 dev 7: Operation not permitted"):
        apply(net, 7, difference((A, SIX, TWO), (A, ONE)), said.append)
    assert net.deeds == ["add 198.18.0.0/20 dev 7", "drop 198.18.16.0/20 dev 7", "drop 198.18.0.0/20 dev 7"]
    assert said == ["cannot take back: cannot drop 198.18.0.0/20 dev 7: Operation not permitted"]


def test_what_was_dropped_before_a_failure_is_added_again() -> None:
    net, said = RecordingNet(), list[str]()
    net.refuse = ("drop 198.19.240.1/32 dev 7",)
    with pytest.raises(VifError):
        apply(net, 7, difference((A, ONE), ()), said.append)
    assert net.deeds[-1] == "add 198.18.0.0/20 dev 7"
    assert said == []


def test_what_an_item_takes_packets_of() -> None:
    assert network_of(A) == ip_network("198.19.240.1/32")
    assert network_of(ONE) == ONE


def test_names_of_interfaces() -> None:
    assert device_name(socket.if_nametoindex("lo")) == "lo"
    assert device_name(0) == "another route"
