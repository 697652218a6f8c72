from __future__ import annotations

import asyncio
from typing import Any

from telehelper.core.resolv_conf import ResolvConf
from telehelper.discovery.discovery import NODES, SERVICE_CIDRS, Discovered, Explorer, FakeApiReader
from telehelper.errors import ApiServerUnavailable
from telehelper.manager.cluster_info import ClusterInfoBoard

SERVICE_CIDR: dict[str, Any] = {
    "items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00::/108"]}}]
}


def test_the_board_shows_at_once_and_then_changes_only() -> None:
    async def scenario() -> None:
        board = ClusterInfoBoard()
        watch = board.watch()
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        one, two = Discovered(dns_server="1"), Discovered(dns_server="2")
        board.publish(one)
        assert await first == one
        board.publish(one)
        second = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not second.done()
        board.publish(two)
        assert await second == two
        assert await anext(board.watch()) == two

    asyncio.run(scenario())


def test_while_nothing_is_known_it_is_looked_again_soon_and_then_followed() -> None:
    async def scenario() -> None:
        board = ClusterInfoBoard()
        reader = FakeApiReader({NODES: ApiServerUnavailable("starting")})
        task = asyncio.ensure_future(board.follow(Explorer(reader, ResolvConf()), 0.01))
        async with asyncio.timeout(10):
            watch = board.watch()
            assert (await anext(watch)).cidrs == ()
            reader.objects[SERVICE_CIDRS] = SERVICE_CIDR
            info = await anext(watch)
            assert [one.cidr for one in info.cidrs] == ["10.96.0.0/12", "fd00::/108"]
            reader.objects[NODES] = {
                "items": [{"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24"}}]
            }
            while len(info.cidrs) < 3:
                info = await anext(watch)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
