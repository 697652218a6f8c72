"""The index follows a real API server: lists, watches, and what is left where these are forbidden."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
import uvloop
from telehelper.datapath.agentless import catalog as catalog_module
from telehelper.datapath.agentless.catalog import Catalog, open_catalog
from telehelper.datapath.agentless.objects import EndpointSlice, Key, Pod, Service
from telehelper.errors import ApiServerUnavailable, CredentialsRefused
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient

from tests.datapath.agentless.builders import endpoint, metadata, service
from tests.datapath.agentless.shop_in_process import Shop
from tests.datapath.waiting import WAIT, until
from tests.kube.api_server import Pki, kubeconfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

WEB = Key("shop", "web")
CLUSTER_WIDE = (
    "/api/v1/services",
    "/api/v1/pods",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/api/v1/endpoints",
)
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"


@pytest.fixture(autouse=True)
def _fast(fast_back_off: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "POLL", 0.02)


def run(pki: Pki, folder: Path, body: Callable[[Shop, ApiClient], Awaitable[None]]) -> None:
    async def everything() -> None:
        async with asyncio.timeout(WAIT), Shop(pki).run() as shop:
            access = await asyncio.to_thread(
                ApiAccess.from_kubeconfig, str(kubeconfig(folder, pki, shop.api.url))
            )
            async with ApiClient(access) as api:
                await body(shop, api)
            await until(lambda: not shop.watchers, "the end of all watches")

    uvloop.run(everything())


@contextlib.asynccontextmanager
async def opened(api: ApiClient) -> AsyncIterator[Catalog]:
    catalog = await open_catalog(api, "shop")
    try:
        yield catalog
    finally:
        await catalog.close()


def has(catalog: Catalog, kind: type[Service | EndpointSlice | Pod], name: str) -> bool:
    return Key("shop", name) in catalog.index.keys(kind)


def test_everything_is_there_at_first(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async with opened(api) as catalog:
            assert catalog.index.namespaces is None
            assert catalog.index.keys(Service) == [WEB]
            assert {key.name for key in catalog.index.keys(Pod)} == {"web-0", "web-1"}
            assert len(list(catalog.index.routes(WEB))) == 2
            assert catalog.error == ""

    run(pki, tmp_path, body)


def test_changes_are_followed(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async with opened(api) as catalog:
            await until(lambda: shop.watchers == 3, "all watches")
            shop.put("services", service("db", "10.96.0.2"))
            shop.drop("pods", "web-1")
            await until(lambda: has(catalog, Service, "db") and not has(catalog, Pod, "web-1"), "the changes")
            shop.replace_pod("web-0", "web-9", "10.0.0.9")
            await until(
                lambda: [route.endpoint.pod for route in catalog.index.routes(WEB)] == [Key("shop", "web-9")]
            )

    run(pki, tmp_path, body)


def test_a_pod_that_is_over_is_taken_out(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async with opened(api) as catalog:
            await until(lambda: shop.watchers == 3, "all watches")
            shop.add_pod("web-1", "10.0.0.2", phase="Succeeded")
            await until(lambda: not has(catalog, Pod, "web-1"), "its end")

    run(pki, tmp_path, body)


def test_what_was_missed_is_made_up_for_by_the_next_list(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async with opened(api) as catalog:
            await until(lambda: shop.watchers == 3, "all watches")
            del shop.lists["pods"]["web-1"]
            shop.lists["services"]["db"] = service("db", "10.96.0.2")
            shop.end_watches()
            await until(
                lambda: has(catalog, Service, "db") and not has(catalog, Pod, "web-1"), "the new lists"
            )

    run(pki, tmp_path, body)


def test_with_rights_in_one_namespace_only_that_is_read(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.forbidden |= set(CLUSTER_WIDE)
        async with opened(api) as catalog:
            assert catalog.index.namespaces == {"shop"}
            assert has(catalog, Service, "web")
            assert has(catalog, Pod, "web-0")

    run(pki, tmp_path, body)


@pytest.mark.parametrize("why", ["forbidden", "not there"])
def test_where_slices_cannot_be_read_endpoints_are(pki: Pki, tmp_path: Path, why: str) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        path = CLUSTER_WIDE[2]
        if why == "forbidden":
            shop.forbidden |= {path}
        else:
            del shop.api.answers[path]
        target = endpoint("10.0.0.1", "web-0")["targetRef"]
        subset = {
            "addresses": [{"ip": "10.0.0.1", "targetRef": target}],
            "ports": [{"name": "http", "port": 8080}],
        }
        shop.put("endpoints", {"metadata": metadata("web"), "subsets": [subset]})
        async with opened(api) as catalog:
            assert [route.endpoint.pod for route in catalog.index.routes(WEB)] == [Key("shop", "web-0")]

    run(pki, tmp_path, body)


def test_where_lists_may_not_be_watched_they_are_asked_for_again(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.may_watch = False
        async with opened(api) as catalog:
            shop.put("services", service("db", "10.96.0.2"))
            await until(lambda: has(catalog, Service, "db"), "the new service")
            shop.drop("services", "db")
            await until(lambda: not has(catalog, Service, "db"), "its end")
            assert catalog.error == ""

    run(pki, tmp_path, body)


def test_an_expired_token_is_noticed_and_a_new_one_taken(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async with opened(api) as catalog:
            await until(lambda: shop.watchers == 3, "all watches")
            tokens, shop.api.tokens = shop.api.tokens, set()
            shop.end_watches()
            await until(lambda: "401" in catalog.error, "the error")
            shop.put("services", service("db", "10.96.0.2"))
            shop.api.tokens = tokens
            catalog.wake()
            await until(lambda: has(catalog, Service, "db"), "the new service")
            await until(lambda: catalog.error == "", "the end of the error")

    run(pki, tmp_path, body)


@pytest.mark.parametrize("what", ["services", "endpoints", "pods"])
def test_without_rights_it_says_which_it_takes(pki: Pki, tmp_path: Path, what: str) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.forbidden |= {*CLUSTER_WIDE, f"/api/v1/namespaces/shop/{what}"}
        if what == "endpoints":
            shop.forbidden.add(SLICES)
        with pytest.raises(CredentialsRefused, match="must be readable") as caught:
            await open_catalog(api, "shop")
        assert "'shop'" in caught.value.hint
        assert "get, list and watch on services, endpointslices and pods" in caught.value.hint

    run(pki, tmp_path, body)


def test_an_unknown_token_is_no_question_of_rights(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.api.tokens = set()
        with pytest.raises(CredentialsRefused, match="401"):
            await open_catalog(api, "shop")
        assert not any("namespaces" in request.path for request in shop.api.requests)

    run(pki, tmp_path, body)


def test_an_api_server_that_answers_nonsense_is_an_error(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.api.answer("/api/v1/pods", "<html>Log in</html>")
        with pytest.raises(ApiServerUnavailable):
            await open_catalog(api, "shop")

    run(pki, tmp_path, body)


def test_objects_that_are_none_are_passed_over(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        shop.api.answer(
            "/api/v1/pods", {"items": [7, {}, {"metadata": {"name": "../x", "namespace": "shop"}}]}
        )
        async with opened(api) as catalog:
            assert catalog.index.keys(Pod) == []

    run(pki, tmp_path, body)


def test_opening_that_is_given_up_leaves_nothing(pki: Pki, tmp_path: Path) -> None:
    async def body(shop: Shop, api: ApiClient) -> None:
        async def never(_: object) -> None:
            await asyncio.Event().wait()

        shop.api.answers["/api/v1/pods"] = never  # type: ignore[assignment]  # it never returns
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await open_catalog(api, "shop")
        await until(lambda: not shop.watchers, "the end of all watches")
        ours = {task for task in asyncio.all_tasks() - before if "catalog" in repr(task)}
        assert ours == set()

    run(pki, tmp_path, body)
