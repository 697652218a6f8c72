"""`telemagic.connect`, `telemagic.aconnect` and `telemagic.url`: the same as the magics, for scripts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from telehelper.endpoint import PORTFORWARD

from telemagic import config, live
from telemagic.connecting import ConnectOptions
from telemagic.session import session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import TracebackType

    from telehelper.messages import PhaseChanged

    from telemagic.connection import Connection


class PendingConnection:
    """What :func:`aconnect` returns: await it, or use it in `async with`."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        return self._start().__await__()  # type: ignore[no-any-return]

    async def __aenter__(self) -> Connection:
        self._connection = await self._start()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.__aexit__(kind, error, trace)


def connect(
    context: str | None = None,
    namespace: str | None = None,
    kubeconfig: str | os.PathLike[str] | None = None,
    *,
    demo: bool = False,
    timeout: float | None = None,
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    dns: str | None = None,
    carrier: str = PORTFORWARD,
    cidr: Sequence[str] = (),
    on_conflict: str | None = None,
    via: str | None = None,
    manager_namespace: str | None = None,
    share: bool = False,
    allow_wide: bool = False,
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> Connection:
    """Connect this machine to a cluster: its services answer here by name until the connection ends.

    Parameters
    ----------
    context, namespace, kubeconfig
        As all that is None: the user's defaults (:mod:`telemagic.config`), else the kubeconfig's own.
    demo
        Start the embedded cluster, if it is not up, and connect to that.
    timeout
        Seconds, not counting the typing of a password.
    also_proxy, never_proxy
        CIDRs to send to the cluster, and to keep from it, besides those it is found to have.
    dns
        Mechanism by which names resolve: auto, resolved, resolvconf, kernel, or none.
    carrier
        How data travels: "portforward", or "tls://HOST:PORT" or "tcp://HOST:PORT" where the traffic manager listens.
    cidr
        The cluster's networks, instead of those that are found.
    on_conflict
        What to do about a network of the cluster that this machine has already: refuse, take, exclude, or map.
    via, manager_namespace
        How to get in: auto, manager, or agentless; and where a traffic manager is looked for.
    share, allow_wide
        Let other users and containers use it too; let `cidr` and `also_proxy` be wider than /8 (IPv4), /16 (IPv6).
    on_phase
        Called in this thread with each phase's start and end; without it a notebook shows a card.

    Returns
    -------
    Connection
        Also a context manager that disconnects, in `with` and in `async with`.

    Raises
    ------
    TelemagicError
        With a one-line message and a hint; nothing is left behind then.
    """
    asked = _asked(demo, context, namespace, kubeconfig, timeout, dns, on_conflict, via, manager_namespace)
    options = _wholly(asked, also_proxy, never_proxy, cidr, carrier, share, allow_wide)
    viewer = live.viewer_for(live.current_shell(), on_phase)
    return session().connect(options, demo=demo, viewer=viewer)


def aconnect(
    context: str | None = None,
    namespace: str | None = None,
    kubeconfig: str | os.PathLike[str] | None = None,
    *,
    demo: bool = False,
    timeout: float | None = None,  # not a coroutine function, and the timeout is the data plane's too
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    dns: str | None = None,
    carrier: str = PORTFORWARD,
    cidr: Sequence[str] = (),
    on_conflict: str | None = None,
    via: str | None = None,
    manager_namespace: str | None = None,
    share: bool = False,
    allow_wide: bool = False,
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> PendingConnection:
    """Connect as :func:`connect` does, without blocking the event loop: `await` it or use it in `async with`."""
    asked = _asked(demo, context, namespace, kubeconfig, timeout, dns, on_conflict, via, manager_namespace)
    options = _wholly(asked, also_proxy, never_proxy, cidr, carrier, share, allow_wide)
    viewer = live.viewer_for(live.current_shell(), on_phase)
    return PendingConnection(partial(session().aconnect, options, demo=demo, viewer=viewer))


def url(target: str, port: str | int = "", *, context: str = "") -> str:
    """Return the address of a service of the connected cluster, with its port.

    ``url("postgres.shop")`` is ``"postgres.shop:5432"``; ``url("catalog.shop", "http")`` chooses by the port's name;
    ``url("http://catalog.shop/products")`` is ``"http://catalog.shop:8000/products"``.

    Parameters
    ----------
    target
        A service's name, short or full, or a URL with one.
    port
        Name or number, where the service has several.
    context
        Which connection, when there are several.

    Raises
    ------
    NotConnected
        There is no connection.
    UsageError
        There is no such service or port, or several ports to choose from; the hint names them.
    """
    return session().current(context).url(target, port)


def _asked(
    demo: bool,
    context: str | None,
    namespace: str | None,
    kubeconfig: str | os.PathLike[str] | None,
    timeout: float | None,
    dns: str | None,
    on_conflict: str | None,
    via: str | None,
    manager_namespace: str | None,
) -> ConnectOptions:
    """Return what the script says, else the user's defaults, as `telemagic connect` does."""
    given = {
        "context": context,
        "namespace": namespace,
        "kubeconfig": None if kubeconfig is None else os.fspath(kubeconfig),
        "timeout": timeout,
        "dns": dns,
        "on_conflict": on_conflict,
        "via": via,
        "manager_namespace": manager_namespace,
    }
    defaults = config.of_command(config.current(), "connect")
    # Which cluster is looked up later, for a demo and a notebook inside a cluster know it by themselves.
    known = config.NOT_DEMO if demo else config.WHERE
    found: dict[str, Any] = {name: value for name, value in defaults.items() if name not in known}
    return ConnectOptions(**found | {name: value for name, value in given.items() if value is not None})


def _wholly(
    asked: ConnectOptions,
    also_proxy: Sequence[str],
    never_proxy: Sequence[str],
    cidrs: Sequence[str],
    carrier: str,
    share: bool,
    allow_wide: bool,
) -> ConnectOptions:
    """Add what has no default of the user's."""
    return replace(
        asked,
        also_proxy=tuple(also_proxy),
        never_proxy=tuple(never_proxy),
        cidrs=tuple(cidrs),
        carrier=carrier,
        share=share,
        allow_wide=allow_wide,
    )
