"""What there is to see: flows and whose they are; answers what kernels ask about it.

Who caused a flow, and what its address is in the cluster, are the business of two others (`owners`, `places`), which may
be put in any time; until then flows are nobody's and lead nowhere.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.datapath.report import NOBODY, NOWHERE, flow_values
from telehelper.errors import ControlError
from telehelper.observing import FlowTable, GetEvents, GetFlows, GetLatency, Unwatch, Watch

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple
    from telehelper.core.frames import Address
    from telehelper.datapath.control_io import Kernel
    from telehelper.datapath.report import Owner, Place
    from telehelper.datapath.vif import Vif
    from telehelper.messages import Message

REQUESTS: Final = (GetFlows, GetEvents, GetLatency, Watch, Unwatch)


class Owners(Protocol):
    """Who knows whose flows are. Nothing here may block."""

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        """Learn of a new flow: its SYN has come, or its first datagram, and its OPEN has not been sent yet.

        Who finds out only later whose it is says so by :meth:`Observer.touch`.
        """

    def owner_of(self, flow: int) -> Owner:
        """Return whose flow it is, as far as is known."""

    def forget(self, flow: int) -> None:
        """Learn that a flow is over and its owner will not be asked for any more."""


class Places(Protocol):
    """Who knows what an address is in the cluster. Nothing here may block."""

    def place_of(self, address: Address) -> Place:
        """Return what an address is, as far as is known. Asked often: a look-up, no search."""


class Nobody:
    """Knows no owners."""

    def flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        """See :class:`Owners`."""

    def owner_of(self, _flow: int) -> Owner:
        """See :class:`Owners`."""
        return NOBODY

    def forget(self, flow: int) -> None:
        """See :class:`Owners`."""


class Nowhere:
    """Knows no places."""

    def place_of(self, _address: Address) -> Place:
        """See :class:`Places`."""
        return NOWHERE


class Observer:
    """Sees all that the data plane shows of its flows.

    Attributes
    ----------
    owners, places
        Who knows whose flows are, and where they lead.
    """

    def __init__(self, vif: Vif) -> None:
        self.owners: Owners = Nobody()
        self.places: Places = Nowhere()
        self._vif = vif
        vif.flow_opened = self._flow_opened

    async def answer(self, request: Message, _kernel: Kernel) -> Message:
        """Carry out one of `REQUESTS`."""
        match request:
            case GetFlows():
                return self._flows()
        raise ControlError(f"{type(request).__name__} is not answered yet")

    def touch(self, flow: int) -> None:
        """Learn that a flow's owner has become known."""

    def places_changed(self) -> None:
        """Learn that addresses have become something else in the cluster."""

    def kernel_left(self, kernel: Kernel) -> None:
        """Learn that a kernel has gone."""

    # --- inside

    def _flow_opened(self, flow: int, five_tuple: FiveTuple) -> None:
        self.owners.flow_opened(flow, five_tuple)
        self.places.place_of(five_tuple.dst)  # so that it is known when it is asked for

    def _flows(self) -> FlowTable:
        offset = time.time() - time.monotonic()
        owner_of, place_of, names = self.owners.owner_of, self.places.place_of, self._vif.namer.names
        rows = [
            flow_values(
                record,
                offset,
                names.get(record.five_tuple.dst, ""),
                owner_of(record.flow),
                place_of(record.five_tuple.dst),
            )
            for record in self._vif.snapshot()
        ]
        return FlowTable(time.time(), json.dumps(rows), self._vif.drops)
