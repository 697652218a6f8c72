"""Credentials that the API server refuses are read anew, once, and what is open does not notice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube import client as client_module

from tests.kube.test_client import PODS, failure_of, with_server

if TYPE_CHECKING:
    import pytest
    from telehelper.kube.access import ApiAccess
    from telehelper.kube.client import ApiClient

    from tests.kube.api_server import ApiServer, Pki


class Renewals:
    """Gives an access whose token is renewed as told."""

    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens)
        self.count = 0

    def of(self, access: ApiAccess) -> ApiAccess:
        def again() -> ApiAccess:
            self.count += 1
            token = self.left.pop(0)
            if token == "broken":
                raise KubeconfigError("the kubeconfig has gone", hint="h")
            server = "https://elsewhere" if token == "moved" else access.server
            headers = {"Authorization": f"Bearer {token}"}
            return replace(access, server=server, headers=lambda: headers, again=again)

        return replace(access, again=again)


def test_a_refused_token_is_read_anew_once(pki: Pki) -> None:
    renewals = Renewals("new")

    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"new"}
        server.answer(PODS, {"items": []})
        assert await api.get(PODS) == {"items": []}
        assert await api.get(PODS) == {"items": []}
        assert len(server.requests) == 3
        assert renewals.count == 1

    with_server(pki, work, renewals.of)


def test_many_refused_requests_renew_once(pki: Pki) -> None:
    renewals = Renewals("new")

    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"new"}
        server.answer(PODS, {"items": []})
        await asyncio.gather(*(api.get(PODS) for _ in range(10)))
        assert renewals.count == 1

    with_server(pki, work, renewals.of)


def test_a_token_that_expires_every_now_and_then_is_renewed_each_time(pki: Pki) -> None:
    renewals = Renewals("second", "third")

    async def work(server: ApiServer, api: ApiClient) -> None:
        server.answer(PODS, {})
        for token in ("second", "third"):
            server.tokens = {token}
            assert await api.get(PODS) == {}

    with_server(pki, work, renewals.of)


def test_a_port_forward_renews_too_and_open_ones_do_not_notice(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        first = await api.portforward("shop", "web", 80)
        server.tokens = {"new"}
        second = await api.portforward("shop", "web", 80)
        for stream in (first, second):
            await stream.send((b"hello",))
            assert bytes(await stream.receive()) == b"hello"
            await stream.close()

    with_server(pki, work, Renewals("new").of)


def test_credentials_that_stay_refused_are_not_renewed_at_each_try(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = Renewals("bad", "worse", "worst", "new")

    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"new"}
        server.answer(PODS, {})
        for _ in range(3):
            assert "(401)" in await failure_of(api.get(PODS), CredentialsRefused)
        assert renewals.count == 1
        api.reconnect()  # the network has changed: perhaps that was why
        await failure_of(api.get(PODS), CredentialsRefused)
        assert renewals.count == 2
        monkeypatch.setattr(client_module, "READING_PAUSE", 0.0)
        api.reconnect()
        await failure_of(api.portforward("shop", "web", 80), CredentialsRefused)
        assert await api.get(PODS) == {}
        assert renewals.count == 4

    with_server(pki, work, renewals.of)


def test_a_kubeconfig_that_has_gone_meanwhile(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"new"}
        assert "the kubeconfig has gone" in await failure_of(api.get(PODS), CredentialsRefused)

    with_server(pki, work, Renewals("broken").of)


def test_a_kubeconfig_that_names_another_server_meanwhile(pki: Pki) -> None:
    async def work(server: ApiServer, api: ApiClient) -> None:
        server.tokens = {"moved"}
        assert "(401)" in await failure_of(api.get(PODS), CredentialsRefused)
        assert api.access.server == server.url

    with_server(pki, work, Renewals("moved").of)
