"""Addresses for carriers as people write them, and as they do not."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from telehelper.endpoint import PORTFORWARD, Endpoint, parse_carrier, parse_endpoint
from telehelper.errors import UsageError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tcp://10.0.0.5:8084", ("tcp", "10.0.0.5", 8084)),
        ("tls://manager.example.com:443", ("tls", "manager.example.com", 443)),
        ("tls://manager:1", ("tls", "manager", 1)),
        ("tls://[fd00::5]:65535", ("tls", "fd00::5", 65535)),
        ("tcp://[::]:8083", ("tcp", "::", 8083)),
        ("tcp://_x.node-1.:80", ("tcp", "_x.node-1.", 80)),
    ],
)
def test_what_is_one(text: str, parts: tuple[str, str, int]) -> None:
    endpoint = parse_endpoint(text)
    assert endpoint == Endpoint(*parts)
    assert str(endpoint) == text
    assert endpoint.is_encrypted == text.startswith("tls")
    assert parse_carrier(text) == endpoint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither tcp:// nor tls://"),
        ("10.0.0.5:8084", "neither tcp:// nor tls://"),
        ("http://10.0.0.5:80", "neither tcp:// nor tls://"),
        ("TLS://10.0.0.5:80", "neither tcp:// nor tls://"),
        ("tls:/10.0.0.5:80", "neither tcp:// nor tls://"),
        ("tls://10.0.0.5", "does not end in a port"),
        ("tls://10.0.0.5:", "does not end in a port"),
        ("tls://10.0.0.5:80/", "does not end in a port"),
        ("tls://10.0.0.5:80?x=1", "does not end in a port"),
        ("tls://10.0.0.5:+80", "does not end in a port"),
        ("tls://10.0.0.5:٨٠", "does not end in a port"),
        ("tls://10.0.0.5: 80", "does not end in a port"),
        ("tls://10.0.0.5:0", "0 is no port"),
        ("tls://10.0.0.5:65536", "65536 is no port"),
        ("tls://:80", "it has no host"),
        ("tls://[]:80", "'' is no address"),
        ("tls://[fd00::5:80", "is no host"),
        ("tls://fd00::5:80", "is no host"),
        ("tls://[10.0.0.5]:80", "is no address"),
        ("tls://10.0.0.256:80", "is no address"),
        ("tls://10.0.0:80", "is no address"),
        ("tls://user@host:80", "is no host"),
        ("tls://a/b:80", "is no host"),
        ("tls://-a:80", "is no host"),
        ("tls://a..b:80", "is no host"),
        ("tls://a b:80", "is no host"),
        ("tls://a\n:80", "is no host"),
        (f"tls://{'a.' * 127}b:80", "is no host"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_endpoint(text)
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("write it like tls://")
    with pytest.raises(UsageError):
        parse_carrier(text)


def test_a_listener_may_ask_for_any_port() -> None:
    assert parse_endpoint("tcp://0.0.0.0:0", lowest_port=0) == Endpoint("tcp", "0.0.0.0", 0)


def test_the_usual_way_is_no_endpoint() -> None:
    assert parse_carrier(PORTFORWARD) is None


@given(st.text(alphabet="tcpls:/[]0123456789abf.-_@ é\n") | st.text())
@example("tls://[::1%eth0]:80")
def test_anything_is_an_endpoint_that_reads_back_or_is_refused(text: str) -> None:
    for candidate in (text, f"tls://{text}", f"tcp://{text}:80"):
        try:
            endpoint = parse_endpoint(candidate)
        except UsageError:
            continue
        assert parse_endpoint(str(endpoint)) == endpoint
