"""Carrying out permitted requests in order, and taking everything back in the reverse one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from telehelper.errors import TelemagicError, UndoIncomplete, VifError
from telehelper.messages import Configure, DnsSet, Done, Failed, Message, OpenVif, SetDns, VifOpened
from telehelper.netd.netlink import Netlink
from telehelper.netd.permits import Gate, check_configure, check_conflicts, check_dns, check_open
from telehelper.netd.plan import Log, VifConfig, apply, difference
from telehelper.netd.resolver import HostResolver
from telehelper.netd.vif import VNET_HDR_SIZE, Vif

ORIGIN: Final = str(Path(__file__).parents[2])  # the directory that this code is in


class Reply(NamedTuple):
    """What to answer. ``fd`` rides along and is closed afterwards; after ``last`` netd exits."""

    message: Message
    fd: int | None = None
    last: bool = False


class Monitor:
    """netd's state: which requests came, what was done. Does nothing by itself; `main.py` feeds it."""

    def __init__(self, net: Netlink, open_vif: Callable[[], Vif], resolver: HostResolver, log: Log) -> None:
        self._net, self._open_vif, self._resolver, self._log = net, open_vif, resolver, log
        self._gate = Gate()
        self._vif: Vif | None = None
        self._mtu, self._wide = 0, False
        self._config: VifConfig = ()
        self._resolver_touched = False

    def handle(self, request: Message) -> Reply:
        """Carry out one request; ControlError if it is not permitted now: the caller undoes everything and exits."""
        self._gate.admit(request)
        try:
            if isinstance(request, OpenVif):
                return self._open(request)
            if isinstance(request, Configure):
                return self._configure(request)
            if isinstance(request, SetDns):
                return self._set_dns(request)
            left = self.undo()  # the gate admits nothing else
            return Reply(Failed.of(left) if left else Done(), last=True)
        except TelemagicError as error:
            self._log(f"refused: {error}")
            return Reply(Failed.of(error))

    def _open(self, request: OpenVif) -> Reply:
        check_open(request)
        vif = self._open_vif()
        self._vif, self._mtu, self._wide = vif, request.mtu, request.wide
        self._log(f"made {vif.name}")
        return Reply(VifOpened(vif.name, vif.index, vif.offload, VNET_HDR_SIZE, ORIGIN), fd=vif.fd)

    def _configure(self, request: Configure) -> Reply:
        if self._vif is None:
            raise VifError("there is no interface to configure: opening it failed")
        wanted = check_configure(request, wide=self._wide)
        index = self._vif.index
        # Only what is new: a network that somebody made since must not keep us from changing something else.
        new = [item for item in wanted if item not in self._config]
        check_conflicts(new, index, self._net.addresses(), self._net.routes())
        if not self._config:  # down until now
            self._net.set_up(index, self._mtu)
        apply(self._net, index, difference(self._config, wanted), self._log)
        self._config = wanted
        return Reply(Done())

    def _set_dns(self, request: SetDns) -> Reply:
        check_dns(request, self._config)
        self._resolver_touched = True
        mechanism = self._resolver.set(request, self._vif.index if self._vif is not None else 0)
        self._log(f"resolver: {mechanism}")
        return Reply(DnsSet(mechanism))

    def undo(self) -> UndoIncomplete | None:
        """Take everything back, last first; each step whatever became of the others. Idempotent."""
        left: list[str] = []
        if self._resolver_touched:
            self._step("the resolver configuration", self._resolver.undo, left)
            self._resolver_touched = False
        vif, self._vif = self._vif, None
        if vif is not None:  # its addresses and routes go with it
            self._step(f"interface {vif.name}", lambda: self._net.delete_link(vif.index, vif.name), left)
        names = ", ".join(left)
        return UndoIncomplete(f"left behind: {names}", left=names) if left else None

    def _step(self, what: str, undo: Callable[[], None], left: list[str]) -> None:
        try:
            undo()
        except Exception as error:  # whatever goes wrong, the next step must have its turn
            self._log(f"cannot undo {what}: {error}")
            left.append(what)
        else:
            self._log(f"undone: {what}")
