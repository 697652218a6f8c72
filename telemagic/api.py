"""`telemagic.connect` and `telemagic.aconnect`: the same as `%tele connect`, for scripts."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from telehelper.endpoint import PORTFORWARD

from telemagic import live
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
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> Connection:
    """Connect this machine to a cluster: its services answer here by name until the connection ends.

    Parameters
    ----------
    context, namespace, kubeconfig
        The kubeconfig's own unless given.
    demo
        Start the embedded cluster, if it is not up, and connect to that.
    timeout
        Seconds, not counting the typing of a password.
    also_proxy, never_proxy
        CIDRs to send to the cluster, and to keep from it, besides those it is found to have.
    dns
        Mechanism by which names resolve: auto, resolvconf, or none.
    carrier
        How data travels: "portforward", or "tls://HOST:PORT" or "tcp://HOST:PORT" where the traffic manager listens.
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
    options, viewer = _options(
        context, namespace, kubeconfig, timeout, also_proxy, never_proxy, dns, carrier, on_phase
    )
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
    on_phase: Callable[[PhaseChanged], None] | None = None,
) -> PendingConnection:
    """Connect as :func:`connect` does, without blocking the event loop: `await` it or use it in `async with`."""
    options, viewer = _options(
        context, namespace, kubeconfig, timeout, also_proxy, never_proxy, dns, carrier, on_phase
    )
    return PendingConnection(partial(session().aconnect, options, demo=demo, viewer=viewer))


def _options(
    context: str | None,
    namespace: str | None,
    kubeconfig: str | os.PathLike[str] | None,
    timeout: float,
    also_proxy: Sequence[str],
    never_proxy: Sequence[str],
    dns: str,
    carrier: str,
    on_phase: Callable[[PhaseChanged], None] | None,
) -> tuple[ConnectOptions, live.Viewer]:
    options = ConnectOptions(
        context or "",
        namespace or "",
        os.fspath(kubeconfig) if kubeconfig is not None else "",
        timeout,
        tuple(also_proxy),
        tuple(never_proxy),
        dns,
        carrier=carrier,
    )
    return options, live.viewer_for(live.current_shell(), on_phase)
