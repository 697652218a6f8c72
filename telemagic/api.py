"""`telemagic.connect`, `telemagic.aconnect` and `telemagic.url`: the same as the magics, for scripts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from telehelper.endpoint import PORTFORWARD

from telemagic import live, showing
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
    timeout: float = 30.0,
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    dns: str = "auto",
    carrier: str = PORTFORWARD,
    cidr: Sequence[str] = (),
    on_conflict: str = "refuse",
    via: str = "auto",
    manager_namespace: str = "telemagic",
    share: bool = False,
    allow_wide: bool = False,
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> Connection:
    """Connect this machine to a cluster: its services answer here by name until the connection ends.

    Parameters
    ----------
    context, namespace, kubeconfig
        Unless given, those of the user's defaults (:mod:`telemagic.config`), else the kubeconfig's own.
    demo
        Start the embedded cluster, if it is not up, and connect to that.
    timeout
        Seconds, not counting the typing of a password.
    also_proxy, never_proxy
        CIDRs to send to the cluster, and to keep from it, besides those it is found to have; one, or a list.
    dns
        Mechanism by which names resolve: auto, resolved, resolvconf, kernel, or none.
    carrier
        How data travels: "portforward", or "tls://HOST:PORT" or "tcp://HOST:PORT" where the traffic manager listens.
    cidr
        The cluster's networks, instead of those that are found; one, or a list.
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
        One of `telemagic.errors`, with a one-line message and a hint; nothing is left behind then.
    """
    where = _where(context, namespace, kubeconfig, manager_namespace, allow_wide)
    options = _options(where, timeout, also_proxy, never_proxy, cidr, on_conflict, dns, carrier, via, share)
    viewer = _viewer(on_phase)
    return session().connect(options, demo=demo, viewer=viewer)


def aconnect(
    context: str | None = None,
    namespace: str | None = None,
    kubeconfig: str | os.PathLike[str] | None = None,
    *,
    demo: bool = False,
    timeout: float = 30.0,  # not a coroutine function, and the timeout is the data plane's too
    also_proxy: Sequence[str] = (),
    never_proxy: Sequence[str] = (),
    dns: str = "auto",
    carrier: str = PORTFORWARD,
    cidr: Sequence[str] = (),
    on_conflict: str = "refuse",
    via: str = "auto",
    manager_namespace: str = "telemagic",
    share: bool = False,
    allow_wide: bool = False,
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> PendingConnection:
    """Connect as :func:`connect` does, without blocking the event loop: `await` it or use it in `async with`."""
    where = _where(context, namespace, kubeconfig, manager_namespace, allow_wide)
    options = _options(where, timeout, also_proxy, never_proxy, cidr, on_conflict, dns, carrier, via, share)
    viewer = _viewer(on_phase)
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


def _where(
    context: str | None,
    namespace: str | None,
    kubeconfig: str | os.PathLike[str] | None,
    manager_namespace: str,
    allow_wide: bool,
) -> ConnectOptions:
    return ConnectOptions(
        context or "",
        namespace or "",
        os.fspath(kubeconfig) if kubeconfig is not None else "",
        manager_namespace=manager_namespace,
        allow_wide=allow_wide,
    )


def _options(
    where: ConnectOptions,
    timeout: float,
    also_proxy: Sequence[str],
    never_proxy: Sequence[str],
    cidrs: Sequence[str],
    on_conflict: str,
    dns: str,
    carrier: str,
    via: str,
    share: bool,
) -> ConnectOptions:
    return replace(
        where,
        timeout=timeout,
        also_proxy=_several(also_proxy),
        never_proxy=_several(never_proxy),
        cidrs=_several(cidrs),
        on_conflict=on_conflict,
        dns=dns,
        carrier=carrier,
        via=via,
        share=share,
    )


def _viewer(on_phase: Callable[[PhaseChanged], None] | None) -> live.Viewer:
    shell = live.current_shell()
    if shell is not None:
        showing.register(shell)  # also where nobody has loaded the magics
    return live.viewer_for(shell, on_phase)


def _several(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)  # a text is a sequence as well, of letters
