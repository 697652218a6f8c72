"""What facts about a cluster mean, one case each; and when credentials end, read from the real formats."""

from __future__ import annotations

import base64
import datetime
import json
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from telehelper.admin import verdicts
from telehelper.admin.verdicts import OK, PROBLEM, RIGHTS, WARNING, Right
from telehelper.core import routes
from telehelper.core.route_plan import HostRoute, WantedCidr
from telehelper.errors import CredentialsRefused, ManagerUnavailable

WHERE = {"manager": "telemagic", "connected": "shop"}
EVERYTHING: dict[Right, bool | None] = {right: True for group, _ in RIGHTS.values() for right in group}
NOW = 1_800_000_000.0


def without(*refused: str, answer: bool | None = False) -> dict[Right, bool | None]:
    """All rights but these: ``verb resource scope``."""
    names = {f"{right.verb} {right.resource} {right.scope}": right for right in EVERYTHING}
    return EVERYTHING | {names[name]: answer for name in refused}


# --- rights ------------------------------------------------------------------------------------------------------


def test_all_rights() -> None:
    found = {name: verdicts.rights(name, EVERYTHING, WHERE) for name in RIGHTS}
    assert {one.level for one in found.values()} == {OK}
    assert found["rights: manager"].found == "you may list pods; get and create pods/portforward in telemagic"
    assert found["rights: agentless"].found.endswith(
        "list pods, services, endpointslices; get and create pods/portforward in shop"
    )
    assert "in all namespaces; create services in shop" in found["rights: networks"].found


@pytest.mark.parametrize(
    ("refused", "group", "said", "lost"),
    [
        ("list pods manager", "rights: manager", "list pods in telemagic", "no way in through"),
        (
            "get pods/portforward manager",
            "rights: manager",
            "get pods/portforward in telemagic",
            "no way in through",
        ),
        (
            "create pods/portforward manager",
            "rights: manager",
            "create pods/portforward",
            "no way in through",
        ),
        ("list pods connected", "rights: agentless", "list pods in shop", "no way in without"),
        ("list services connected", "rights: agentless", "list services in shop", "no way in without"),
        (
            "list endpointslices connected",
            "rights: agentless",
            "list endpointslices in shop",
            "no way in without",
        ),
        (
            "get pods/portforward connected",
            "rights: agentless",
            "get pods/portforward in shop",
            "no way in without",
        ),
        (
            "create pods/portforward connected",
            "rights: agentless",
            "create pods/portforward in shop",
            "no way in",
        ),
        ("list namespaces cluster", "rights: names", "list namespaces in all", "their full form"),
        ("list services cluster", "rights: names", "list services in all", "connected namespace only"),
        ("list pods cluster", "rights: names", "list pods in all", "connected namespace only"),
        (
            "list endpointslices cluster",
            "rights: names",
            "list endpointslices in all",
            "connected namespace only",
        ),
        ("list servicecidrs cluster", "rights: networks", "list servicecidrs", "known in part"),
        ("list nodes cluster", "rights: networks", "list nodes", "known in part"),
        ("create services connected", "rights: networks", "create services in shop", "known in part"),
    ],
)
def test_each_verb_that_is_refused_is_named_with_what_is_lost(
    refused: str, group: str, said: str, lost: str
) -> None:
    allowed = without(refused)
    found = {name: verdicts.rights(name, allowed, WHERE) for name in RIGHTS}
    assert [name for name, one in found.items() if one.level != OK] == [group]
    assert f"you may not {said}" in found[group].found
    assert lost in found[group].found
    assert found[group].remedy


def test_every_right_is_in_a_group_that_the_test_above_knows() -> None:
    assert len(EVERYTHING) == 15


def test_an_api_server_that_does_not_tell() -> None:
    found = verdicts.rights("rights: manager", without("list pods manager", answer=None), WHERE)
    assert (found.level, found.found) == (
        WARNING,
        "the API server does not say whether you may list pods in telemagic",
    )


def test_the_way_in() -> None:
    places = WHERE.values()
    forward = ("get pods/portforward manager", "get pods/portforward connected")
    assert verdicts.way_in(True, EVERYTHING, places).found == "through the traffic manager"
    for has_manager, allowed in ((False, EVERYTHING), (True, without(forward[0]))):
        found = verdicts.way_in(has_manager, allowed, places)
        assert (found.level, found.found[:9]) == (OK, "agentless")
    assert verdicts.way_in(True, without(forward[1]), places).level == OK
    none = verdicts.way_in(True, without(*forward), places)
    assert (none.level, none.remedy) == (
        PROBLEM,
        "ask for get and create on pods/portforward in telemagic or shop",
    )
    assert "there is no traffic manager" in verdicts.way_in(False, without(*forward), places).found
    # What the API server does not tell may still be allowed: a connect shows it.
    assert verdicts.way_in(True, dict.fromkeys(EVERYTHING), places).level == OK


# --- server, clock, credentials ----------------------------------------------------------------------------------


def test_the_api_server() -> None:
    assert verdicts.api_server("https://k", "v1.33.0", 0.0123).found == "https://k: v1.33.0, 12 ms round trip"
    assert verdicts.api_server("https://k", "v1.33.0", 0.9).level == WARNING


@pytest.mark.parametrize(
    ("skew", "level", "text"),
    [
        (0.4, OK, "agrees"),
        (-29.0, OK, "agrees"),
        (45.0, WARNING, "45 s ahead of"),
        (-200.0, WARNING, "3 min behind"),
        (7200.0, PROBLEM, "2 h ahead of"),
        (-9e6, PROBLEM, "104 d behind"),
    ],
)
def test_the_clock(skew: float, level: str, text: str) -> None:
    found = verdicts.clock(skew)
    assert (found.level, text in found.found, bool(found.remedy)) == (level, True, level != OK)


