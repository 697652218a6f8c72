"""Break a demo cluster on purpose, and mend it: the faults of :mod:`telemagic.demo.faults`, carried out."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.faults import LASTING, NAMES, PASSAGE
from telemagic.demo.kinds import KIND, Target
from telemagic.demo.passage import CUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.apiserver import ApiServer
    from telemagic.demo.faults import Faults
    from telemagic.demo.node import Node

Options = dict[str, Any]
MANAGER: Final = "telemagic-manager"  # the label app.kubernetes.io/name of all managers
_TEXTS: Final = {"forbid": ("verb", "resource"), "pod-deleted": ("app",)}


class Breaker:
    """Carries faults out.

    Parameters
    ----------
    faults
        What requests feel.
    api
        The server that is stopped, and through which pods are deleted.
    node
        What runs the pods.
    expire_tokens, renew_tokens
        What `token-expired` and `token-renewed` do.
    """

    def __init__(
        self,
        faults: Faults,
        api: ApiServer,
        node: Node,
        expire_tokens: Callable[[], None],
        renew_tokens: Callable[[], None],
    ) -> None:
        self._faults = faults
        self._api = api
        self._node = node
        self._expire_tokens = expire_tokens
        self._renew_tokens = renew_tokens
        self._mending: dict[tuple[str, ...], asyncio.Task[None]] = {}

    async def do(self, name: str, options: Options) -> None:
        """Carry one fault out; one with `seconds` ends by itself.

        Raises
        ------
        ValueError
            There is no such fault, or its options are no such options; the message is for the user.
        """
        seconds = check(name, options)
        match name:
            case "token-renewed":
                self._renew_tokens()
            case "manager-killed":
                self._signal_managers(signal.SIGKILL)
            case "pod-deleted":
                self._delete_pods(options["app"])
            case _ if name == CUT:
                if not self._faults.passage.cut():
                    raise ValueError("no port is forwarded")
            case "clear":
                await self._clear()
            case _:
                await self._switch(name, options, is_on=True)
                self._mend_later(name, options, seconds)

    async def close(self) -> None:
        """Let go on what stands still, and forget what else was to be mended."""
        for task in self._mending.values():
            task.cancel()
        await asyncio.gather(*self._mending.values(), return_exceptions=True)
        self._faults.passage.clear()
        self._signal_managers(signal.SIGCONT)

    async def _switch(self, name: str, options: Options, *, is_on: bool) -> None:
        match name:
            case "api-stop":
                await (self._api.listeners.pause() if is_on else self._api.listeners.resume())
            case "api-html":
                self._faults.page = is_on
            case "api-truncated":
                self._faults.truncated = is_on
            case "websocket-refused":
                self._faults.no_upgrade = is_on
            case "token-expired" if is_on:
                self._expire_tokens()
            case "token-expired":
                self._faults.expired.clear()
            case "forbid":
                change = self._faults.forbid if is_on else self._faults.allow
                change(options["verb"], options["resource"])
            case "manager-frozen":
                self._signal_managers(signal.SIGSTOP if is_on else signal.SIGCONT)
            case _ if name in PASSAGE:
                self._faults.passage.switch(name, is_on=is_on)

    def _mend_later(self, name: str, options: Options, seconds: float) -> None:
        key = (name, *(str(options.get(option)) for option in _TEXTS.get(name, ())))
        if (before := self._mending.pop(key, None)) is not None:
            before.cancel()
        if seconds:
            self._mending[key] = asyncio.create_task(self._mend(name, options, seconds))

    async def _mend(self, name: str, options: Options, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._switch(name, options, is_on=False)

    async def _clear(self) -> None:
        await self.close()
        self._mending.clear()
        self._faults.clear()
        await self._api.listeners.resume()

    def _signal_managers(self, number: signal.Signals) -> None:
        pids = [pod.pid for pod in self._node.pods_of(MANAGER) if pod.pid]
        if not pids and number != signal.SIGCONT:  # one that has gone need not go on
            raise ValueError("no manager is running")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _delete_pods(self, app: str) -> None:
        items = list(self._node.items_of(app))
        if not items:
            raise ValueError(f"there is no pod of the app {app!r}")
        for item in items:
            metadata = item["metadata"]
            target = Target(KIND["pods"], metadata["namespace"], metadata["name"])
            self._api.writer.delete(target, {}, dry_run=False)


def check(name: str, options: Options) -> float:
    """Check what a fault is asked with, and return its seconds; 0 for no end.

    Raises
    ------
    ValueError
        With a message for the user.
    """
    if name not in NAMES:
        raise ValueError(f"there is no fault {name!r}; there are: {', '.join(NAMES)}")
    wanted = _TEXTS.get(name, ())
    for option in wanted:
        if not isinstance(options.get(option), str) or not options[option]:
            raise ValueError(f"the fault {name} needs {' and '.join(wanted)}")
    unknown = options.keys() - {*wanted, *(["seconds"] if name in LASTING else [])}
    if unknown:
        raise ValueError(f"the fault {name} has no {' and no '.join(sorted(unknown))}")
    seconds = options.get("seconds", 0)
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds!r} is no number of seconds")
    return float(seconds)
