"""Answers what notebooks ask about the cluster's services, pods and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from telehelper.datapath import inventory, probe
from telehelper.errors import ControlError, NotConnected
from telehelper.views import GetLookup, GetPods, GetServices, Resolve

if TYPE_CHECKING:
    from telehelper.datapath.vif import Vif
    from telehelper.kube.client import ApiClient
    from telehelper.messages import Message
    from telehelper.rpc.manager_pb2 import ClusterInfo

REQUESTS: Final = (GetServices, GetPods, Resolve, GetLookup)


async def answer(
    request: Message, api: ApiClient | None, vif: Vif, namespace: str, info: ClusterInfo | None
) -> Message:
    """Carry out what a kernel asks about the cluster.

    Parameters
    ----------
    api, vif
        Of the connection.
    namespace
        The connected one.
    info
        What is known of the cluster.

    Raises
    ------
    TelemagicError
        What the kernel shall see.
    """
    if not isinstance(request, REQUESTS):
        raise ControlError(f"a kernel may not send {type(request).__name__}")
    if api is None:
        raise NotConnected("not connected yet")

    known = info.namespaces if info is not None else ()
    match request:
        case GetServices():
            scope = inventory.Scope(request.namespace, request.everywhere, namespace, known)
            return await inventory.services(api, scope)
        case GetPods():
            scope = inventory.Scope(request.namespace, request.everywhere, namespace, known)
            return await inventory.pods(api, scope)
        case Resolve():
            return await probe.resolve(
                request.name,
                request.rtype,
                server=vif.router.resolver,
                origins=lambda: vif.namer.origins,
                domain=info.cluster_domain if info is not None else "",
            )
        case GetLookup():
            return probe.find_lookup(request.name, vif.namer.origins)
        case _:
            assert_never(request)
