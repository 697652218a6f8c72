"""Requests to a real TLS server: every way in which an API server answers, or does not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused
from telehelper.kube import client as client_module
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient, ApiNotFound, ApiRejected

from tests.kube.api_server import TOKEN, WAIT, ApiServer, Pki, kubeconfig, make_pki

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PODS = "/api/v1/pods"


def access_to(server: ApiServer, token: str = TOKEN, ca: Path | None = None) -> ApiAccess:
    return ApiAccess(
        server.url,
        lambda: {"Authorization": f"Bearer {token}"},
        ssl.create_default_context(cafile=ca or server.pki.ca),
    )


def with_server(
    pki: Pki,
    work: Callable[[ApiServer, ApiClient], Awaitable[None]],
    change: Callable[[ApiAccess], ApiAccess] = lambda access: access,
) -> None:
    """Run `work` with a server and a client of it."""

    async def run() -> None:
        async with (
            asyncio.timeout(WAIT),
            ApiServer(pki).run() as server,
            ApiClient(change(access_to(server))) as api,
        ):
            await work(server, api)

    asyncio.run(run())


async def failure_of(call: Awaitable[object], kind: type[ClusterError] = ApiServerUnavailable) -> str:
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    return caught.value.message


# --- answers -----------------------------------------------------------------------------------------------------


def test_get_sends_the_token_and_the_query(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {"items": []})
        assert await api.get(PODS, labelSelector="a=b,c") == {"items": []}
        (request,) = server.requests
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert dict(request.query) == {"labelSelector": "a=b,c"}

    with_server(pki, work)


def test_a_large_answer_comes_whole(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {"items": ["x" * 1000] * 3000})
        assert len((await api.get(PODS))["items"]) == 3000

    with_server(pki, work)


def test_a_client_made_from_a_kubeconfig_with_a_certificate(pki: Pki, tmp_path: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(WAIT), ApiServer(pki).run(ask_certificate=True) as server:
            server.answer(PODS, {"kind": "PodList"})
            user = {"client-certificate": str(pki.client_cert), "client-key": str(pki.client_key)}
            access = ApiAccess.from_kubeconfig(str(kubeconfig(tmp_path, pki, server.url, user=user)))
            async with ApiClient(access) as api:
                assert await api.get(PODS) == {"kind": "PodList"}
            assert server.client_names == ["client"]

    asyncio.run(run())


def test_tls_server_name_is_what_the_certificate_is_checked_against(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki", server_name="api.internal")

    async def run() -> None:
        async with asyncio.timeout(WAIT), ApiServer(pki).run() as server:
            server.answer(PODS, {})
            async with ApiClient(access_to(server)) as api:
                assert "its certificate is not trusted" in await failure_of(api.get(PODS))
            cluster = {"tls-server-name": "api.internal"}
            path = kubeconfig(tmp_path, pki, server.url, cluster=cluster)
            async with ApiClient(ApiAccess.from_kubeconfig(str(path))) as api:
                assert await api.get(PODS) == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "doc", "kind", "words"),
    [
        (
            401,
            {"message": "Unauthorized"},
            CredentialsRefused,
            "refused the kubeconfig's token or certificate",
        ),
        (
            403,
            {"message": "pods is forbidden"},
            CredentialsRefused,
            "forbids /api/v1/pods: pods is forbidden",
        ),
        (403, "no JSON", CredentialsRefused, "forbids /api/v1/pods: 403"),
        (403, ["a list"], CredentialsRefused, "forbids /api/v1/pods: 403"),
        (404, {"message": "not found"}, ApiNotFound, "has no /api/v1/pods"),
        (500, {"message": "etcd is away"}, ApiServerUnavailable, "with 500 etcd is away"),
        (503, "<title>Bad gateway</title>", ApiServerUnavailable, "/api/v1/pods with 503 Bad gateway"),
        (400, {"message": "what?"}, ApiRejected, "rejects /api/v1/pods: what?"),
        (409, {"message": "there is one"}, ApiRejected, "rejects /api/v1/pods: there is one"),
        (422, {}, ApiRejected, "rejects /api/v1/pods: 422"),
        (429, {"message": "too many requests"}, ApiServerUnavailable, "429 too many requests"),
        (200, "hello", ApiServerUnavailable, "with something not JSON"),
        (200, '{"items": [', ApiServerUnavailable, "with truncated JSON"),
        (200, "<html><title> Log\nin </title>", ApiServerUnavailable, "(title 'Log in')"),
        (200, "<!DOCTYPE html>", ApiServerUnavailable, "a proxy or login page answers instead"),
        (403, "<html>", ApiServerUnavailable, "a proxy or login page answers instead"),
        (404, "404 page not found", ApiNotFound, "has no /api/v1/pods"),
        (200, [1, 2], ApiServerUnavailable, "with no object"),
        (200, "", ApiServerUnavailable, "with nothing"),
    ],
)
def test_answers_that_are_errors(
    pki: Pki, status: int, doc: object, kind: type[ClusterError], words: str
) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, doc, status)
        assert words in await failure_of(api.get(PODS), kind)

    with_server(pki, work)


def test_a_long_message_of_the_server_is_cut(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {"message": "m" * 10_000}, 500)
        assert len(await failure_of(api.get(PODS))) < 500

    with_server(pki, work)


def test_a_token_that_is_refused(pki: Pki) -> None:
    async def work(_: ApiServer, api: ApiClient) -> None:
        assert "(401)" in await failure_of(api.get(PODS), CredentialsRefused)

    with_server(pki, work, lambda access: replace(access, headers=lambda: {"Authorization": "Bearer old"}))


def test_a_token_file_that_has_gone(pki: Pki, tmp_path: Path) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        assert "the token cannot be read" in await failure_of(api.get(PODS), CredentialsRefused)
        assert server.requests == []

    with_server(
        pki, work, lambda access: replace(access, headers=lambda: {"a": (tmp_path / "token").read_text()})
    )


# --- no answer ---------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REQUEST_TIMEOUT", 0.05)

    async def work(server: ApiServer, api: ApiClient) -> None:
        asked = asyncio.Event()

        async def silence(_: web.Request) -> web.Response:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        server.answers[PODS] = silence
        assert "no answer in time" in await failure_of(api.get(PODS))
        assert asked.is_set()

    with_server(pki, work)


def test_a_server_that_hangs_up_in_the_middle(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def cut(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"items": ')
            assert request.transport is not None
            request.transport.abort()
            return response

        server.answers[PODS] = cut
        assert "cannot be reached" in await failure_of(api.get(PODS))

    with_server(pki, work)


def test_nothing_listens(pki: Pki) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else gets the port meanwhile
        bound.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"

        async def run() -> None:
            async with ApiClient(ApiAccess(url, dict, ssl.create_default_context(cafile=pki.ca))) as api:
                with pytest.raises(ApiServerUnavailable, match="Connect") as caught:
                    await api.get(PODS)
                assert caught.value.data == {"server": url}
                assert caught.value.hint

        asyncio.run(run())


def test_a_certificate_of_a_stranger(pki: Pki, tmp_path: Path) -> None:
    other = make_pki(tmp_path / "other")

    async def run() -> None:
        async with asyncio.timeout(WAIT), ApiServer(pki).run() as server:
            async with ApiClient(access_to(server, ca=other.ca)) as api:
                assert "its certificate is not trusted" in await failure_of(api.get(PODS))
                assert "not trusted" in await failure_of(api.portforward("ns", "pod", 1))
            assert server.requests == []  # and it was not shown the token

    asyncio.run(run())


def test_a_server_that_does_not_speak_tls(pki: Pki) -> None:
    async def run() -> None:
        def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail ready\r\n")
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with asyncio.timeout(WAIT), server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with ApiClient(ApiAccess(url, dict, ssl.create_default_context(cafile=pki.ca))) as api:
                assert "does not speak TLS as an API server does" in await failure_of(api.get(PODS))

    asyncio.run(run())


def test_a_name_that_does_not_resolve() -> None:
    async def run() -> None:
        access = ApiAccess("https://api.nowhere.invalid:6443", dict, ssl.create_default_context())
        async with asyncio.timeout(WAIT), ApiClient(access) as api:
            assert "api.nowhere.invalid" in await failure_of(api.get(PODS))

    asyncio.run(run())


def test_the_environments_proxy_is_not_the_kubeconfigs(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {})
        assert await api.get(PODS) == {}

    with_server(pki, work)


def test_the_kubeconfigs_proxy_is_used(pki: Pki) -> None:
    asked: list[bytes] = []

    async def run() -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readline())
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with asyncio.timeout(WAIT), proxy, ApiServer(pki).run() as server:
            address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            async with ApiClient(replace(access_to(server), proxy=address)) as api:
                assert "the kubeconfig's proxy-url answers 403 Forbidden" in await failure_of(api.get(PODS))

    asyncio.run(run())
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")


def test_a_closed_client_says_so(pki: Pki) -> None:
    async def work(_: ApiServer, api: ApiClient) -> None:
        await api.close()
        await api.close()
        assert "is closed" in await failure_of(api.get(PODS))
        assert "is closed" in await failure_of(api.portforward("ns", "pod", 1))

    with_server(pki, work)


# --- opening port-forwards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, CredentialsRefused, "forbids port-forward to shop/web"),
        (404, ApiNotFound, "has no port-forward to shop/web"),
        (400, ApiServerUnavailable, "does not do the WebSocket of a port-forward to shop/web"),
        (500, ApiServerUnavailable, "does not do the WebSocket of a port-forward to shop/web"),
        (200, ApiServerUnavailable, "does not do the WebSocket of a port-forward to shop/web"),
        (503, ApiServerUnavailable, "answered port-forward to shop/web with 503"),
    ],
)
def test_a_port_forward_that_is_refused(pki: Pki, status: int, kind: type[ClusterError], words: str) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer("/api/v1/namespaces/shop/pods/web/portforward", {}, status)
        assert words in await failure_of(api.portforward("shop", "web", 80), kind)

    with_server(pki, work)


def test_a_port_forward_with_a_refused_token(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"another"}
        assert "(401)" in await failure_of(api.portforward("shop", "web", 80), CredentialsRefused)

    with_server(pki, work)
