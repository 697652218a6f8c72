"""Cluster addresses of services: what each release gives, refuses, and says."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from telemagic.demo.refusals import Refused
from telemagic.demo.service_addresses import ServiceAddresses

FOUR, SIX = ip_network("10.96.0.0/20"), ip_network("fd00::/112")
OLD, NEW = (1, 32), (1, 33)


def service(name: str = "probe", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def assign(
    asked: dict[str, Any],
    *others: dict[str, Any],
    release: tuple[int, int] = NEW,
    dual: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    addresses = ServiceAddresses((FOUR, SIX) if dual else (FOUR,), release)
    found: dict[str, Any] = addresses.assign(asked, others, dry_run=dry_run)["spec"]
    return found


def refusal(asked: dict[str, Any], *others: dict[str, Any], **options: Any) -> str:
    with pytest.raises(Refused) as caught:
        assign(asked, *others, **options)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    return caught.value.message


def test_a_service_gets_a_free_address() -> None:
    first = assign(service())
    second = assign(service("two"), {"spec": first})
    assert first["clusterIP"] != second["clusterIP"]
    assert {*first["clusterIPs"], *second["clusterIPs"]} == {first["clusterIP"], second["clusterIP"]}
    assert (first["ipFamilies"], first["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


def test_the_argument_stays_as_it_is() -> None:
    asked = service()
    assign(asked)
    assert asked == service()


def test_a_free_address_may_be_chosen_and_a_taken_one_not() -> None:
    own = assign(service(clusterIP="10.96.0.7"))
    assert own["clusterIPs"] == ["10.96.0.7"]
    assert refusal(service("two", clusterIP="10.96.0.7"), {"spec": own}) == (
        'Service "two" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.7"]: '
        "failed to allocate IP 10.96.0.7: provided IP is already allocated"
    )


OUTSIDE = (
    'Service "probe" is invalid: spec.clusterIPs: Invalid value: ["1.1.1.1"]: failed to allocate IP 1.1.1.1: '
)
WITH_RANGE = "the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/20"
WITHOUT_RANGE = "the provided network does not match the current range"


@pytest.mark.parametrize(
    ("release", "dry_run", "words"),
    [
        ((1, 28), False, WITH_RANGE),
        (OLD, False, WITH_RANGE),
        (OLD, True, WITH_RANGE),
        (NEW, False, WITHOUT_RANGE),
        (NEW, True, WITH_RANGE),
        ((2, 0), False, WITHOUT_RANGE),
    ],
)
def test_an_address_outside_the_range_is_refused_in_the_releases_words(
    release: tuple[int, int], dry_run: bool, words: str
) -> None:
    assert refusal(service(clusterIP="1.1.1.1"), release=release, dry_run=dry_run) == OUTSIDE + words


@pytest.mark.parametrize("prefix", range(13, 31))
@pytest.mark.parametrize("release", [OLD, NEW])
def test_a_dry_run_tells_the_length_of_the_prefix_by_what_it_takes(
    prefix: int, release: tuple[int, int]
) -> None:
    base = assign(service(), release=release, dry_run=True)["clusterIP"]
    assert base == "10.96.0.0", "the network's own address"
    probe = service(clusterIP=str(FOUR.network_address + 2 ** (32 - prefix) - 2))
    if prefix >= FOUR.prefixlen:
        assert assign(probe, release=release, dry_run=True)["clusterIP"] == probe["spec"]["clusterIP"]
    else:
        assert "not in the valid range" in refusal(probe, release=release, dry_run=True)


@pytest.mark.parametrize("prefix", range(105, 126))
def test_a_dry_run_tells_the_length_of_an_ipv6_prefix_too(prefix: int) -> None:
    asked = service(ipFamilies=["IPv6"])
    assert assign(asked, dual=True, dry_run=True)["clusterIP"] == "fd00::"
    probe = service(ipFamilies=["IPv6"], clusterIP=str(SIX.network_address + 2 ** (128 - prefix) - 2))
    if prefix >= SIX.prefixlen:
        assert assign(probe, dual=True, dry_run=True)["ipFamilies"] == ["IPv6"]
    else:
        assert "not in the valid range" in refusal(probe, dual=True, dry_run=True)


@pytest.mark.parametrize("address", ["10.96.0.0", "10.96.15.255"])
def test_the_ends_of_the_range_are_nobodys(address: str) -> None:
    assert WITHOUT_RANGE in refusal(service(clusterIP=address))


def test_a_dry_run_takes_a_taken_address_for_free() -> None:
    own = assign(service(clusterIP="10.96.0.7"))
    assert (
        assign(service("two", clusterIP="10.96.0.7"), {"spec": own}, dry_run=True)["clusterIP"] == "10.96.0.7"
    )


def test_headless_services_and_external_names_get_none() -> None:
    assert assign(service(clusterIP="None"))["clusterIPs"] == ["None"]
    assert "clusterIP" not in assign({"metadata": {"name": "x"}, "spec": {"type": "ExternalName"}})


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        ({}, ["IPv4"]),
        ({"ipFamilies": ["IPv6"]}, ["IPv6"]),
        ({"ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"]),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"]),
        ({"clusterIP": "fd00::9"}, ["IPv6"]),
        ({"clusterIP": "None", "ipFamilyPolicy": "RequireDualStack"}, ["IPv4", "IPv6"]),
    ],
)
def test_families_of_a_dual_stack_cluster(spec: dict[str, Any], families: list[str]) -> None:
    found = assign(service(**spec), dual=True)
    assert found["ipFamilies"] == families
    if found["clusterIP"] != "None":
        assert ["IPv6" if ":" in address else "IPv4" for address in found["clusterIPs"]] == families


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        ({"clusterIP": "fd00::9"}, "not configured on this cluster"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "not configured for dual-stack services"),
        ({"clusterIP": "nonsense"}, "must be a valid IP address"),
        ({"clusterIP": "010.96.0.7"}, "must be a valid IP address"),
    ],
)  # fmt: skip
def test_what_a_single_stack_cluster_refuses(spec: dict[str, Any], words: str) -> None:
    assert words in refusal(service(**spec))


def test_preferring_both_families_is_content_with_one() -> None:
    assert assign(service(ipFamilyPolicy="PreferDualStack"))["ipFamilies"] == ["IPv4"]


def test_a_full_range_says_so() -> None:
    tiny = ServiceAddresses([ip_network("10.96.0.0/30")], NEW)
    first = tiny.assign(service(), [], dry_run=False)
    with pytest.raises(Refused, match="range is full"):
        tiny.assign(service("two"), [first], dry_run=False)