@pytest.mark.parametrize(
    ("kind", "token", "certificate", "level", "text"),
    [
        ("token", None, None, OK, "token accepted"),
        ("token", 3600.0, None, OK, "token accepted, good for 60 min"),
        ("token", 120.0, None, WARNING, "the token expires in 2 min"),
        ("login plugin", 120.0, None, OK, "login plugin accepted, good for 2 min"),  # it will log in again
        ("token", -5.0, None, WARNING, "the token expired 5 s ago"),
        ("certificate", None, 86_400.0 * 90, OK, "certificate accepted, good for 90 d"),
        ("certificate", None, 86_400.0 * 3, WARNING, "the client certificate expires in 3 d"),
        ("certificate", None, -86_400.0 * 3, WARNING, "the client certificate expired 3 d ago"),
    ],
)
def test_credentials(
    kind: str, token: float | None, certificate: float | None, level: str, text: str
) -> None:
    ends = [None if left is None else NOW + left for left in (token, certificate)]
    found = verdicts.credentials(kind, *ends, NOW)
    assert (found.level, found.found) == (level, text)


def test_refused_credentials_say_when_they_ended() -> None:
    error = CredentialsRefused("refused (401)")
    assert verdicts.refused(error, None, NOW).found == "refused (401)"
    assert verdicts.refused(error, NOW + 60, NOW).found == "refused (401)"
    found = verdicts.refused(error, NOW - 600, NOW)
    assert (found.level, found.found) == (PROBLEM, "the token expired 10 min ago: refused (401)")
    assert found.remedy


def token(body: object) -> str:
    parts = ({"alg": "RS256"}, body, "x")
    return "Bearer " + ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


def test_the_end_of_a_token() -> None:
    assert verdicts.token_end(token({"exp": 1_800_000_000})) == NOW
    for bad in ({}, {"exp": "x"}, {"exp": None}, [1], "text", {"exp": [1]}):
        assert verdicts.token_end(token(bad)) is None
    for text in ("", "Basic abc", "Bearer opaque", "Bearer a.b.c", "Bearer é.é.é"):
        assert verdicts.token_end(text) is None


def certificate(end: datetime.datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ada" * 20)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)).not_valid_after(
        end
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "year", [2027, 2049, 2050, 2099]
)  # from 2050 on another type of time, RFC 5280 §4.1.2.5
def test_the_end_of_a_certificate(year: int) -> None:
    end = datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    pem = certificate(end)
    assert verdicts.certificate_end(pem) == end.timestamp()
    assert verdicts.certificate_end(b"# a comment\n" + pem + certificate(end)) == end.timestamp()


@given(st.binary(max_size=300), st.integers(0, 600))
def test_bytes_that_are_no_certificate_have_no_end(junk: bytes, cut: int) -> None:
    wrapped = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(junk) + b"\n-----END CERTIFICATE-----\n"
    for pem in (junk, wrapped, CUT[:cut]):
        found = verdicts.certificate_end(pem)
        assert found is None or isinstance(found, float)
    assert verdicts.certificate_end(b"") is None


CUT = certificate(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))


# --- network and manager -----------------------------------------------------------------------------------------


def test_the_mtu() -> None:
    assert verdicts.mtu(1500, "eth0") == ("MTU", OK, "1500 bytes to the API server, by eth0", "")
    small = verdicts.mtu(1200, "wg0")
    assert (small.level, small.remedy) == (WARNING, "sudo ip link set wg0 mtu 1280")


WANTED = [
    WantedCidr("10.96.0.0/12", "services", "ServiceCIDR"),
    WantedCidr("10.244.0.0/16", "pods", "podCIDR"),
]


def test_networks_that_overlap_nothing() -> None:
    found = verdicts.overlap(routes.plan(WANTED, [HostRoute(ip_network("192.168.1.0/24"), "eth0")]))
    assert found == ("networks", OK, "10.96.0.0/12, 10.244.0.0/16: nothing of this machine overlaps", "")


def test_networks_that_overlap_a_vpn() -> None:
    existing = [
        HostRoute(ip_network("10.100.0.0/16"), "tun0"),
        HostRoute(ip_network("10.244.3.0/24"), "docker0"),
    ]
    found = verdicts.overlap(routes.plan(WANTED, existing))
    assert found.level == PROBLEM
    assert "the cluster's 10.96.0.0/12 overlaps 10.100.0.0/16 on tun0" in found.found
    assert "(and 1 more)" in found.found
    assert found.remedy


def test_networks_that_nobody_knows() -> None:
    assert verdicts.overlap(routes.plan([], [])).level == WARNING


def test_the_manager() -> None:
    assert (
        verdicts.manager("telemagic/m-0", "0.1", "0.1", None).found == "telemagic/m-0 is ready, version 0.1"
    )
    assert verdicts.manager("telemagic/m-0", "", "0.1", None).level == OK
    other = verdicts.manager("telemagic/m-0", "0.2", "0.1", None)
    assert (other.level, "version 0.2; this is 0.1" in other.found) == (WARNING, True)
    missing = verdicts.manager(
        "telemagic", "", "0.1", ManagerUnavailable("there is none", hint="%tele install")
    )
    assert missing == ("traffic manager", WARNING, "there is none", "%tele install")
