"""`telemagic.connect`, `telemagic.aconnect` and `telemagic.url`: the same as the magics, for scripts."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from telehelper.endpoint import PORTFORWARD

from telemagic import config, live, showing
from telemagic.session import session
from telemagic.target import ConnectOptions

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
        return await self._connection.__aenter__()

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
        Also a context manager that disconnects, in `with` and in `async with`; not what was connected before.

    Raises
    ------
    TelemagicError
        One of `telemagic.errors`, with a one-line message and a hint; nothing is left behind then.
    """
    options, viewer = _options(**locals()), _viewer(on_phase)
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
    options, viewer = _options(**locals()), _viewer(on_phase)
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


def _options(demo: bool, **given: Any) -> ConnectOptions:  # noqa: ANN401  # what connect was given; None: nothing
    """Return the options of a script: what it gives, else the user's defaults, as `telemagic connect` does."""
    defaults = config.of_command(config.current(), "connect")
    # Which cluster is looked up later, for a demo and a notebook inside a cluster know it by themselves.
    known = config.NOT_DEMO if demo else config.WHERE
    others: dict[str, Any] = {name: value for name, value in defaults.items() if name not in known}
    given["cidrs"] = given.pop("cidr")
    for name in ("cidrs", "also_proxy", "never_proxy"):
        given[name] = _several(given[name])
    if given["kubeconfig"] is not None:
        given["kubeconfig"] = os.fspath(given["kubeconfig"])
    del given["on_phase"]
    return ConnectOptions(**others | {name: value for name, value in given.items() if value is not None})


def _viewer(on_phase: Callable[[PhaseChanged], None] | None) -> live.Viewer:
    shell = live.current_shell()
    if shell is not None:
        showing.register(shell)  # also where nobody has loaded the magics
    return live.viewer_for(shell, on_phase)


def _several(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)  # a text is a sequence as well, of letters
