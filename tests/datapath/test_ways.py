"""Which way into a cluster is taken, and what is said of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from telehelper.datapath import ways
from telehelper.datapath.tunnel import Tunnel
from telehelper.datapath.tunnel_fake import RecordingUser
from telehelper.datapath.ways import LIMITS, AgentlessWay, ManagerWay, WayIn, choose_way
from telehelper.errors import CredentialsRefused, ManagerUnavailable, TelemagicError, UsageError
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.messages import Connect

from tests.datapath.agentless.shop_in_process import Shop, forbidden
from tests.datapath.agentless.test_catalog import CLUSTER_WIDE
from tests.datapath.test_cluster import pod
from tests.datapath.waiting import WAIT
from tests.kube.api_server import Pki, kubeconfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aiohttp import web

MANAGERS = "/api/v1/namespaces/telemagic/pods"
FORWARD = f"{MANAGERS}/manager-0/portforward"


def request(**options: Any) -> Connect:
    return Connect(kubeconfig="", context="", namespace="", timeout=10.0, **options)


def run(pki: Pki, folder: Path, body: Callable[[Shop, ApiClient], Awaitable[None]]) -> None:
    async def everything() -> None:
        async with asyncio.timeout(WAIT), Shop(pki).run() as shop:
            access = await asyncio.to_thread(
                ApiAccess.from_kubeconfig, str(kubeconfig(folder, pki, shop.api.url))
            )
            async with ApiClient(access) as api:
                await body(shop, api)

    uvloop.run(everything())


def chosen(pki: Pki, folder: Path, prepare: Callable[[Shop], None], **options: Any) -> WayIn | TelemagicError:
    """The way that is taken, or why there is none."""
    found: list[WayIn | TelemagicError] = []

    async def body(shop: Shop, api: ApiClient) -> None:
        prepare(shop)
        try:
            found.append(await choose_way(request(**options), api, folder / "relay"))
        except TelemagicError as error:
            found.append(error)

    run(pki, folder, body)
    return found[0]


def with_manager(shop: Shop) -> None:
    """A ready manager, whose pod takes port-forwards."""
    shop.api.answer(MANAGERS, {"items": [pod("manager-0")]})
    shop.api.answers[FORWARD] = lambda asked: shop._forward(asked, "manager-0")


def with_strangers_manager(shop: Shop) -> None:
    with_manager(shop)

    async def refuse(_: web.Request) -> web.StreamResponse:
        return forbidden("pods/portforward")

    shop.api.answers[FORWARD] = refuse


def with_hidden_namespace(shop: Shop) -> None:
    shop.api.answer(MANAGERS, {"kind": "Status", "message": "pods is forbidden"}, 403)


def without_anything(_: Shop) -> None:
    """No namespace for a manager."""


def with_gone_manager(shop: Shop) -> None:
    with_manager(shop)
    del shop.api.answers[FORWARD]
    shop.api.answer(FORWARD, {"kind": "Status"}, 404)


def test_a_manager_that_we_may_use_is_taken(pki: Pki, tmp_path: Path) -> None:
    way = chosen(pki, tmp_path, with_manager)
    assert isinstance(way, ManagerWay)
    assert (way.via, way.carrier, way.notices, way.addresses) == ("manager", "portforward", (), ())


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (without_anything, "there is no traffic manager in namespace 'telemagic'"),
        (with_gone_manager, "the traffic manager telemagic/manager-0 has just gone"),
        (with_hidden_namespace, "you may not look for a traffic manager in namespace 'telemagic'"),
        (with_strangers_manager, "you may not forward ports to the traffic manager telemagic/manager-0"),
    ],
)
def test_without_one_it_is_agentless_and_says_why(
    pki: Pki, tmp_path: Path, prepare: Callable[[Shop], None], why: str
) -> None:
    way = chosen(pki, tmp_path, prepare)
    assert isinstance(way, AgentlessWay)
    assert (way.via, way.carrier, way.addresses) == ("agentless", "portforward", ())
    assert way.notices[0] == f"agentless, because {why}"
    assert set(LIMITS) < set(way.notices)


def test_a_manager_that_is_wanted_is_never_done_without(pki: Pki, tmp_path: Path) -> None:
    async def body(_: Shop, api: ApiClient) -> None:
        for options in ({"via": "manager"}, {"carrier": "tcp://127.0.0.1:7777"}):
            way = await choose_way(request(**options), api, tmp_path / "relay")
            assert isinstance(way, ManagerWay)
            with pytest.raises(ManagerUnavailable) as caught:
                await way.open(Tunnel(_never, RecordingUser()))
            assert "%tele install" in caught.value.hint
            assert "--via agentless" in caught.value.hint

    run(pki, tmp_path, body)


async def _never(_: Tunnel) -> Any:
    raise AssertionError("nobody connects")


def test_agentless_is_taken_where_it_is_wanted(pki: Pki, tmp_path: Path) -> None:
    way = chosen(pki, tmp_path, with_manager, via="agentless")
    assert isinstance(way, AgentlessWay)
    assert not any("because" in notice for notice in way.notices)


def test_a_carrier_to_a_manager_does_not_fit_agentless(pki: Pki, tmp_path: Path) -> None:
    error = chosen(pki, tmp_path, with_manager, via="agentless", carrier="tls://lb.example:443")
    assert isinstance(error, UsageError)
    assert "tls://lb.example:443" in error.message
    assert error.hint


@pytest.mark.parametrize("via", ["auto", "agentless"])
def test_who_may_not_forward_ports_is_told_at_once(pki: Pki, tmp_path: Path, via: str) -> None:
    error = chosen(pki, tmp_path, lambda shop: shop.forbidden.add("get"), via=via)
    assert isinstance(error, CredentialsRefused)
    assert "may not forward ports to the pods of namespace 'shop'" in error.message
    assert ("no traffic manager" in error.message) == (via == "auto")
    assert "get and create on pods/portforward" in error.hint


def test_old_clusters_need_no_create_for_a_websocket(pki: Pki, tmp_path: Path) -> None:
    way = chosen(pki, tmp_path, lambda shop: shop.forbidden.add("create"), via="agentless")
    assert isinstance(way, AgentlessWay)


def test_an_unknown_token_is_the_next_steps_error(pki: Pki, tmp_path: Path) -> None:
    def forget(shop: Shop) -> None:
        shop.api.tokens = set()

    assert isinstance(chosen(pki, tmp_path, forget), ManagerWay), "its opening says what is wrong"


def test_an_open_way_says_what_it_leads_to(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.forbidden |= set(CLUSTER_WIDE)
        way = await choose_way(request(), api, tmp_path / "relay")
        uplink = await way.open(Tunnel(_never, RecordingUser()))
        try:
            why = "there is no traffic manager in namespace 'telemagic'"
            assert way.detail == f"agentless, namespace shop only: {why}"
            assert way.notices[-1] == "agentless: what is visible is namespace shop only"
            assert uplink.manager == ""
        finally:
            await uplink.close("enough")

    run(pki, tmp_path, body)


def test_the_machines_own_nameservers_are_taken_as_they_are_now(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[str] = ["192.0.2.53"]
    monkeypatch.setattr(ways, "read_host_dns", lambda: type("Dns", (), {"nameservers": tuple(servers)}))
    way = chosen(pki, tmp_path, without_anything)
    servers[:] = ["198.19.240.2"]  # ours, from now on
    assert isinstance(way, AgentlessWay)
    assert way._nameservers == ("192.0.2.53",)
