"""API servers that are busy, that are none, and ways to them that are closed: each has its sentence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import uvloop
from aiohttp import web
from telehelper.errors import ApiServerUnavailable, CredentialsRefused
from telehelper.kube import client as client_module
from telehelper.kube import portforward
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient, ApiRejected

from tests.kube.api_server import TOKEN, WAIT, ApiServer, Pki, make_pki
from tests.kube.test_client import PODS, access_to, failure_of, with_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FORWARD = "/api/v1/namespaces/shop/pods/web/portforward"


# --- answers that want patience ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(pki: Pki, status: int) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def busy(_: web.Request) -> web.Response:
            if len(server.requests) < 3:
                return web.json_response({}, status=status, headers={"Retry-After": "0"})
            return web.json_response({"items": []})

        server.answers[PODS] = busy
        assert await api.get(PODS) == {"items": []}

    with_server(pki, work)


@pytest.mark.parametrize(
    ("retry_after", "asked"), [("0", 3), ("3600", 1), ("Fri, 31 Dec 1999 23:59:59 GMT", 1), ("-1", 1)]
)
def test_a_server_that_stays_busy(pki: Pki, retry_after: str, asked: int) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {"message": "later"}, 503, {"Retry-After": retry_after})
        assert "503 later" in await failure_of(api.get(PODS))
        assert len(server.requests) == asked

    with_server(pki, work)


# --- something else answers --------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, "", 302, {"Location": "https://login.corp.example/?next=x"})
        message = await failure_of(api.get(PODS))
        assert "a proxy or login page answers instead of the API server" in message
        assert "redirects to login.corp.example" in message
        assert len(server.requests) == 1

    with_server(pki, work)


@pytest.mark.parametrize(
    ("status", "headers"), [(302, {"Location": "https://login/"}), (200, {"Content-Type": "text/html"})]
)
def test_a_login_page_instead_of_a_port_forward(pki: Pki, status: int, headers: dict[str, str]) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def page(_: web.Request) -> web.Response:
            return web.Response(status=status, headers=headers)

        server.answers[FORWARD] = page
        assert "a proxy or login page answers" in await failure_of(api.portforward("shop", "web", 80))

    with_server(pki, work)


@pytest.mark.parametrize(
    ("days", "server_name", "words"),
    [
        ((-20, -10), "", "it has expired"),
        ((10, 20), "", "it is not valid yet"),
        ((-1, 1), "x.y", "it is for another address"),
    ],
)
def test_a_certificate_that_is_wrong_says_how(
    tmp_path: Path, days: tuple[int, int], server_name: str, words: str
) -> None:
    pki = make_pki(tmp_path / "pki", server_name=server_name, server_days=days)

    async def run() -> None:
        async with asyncio.timeout(WAIT), ApiServer(pki).run() as server, ApiClient(access_to(server)) as api:
            with pytest.raises(ApiServerUnavailable, match=words) as caught:
                await api.get(PODS)
            assert caught.value.hint

    asyncio.run(run())


def test_a_server_that_accepts_and_never_says_a_word(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(portforward, "CONNECT_TIMEOUT", 0.2)

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            access = ApiAccess(url, dict, ssl.create_default_context(cafile=pki.ca))
            async with asyncio.timeout(WAIT / 2), ApiClient(access) as api:
                assert "no answer in time" in await failure_of(api.get(PODS))
                assert "no answer in time" in await failure_of(api.portforward("ns", "pod", 1))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- forbidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        ((), "you lack get and create on pods/portforward in namespace 'shop'"),
        (("get",), "you lack create on pods/portforward"),
        (("get", "create"), "forbids port-forward to shop/web: 403"),
        (None, "forbids port-forward to shop/web: 403"),
    ],
)
def test_a_forbidden_port_forward_names_the_verb(
    pki: Pki, allowed: tuple[str, ...] | None, words: str
) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def review(request: web.Request) -> web.Response:
            asked = (await request.json())["spec"]["resourceAttributes"]
            assert (asked["resource"], asked["subresource"]) == ("pods", "portforward")
            assert asked["namespace"] == "shop"
            if allowed is None:
                return web.json_response({}, status=500)
            return web.json_response({"status": {"allowed": asked["verb"] in allowed}})

        server.answers["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"] = review
        server.answer(FORWARD, {}, 403)
        assert words in await failure_of(api.portforward("shop", "web", 80), CredentialsRefused)

    with_server(pki, work)


# --- proxies -----------------------------------------------------------------------------------------------------


def test_a_proxy_that_is_not_there(pki: Pki) -> None:
    async def work(_: ApiServer, api: ApiClient) -> None:
        assert "the kubeconfig's proxy-url does not answer" in await failure_of(api.get(PODS))

    with socket.socket() as bound:  # bound and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with_server(pki, work, lambda access: replace(access, proxy=address))


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a proxy that can CONNECT; yields its port and the requests that it got."""
    got: list[bytes] = []
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        got.append(request)
        host, port = request.split()[1].decode().split(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for source, sink in ((reader, there[1]), (there[0], writer)):
            pumps.add(asyncio.create_task(pump(source, sink)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], got
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def test_requests_and_port_forwards_go_through_the_proxy(pki: Pki) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT), ApiServer(pki).run() as server, proxy() as (port, got):
            server.answer(PODS, {})
            access = replace(access_to(server), proxy=f"http://ann:secret@127.0.0.1:{port}")
            async with ApiClient(access) as api:
                assert await api.get(PODS) == {}
                stream = await api.portforward("shop", "web", 80)
                await stream.send((b"hello",))
                assert bytes(await stream.receive()) == b"hello"
                await stream.close()
            assert len(got) == 2
            assert all(b"Proxy-Authorization: Basic " in each for each in got)
            assert not any(TOKEN.encode() in each for each in got)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- writing -----------------------------------------------------------------------------------------------------


def echoing(server: ApiServer) -> list[tuple[str, str, dict[str, str], object]]:
    """Have the server note method, type of the body, query and body of each request."""
    got: list[tuple[str, str, dict[str, str], object]] = []

    async def note(request: web.Request) -> web.Response:
        got.append((request.method, request.content_type, dict(request.query), await request.json()))
        return web.json_response({"kind": "Done"})

    server.answers[PODS] = note
    return got


def test_writing(pki: Pki) -> None:
    body = {"kind": "Pod"}
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}

    async def work(server: ApiServer, api: ApiClient) -> None:
        got = echoing(server)
        assert await api.create(PODS, body) == {"kind": "Done"}
        await api.create(PODS, body, dry_run=True)
        await api.apply(PODS, body, field_manager="telemagic")
        await api.apply(PODS, body, field_manager="telemagic", force=True, dry_run=True)
        await api.patch(PODS, body)
        await api.delete(PODS)
        manager = {"fieldManager": "telemagic"}
        assert got == [
            ("POST", "application/json", {}, body),
            ("POST", "application/json", {"dryRun": "All"}, body),
            ("PATCH", "application/apply-patch+yaml", {**manager, "force": "false"}, body),
            ("PATCH", "application/apply-patch+yaml", {**manager, "force": "true", "dryRun": "All"}, body),
            ("PATCH", "application/merge-patch+json", {}, body),
            ("DELETE", "application/json", {}, options),
        ]

    with_server(pki, work)


def test_what_is_rejected_says_why_in_full(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        told = "provided IP is not in the valid range. " + "The range of valid IPs is 10.96.0.0/12. " * 20
        server.answer(PODS, {"message": told, "reason": "Invalid"}, 422)
        with pytest.raises(ApiRejected) as caught:
            await api.create(PODS, {})
        assert caught.value.data == {"status": "422", "reason": "Invalid", "told": told}
        assert len(caught.value.message) < 500

    with_server(pki, work)
