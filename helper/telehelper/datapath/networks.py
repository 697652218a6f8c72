"""What is known of the cluster's networks: what the traffic manager says, and what the user's own rights show.

If the manager is certain, nobody else is asked. ``--cidr`` takes the place of both. What was known is not withdrawn at
once: see :class:`~telehelper.datapath.joining.Lingering`.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

from telehelper.background import begin
from telehelper.core import cidr
from telehelper.core.resolv_conf import ResolvConf
from telehelper.datapath.joining import Lingering, is_certain, join
from telehelper.discovery.discovery import Discovered, Explorer
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telehelper.core.cidr import Address
    from telehelper.kube.client import ApiClient
    from telehelper.messages import Connect


class Networks:
    """Joins what several sources know of the cluster.

    Parameters
    ----------
    api
        With the user's own rights.
    request
        What the user asked for.
    on_change
        Hears of each change after the first answer.
    looks
        Whether to look around at all where the uplink's word leaves something open: not if that is what the same
        rights show.
    """

    def __init__(
        self,
        api: ApiClient,
        request: Connect,
        on_change: Callable[[ClusterInfo], None],
        *,
        looks: bool = True,
    ) -> None:
        self._looks = looks
        self._api = api
        self._request = request
        self._on_change = on_change
        self._told = ClusterInfo()
        self._own: Discovered | None = None
        self._known = ClusterInfo()
        self._lingering = Lingering()
        self._timer: asyncio.TimerHandle | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self, info: ClusterInfo) -> ClusterInfo:
        """Take the uplink's first word, look around if it leaves something open, and return what is known together.

        Changes are followed from then on.

        Raises
        ------
        UsageError
            A ``--cidr`` is none.
        """
        for text in self._request.cidrs:
            cidr.parse(text, "--cidr")
        self._told = info
        is_enough = is_certain(info) or bool(self._request.cidrs)
        if self._looks and (not is_enough or not info.dns_server):
            await self._look()
        self._known = self._join()
        return self._known

    def update(self, info: ClusterInfo) -> None:
        """Take a further word of the uplink."""
        self._told = info
        self._tell()
        is_left_open = self._looks and not self._request.cidrs and not is_certain(info)
        if self._following is None and is_left_open:
            # The uplink knew everything and does not any more: another manager, with fewer rights.
            self._following = begin(self._look_and_follow())

    async def close(self) -> None:
        """Stop following."""
        if self._timer is not None:
            self._timer.cancel()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _look(self) -> None:
        explorer = self._explorer()
        self._own = await explorer.look()
        if not self._request.cidrs:
            self._following = begin(explorer.follow(self._own_changed))

    async def _look_and_follow(self) -> None:
        explorer = self._explorer()
        self._own_changed(await explorer.look())
        await explorer.follow(self._own_changed)

    def _explorer(self) -> Explorer:
        namespace = self._request.namespace or self._api.access.namespace
        return Explorer(self._api, ResolvConf(), namespace, excluded=literal(self._api.access.host))

    def _own_changed(self, own: Discovered) -> None:
        self._own = own
        self._tell()

    def _tell(self) -> None:
        known = self._join()
        if known != self._known:
            self._known = known
            self._on_change(known)

    def _join(self) -> ClusterInfo:
        """Return what is known now, and see to it that what lingers is withdrawn in time."""
        loop = asyncio.get_running_loop()
        known = ClusterInfo()
        known.CopyFrom(join(self._told, self._own))
        rows = (
            [
                Cidr(cidr=text, kind="user", source="--cidr", confidence="certain")
                for text in self._request.cidrs
            ]
            if self._request.cidrs
            else self._lingering.update(known.cidrs, loop.time())
        )
        del known.cidrs[:]
        known.cidrs.extend(rows)
        if self._request.cidrs:
            del known.notices[:]
        if self._timer is not None:
            self._timer.cancel()
        due = self._lingering.next_timer()
        self._timer = None if due is None else loop.call_at(due, self._tell)
        return known


def literal(host: str) -> Sequence[Address]:
    """Return the API server's address if it is written as one; the routes leave out those of its name."""
    try:
        return [ip_address(host)]
    except ValueError:
        return []
