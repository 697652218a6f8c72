"""The difference of two configurations, and doing all of it or nothing."""

from __future__ import annotations

import socket
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.errors import VifError
from telehelper.netd.fakes import RecordingNet
from telehelper.netd.plan import Change, VifConfig, apply, device_name, difference, network_of

A, B, C = ip_interface("198.19.240.1/32"), ip_interface("198.19.240.5/32"), ip_interface("2001:2::1/128")
ONE, TWO, SIX = ip_network("198.18.0.0/20"), ip_network("198.18.16.0/20"), ip_network("fd00::/64")


def applied(changes: list[Change], config: VifConfig) -> VifConfig:
    """What a faithful kernel would have after these changes."""
    config = dict(config)
    for change in changes:
        assert config.get(change.item) == change.before
        if change.after is None:
            del config[change.item]
        else:
            config[change.item] = change.after
    return config


ADDRESSES = st.dictionaries(st.sampled_from([A, B, C]), st.just(0))
ROUTES = st.dictionaries(st.sampled_from([ONE, TWO, SIX]), st.sampled_from([0, 1400]))
CONFIGS = st.builds(lambda addresses, routes: addresses | routes, ADDRESSES, ROUTES)


@given(CONFIGS, CONFIGS)
def test_applying_the_difference_gives_the_wanted_and_its_reverse_the_former(
    before: VifConfig, after: VifConfig
) -> None:
    changes = difference(before, after)
    assert applied(changes, before) == after
    assert applied([change.reverse() for change in reversed(changes)], after) == before
    assert difference(after, after) == []


def test_adds_come_before_drops_and_routes_are_dropped_before_addresses() -> None:
    changes = difference({A: 0, ONE: 0, TWO: 0}, {B: 0, TWO: 1400, SIX: 0})
    assert [str(change) for change in changes] == [
        "add address 198.19.240.5/32",
        "change route 198.18.16.0/20 mtu 1400",
        "add route fd00::/64",
        "drop route 198.18.0.0/20",
        "drop address 198.19.240.1/32",
    ]


def test_changes_are_made_in_order_and_said() -> None:
    net, said = RecordingNet(), list[str]()
    apply(net, 7, difference({A: 0, ONE: 0, TWO: 0}, {B: 0, ONE: 1400}), said.append)
    assert net.deeds == [
        "add 198.19.240.5/32 dev 7",
        "change 198.18.0.0/20 dev 7 mtu 1400",
        "drop 198.18.16.0/20 dev 7",
        "drop 198.19.240.1/32 dev 7",
    ]
    assert said == [
        "add address 198.19.240.5/32",
        "change route 198.18.0.0/20 mtu 1400",
        "drop route 198.18.16.0/20",
        "drop address 198.19.240.1/32",
    ]


def test_after_a_failure_everything_before_it_is_taken_back() -> None:
    net, said = RecordingNet(), list[str]()
    net.refuse = ("add 198.18.16.0/20 dev 7", "drop 198.18.0.0/20 dev 7")
    with pytest.raises(VifError, match=r"cannot add route 198.18.16.0/20: Operation not permitted") as caught:
        apply(net, 7, difference({}, {A: 0, ONE: 0, TWO: 0}), said.append)
    assert caught.value.data == {"change": "add route 198.18.16.0/20"}
    assert net.deeds[-2:] == ["drop 198.18.0.0/20 dev 7", "drop 198.19.240.1/32 dev 7"]
    assert said == ["cannot take back: drop route 198.18.0.0/20: Operation not permitted"]


def test_what_an_item_takes_packets_of() -> None:
    assert network_of(A) == ip_network("198.19.240.1/32")
    assert network_of(ONE) == ONE


def test_names_of_interfaces() -> None:
    assert device_name(socket.if_nametoindex("lo")) == "lo"
    assert device_name(0) == "another route"
