"""What answers and failures mean, without a server: what others of the tests do over the wire is not repeated here."""

from __future__ import annotations

import json
import socket
import ssl
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st
from telehelper.errors import ApiServerUnavailable, ClusterError
from telehelper.kube.answers import MAX_TOLD, Answer, json_object, one_line, raise_for_status, unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER = "https://api.example:6443"
KEY = ConnectionKey(
    "api.example", 6443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


def answer(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, headers or {}, body)


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "is_page"),
    [
        (b"<html>", {}, True),
        (b"\n  <!DOCTYPE html>", {}, True),
        (b"{}", {"Content-Type": "text/html; charset=utf-8"}, True),
        (b"{}", {"Content-Type": "application/json"}, False),
        (b"", {}, False),
    ],
)
def test_pages_are_for_people(body: bytes, headers: dict[str, str], is_page: bool) -> None:
    assert answer(body, headers=headers).is_page is is_page


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"<html><TITLE lang=en>Log\n in &amp; go</TITLE>", "Log in & go"),
        (b"<html><title>\xff\x1b[31mred</title>", "�\\x1b[31mred"),
        (b"<html><title>never ends", ""),
        (b"<html>" + b" " * 100_000 + b"<title>late</title>", ""),
        (b'{"a": "<title>x</title>"}', ""),
    ],
)
def test_titles(body: bytes, title: str) -> None:
    assert answer(body).title == title


@pytest.mark.parametrize(
    ("value", "seconds"), [("5", 5.0), (" 7 ", 7.0), ("", None), ("-1", None), ("1.5", None), ("²", None)]
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert answer(headers={"Retry-After": value}).retry_after == seconds


def test_what_a_status_object_tells() -> None:
    status = answer(json.dumps({"message": "m", "reason": "r"}).encode())
    assert (status.told, status.reason) == ("m", "r")
    for body in (b"", b"[]", b"{", b"3", b'{"message": null}', b"\xff"):
        assert (answer(body).told, answer(body).reason) == ("", "")


@given(st.binary(max_size=200), st.integers(100, 599), st.text(max_size=20))
def test_any_answer_is_a_value_or_one_of_our_errors(body: bytes, status: int, content_type: str) -> None:
    got = answer(body, status, {"Content-Type": content_type, "Location": content_type})
    error = failure_of(got)
    if error is not None:
        assert error.message.isprintable()  # so it is one line, too
        assert SERVER in error.message
    else:
        assert status < 300


def failure_of(got: Answer) -> ClusterError | None:
    try:
        raise_for_status(got, "/x", SERVER)
        assert isinstance(json_object(got, "/x", SERVER), dict)
    except ClusterError as error:
        return error
    return None


@given(st.text())
def test_one_line_is_one_printable_line(text: str) -> None:
    found = one_line(text)
    assert found.isprintable()
    assert len(found) <= MAX_TOLD


# --- no answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (aiohttp.ConnectionTimeoutError("x"), "no answer in time"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (aiohttp.ClientError(), "ClientError"),
        (OSError(), "OSError"),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "Connect call failed")), "Connection refused"),
        (aiohttp.ClientConnectorError(KEY, OSError(101, "x")), "Network is unreachable"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")), "not known"),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "wrong version")), "does not speak TLS"),
        (
            aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("odd")),
            "not trusted: it is not signed",
        ),
        (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "x")), "proxy-url does not answer"),
    ],
)
def test_failures_have_one_line(error: Exception, words: str) -> None:
    found = unavailable(SERVER, error)
    assert isinstance(found, ApiServerUnavailable)
    assert words in found.message
    assert "\n" not in found.message
    assert found.hint
    assert found.data == {"server": SERVER}
