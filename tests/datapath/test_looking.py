"""Which question of a kernel is answered by whom."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from telehelper.core.dns_message import from_text
from telehelper.core.dns_names import Origin
from telehelper.datapath import looking
from telehelper.errors import ControlError, NotConnected, UsageError
from telehelper.messages import GetStatus
from telehelper.rpc.manager_pb2 import ClusterInfo
from telehelper.views import GetLookup, GetPods, GetServices, Lookup, PodTable, Resolve, ServiceTable

from tests.datapath.test_inventory import Api, pod, service

ORIGINS = {(from_text("postgres.shop"), 1): Origin("cache", from_text("postgres.shop.svc.cluster.local"))}
VIF: Any = SimpleNamespace(router=SimpleNamespace(resolver=None), namer=SimpleNamespace(origins=ORIGINS))
INFO = ClusterInfo(namespaces=["default", "shop"], cluster_domain="cluster.local")


def ask(request: Any, info: ClusterInfo | None = INFO, api: Any = None) -> Any:
    found = api or Api(services=[service()], pods=[pod()])
    found.lists["/api/v1/namespaces/shop/services"] = [service()]
    return asyncio.run(looking.answer(request, found, VIF, "shop", info))


def test_lists() -> None:
    for request in (GetServices(), GetServices(everywhere=True), GetServices("shop")):
        table = ask(request)
        assert isinstance(table, ServiceTable)
        assert [row.name for row in table.rows] == ["postgres"]
    assert isinstance(ask(GetPods(everywhere=True)), PodTable)


def test_a_namespace_that_does_not_exist_is_refused_by_what_is_known() -> None:
    with pytest.raises(UsageError, match="no namespace 'nowhere'"):
        ask(GetPods("nowhere"))
    assert ask(GetPods("nowhere"), info=None).rows == ()


def test_lookups() -> None:
    assert ask(GetLookup("postgres.shop")) == Lookup("cache", "postgres.shop.svc.cluster.local")
    assert ask(GetLookup("other.shop")) == Lookup("")
    with pytest.raises(NotConnected, match="no resolver yet"):
        ask(Resolve("postgres.shop"))


def test_before_there_is_a_connection() -> None:
    with pytest.raises(NotConnected):
        asyncio.run(looking.answer(GetServices(), None, VIF, "shop", None))


def test_other_questions_are_not_for_here() -> None:
    assert not isinstance(GetStatus(), looking.REQUESTS)
    for api in (None, Api()):  # whether connected or not
        with pytest.raises(ControlError, match="may not send GetStatus"):
            asyncio.run(looking.answer(GetStatus(), api, VIF, "shop", INFO))
