"""Following a list of a real server: what is news, where it goes on, and when it begins anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from telehelper.errors import ApiServerUnavailable, CredentialsRefused
from telehelper.kube import watch as watch_module
from telehelper.kube.watch import Lines

from tests.kube.test_client import PODS, failure_of, with_server

if TYPE_CHECKING:
    from telehelper.kube.client import ApiClient

    from tests.kube.api_server import ApiServer, Pki


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SHORTEST", 0.001)


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


class Script:
    """Lists `items` at `version`, and answers the n-th watch with the n-th of `watches`; the last one stays open."""

    def __init__(self, server: ApiServer, *watches: list[bytes]) -> None:
        self.items: list[dict[str, Any]] = []
        self.version = 10
        self.watches = list(watches)
        self.queries: list[dict[str, str]] = []  # of watches
        self.lists = 0
        server.answers[PODS] = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            metadata = {"resourceVersion": str(self.version)}
            return web.json_response({"metadata": metadata, "items": self.items})
        self.queries.append(dict(request.query))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for data in self.watches.pop(0) if self.watches else ():
            await response.write(data)
        if not self.watches:
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    @property
    def versions(self) -> list[str]:
        """Where each watch began."""
        return [query["resourceVersion"] for query in self.queries]


async def take(api: ApiClient, count: int, **params: str) -> list[tuple[str, Any]]:
    """Return the first events: type, and name of the object or its number of items."""
    found = []
    async with contextlib.aclosing(api.watch(PODS, **params)) as events:
        async for each in events:
            item = each["object"]
            found.append(
                (
                    each["type"],
                    len(item.get("items", ())) if each["type"] == "LIST" else item["metadata"]["name"],
                )
            )
            if len(found) == count:
                return found
    raise AssertionError("a watch ends by an error only")


def test_the_list_then_each_change(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        script = Script(
            server,
            [
                event("ADDED", pod("a", 11)) + event("MODIFIED", pod("a", 12))[:20],
                event("MODIFIED", pod("a", 12))[20:],
            ],
        )
        script.watches[0].append(b"\n" + event("DELETED", pod("a", 13)))
        script.items = [pod("b", 5)]
        got = await take(api, 4, labelSelector="x=y")
        assert got == [("LIST", 1), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
        assert script.queries == [
            {
                "labelSelector": "x=y",
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": "10",
                "timeoutSeconds": str(watch_module.WATCH_SECONDS),
            }
        ]

    with_server(pki, work)


def test_it_goes_on_where_it_was_when_the_server_ends_it(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        script = Script(
            server,
            [event("ADDED", pod("a", 11))],
            [],
            [event("BOOKMARK", pod("", 40))],
            [event("ADDED", pod("b", 41))],
        )
        assert await take(api, 3) == [("LIST", 0), ("ADDED", "a"), ("ADDED", "b")]
        assert script.versions == ["10", "11", "11", "40"]
        assert script.lists == 1

    with_server(pki, work)


@pytest.mark.parametrize("told", ["event", "status"])
def test_it_lists_again_when_the_server_forgot_where_that_was(pki: Pki, told: str) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        gone = event("ERROR", GONE)
        script = Script(server, [event("ADDED", pod("a", 11)), gone], [event("ADDED", pod("b", 21))])
        if told == "status":
            usual, script.watches[0] = script._answer, [event("ADDED", pod("a", 11))]

            async def answer(request: web.Request) -> web.StreamResponse:
                if request.query.get("resourceVersion") == "11":
                    return web.json_response(GONE, status=410)
                return await usual(request)

            server.answers[PODS] = answer
        assert await take(api, 4) == [("LIST", 0), ("ADDED", "a"), ("LIST", 0), ("ADDED", "b")]
        assert script.lists == 2

    with_server(pki, work)


def test_a_connection_that_breaks_is_an_end_like_any_other(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        script = Script(server, [event("ADDED", pod("a", 11))], [event("ADDED", pod("b", 12))])
        usual = script._answer

        async def cut(request: web.Request) -> web.StreamResponse:
            if request.query.get("resourceVersion") != "10":
                return await usual(request)
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(script.watches.pop(0)[0] + b'{"type": "ADDED", "obj')
            assert request.transport is not None
            request.transport.abort()
            return response

        server.answers[PODS] = cut
        assert await take(api, 3) == [("LIST", 0), ("ADDED", "a"), ("ADDED", "b")]
        assert script.versions == ["11"]

    with_server(pki, work)


def test_silence_ends_a_watch_and_it_goes_on(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "IDLE_TIMEOUT", 0.1)

    async def work(server: ApiServer, api: ApiClient) -> None:
        script = Script(server, [])
        waiting = asyncio.create_task(take(api, 2))
        while len(script.queries) < 3:  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0.01)
        script.watches = [[event("ADDED", pod("a", 11))]]
        assert (await waiting)[1] == ("ADDED", "a")

    with_server(pki, work)


def test_a_new_network_moves_watches_to_new_connections(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        script = Script(server, [])
        waiting = asyncio.create_task(take(api, 2))
        while not script.queries:  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0.01)
        script.watches = [[event("ADDED", pod("a", 11))]]
        api.reconnect()
        assert (await waiting)[1] == ("ADDED", "a")
        first, second = (request.transport for request in server.requests[1:3])
        assert first is not second

    with_server(pki, work)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nonsense\n", "no event"),
        (b"[1]\n", "no event"),
        (b'{"type": "ADDED"}\n', "no event"),
        (b'{"type": "ADDED", "object": 3}\n', "no event"),
        (b'{"type": "ERROR", "object": {"code": "x"}}\n', "no event"),
        (event("ERROR", {"code": 500, "message": "etcd is away"}), "500 etcd is away"),
        (event("ERROR", {}), "with 500"),
        (b"x" * 2000, "more than 1000 bytes"),
    ],
)
def test_what_is_no_event_ends_it(pki: Pki, data: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MAX_LINE", 1000)

    async def work(server: ApiServer, api: ApiClient) -> None:
        Script(server, [data], [])
        assert words in await failure_of(take(api, 2))

    with_server(pki, work)


@pytest.mark.parametrize(("status", "kind"), [(403, CredentialsRefused), (500, ApiServerUnavailable)])
def test_what_cannot_be_listed_or_watched(pki: Pki, status: int, kind: type[Any]) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def refuse_watch(request: web.Request) -> web.Response:
            return web.json_response({}, status=status if "watch" in request.query else 200)

        server.answer(PODS, {}, status)
        await failure_of(take(api, 1), kind)
        server.answers[PODS] = refuse_watch
        await failure_of(take(api, 2), kind)

    with_server(pki, work)


def test_a_login_page_is_no_watch(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        async def page(request: web.Request) -> web.Response:
            if "watch" in request.query:
                return web.Response(text="<html>", content_type="text/html")
            return web.json_response({})

        server.answers[PODS] = page
        assert "login page" in await failure_of(take(api, 2))

    with_server(pki, work)


def test_a_refused_token_is_renewed_for_a_watch_too(pki: Pki) -> None:
    from tests.kube.test_client_credentials import Renewals

    async def work(server: ApiServer, api: ApiClient) -> None:
        Script(server, [event("ADDED", pod("a", 11))])
        server.tokens = {"new"}
        assert (await take(api, 2))[1] == ("ADDED", "a")

    with_server(pki, work, Renewals("new").of)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_are_the_same_however_they_come(size: int) -> None:
    data = b'{"a": 1}\n\n{"b": 2}\r\n{"c'
    lines = Lines()
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    assert [json.loads(line) for line in found] == [{"a": 1}, {"b": 2}]
