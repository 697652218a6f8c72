"""Addresses that stand for others: for names in a network of the cluster that this machine has another use for.

Theory of operation
-------------------
With ``--on-conflict map`` nothing of a network in conflict is routed. A name that leads there is answered with an
address of a pool of ours, which is; :class:`~telehelper.datapath.address_map.AddressMapper` turns it back into the real one
where flows are opened. So both worlds can be reached at once, the cluster's by name only.

*Promise.* A mapped address never means another real one while somebody may still use it: while a flow is open to it,
or until HOLD after it was last given out or its last flow ended. If all of the pool is in such use, there is no address
for a new one, and its name is answered without it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telehelper.core.cidr import Address, Network

# Seconds. Answers live for 10 at most (dns_cache.MAX_TTL), but programs keep what they once resolved for much longer:
# a connection pool reconnects to it, a JVM remembers it.
HOLD: Final = 3600.0


class Mapping(NamedTuple):
    """A pair of addresses."""

    mapped: Address
    real: Address


class _Entry:
    """Who stands for whom, until when at least, and how many flows use it."""

    __slots__ = ("flows", "mapped", "real", "until")

    def __init__(self, mapped: Address, real: Address) -> None:
        self.mapped = mapped
        self.real = real
        self.until = 0.0
        self.flows = 0


class AddressMap:
    """One family's mapped addresses; `pool` is theirs alone, its first and last address stay unused."""

    def __init__(self, pool: Network) -> None:
        self.pool = pool
        self._given = 0
        self._by_real: OrderedDict[Address, _Entry] = OrderedDict()  # the one used longest ago first
        self._by_mapped: dict[Address, _Entry] = {}
        self._flows: dict[int, _Entry] = {}

    def __iter__(self) -> Iterator[Mapping]:
        return (Mapping(entry.mapped, entry.real) for entry in self._by_real.values())

    def assign(self, real: Address, now: float) -> Address | None:
        """Return the address that stands for `real`; None if none is free."""
        entry = self._by_real.get(real)
        if entry is None:
            mapped = self._next(now)
            if mapped is None:
                return None
            entry = self._by_real[real] = self._by_mapped[mapped] = _Entry(mapped, real)
        self._use(entry, now)
        return entry.mapped

    def real(self, mapped: Address) -> Address | None:
        """Return whom an address stands for; None if for nobody."""
        entry = self._by_mapped.get(mapped)
        return entry.real if entry is not None else None

    def flow_opened(self, flow: int, mapped: Address) -> Address | None:
        """Take note of a flow and return whom it is for; None if the address stands for nobody."""
        entry = self._by_mapped.get(mapped)
        if entry is None or flow in self._flows:
            return entry.real if entry is not None else None
        self._flows[flow] = entry
        entry.flows += 1
        return entry.real

    def flow_closed(self, flow: int, now: float) -> None:
        """Take note that a flow is over; it may be another's."""
        entry = self._flows.pop(flow, None)
        if entry is not None:
            entry.flows -= 1
            self._use(entry, now)

    def _use(self, entry: _Entry, now: float) -> None:
        entry.until = now + HOLD
        self._by_real.move_to_end(entry.real)

    def _next(self, now: float) -> Address | None:
        if self._given < self.pool.num_addresses - 2:
            self._given += 1
            return self.pool[self._given]
        for entry in self._by_real.values():
            if entry.until > now:
                break  # so are all that follow
            if not entry.flows:
                del self._by_real[entry.real], self._by_mapped[entry.mapped]
                return entry.mapped
        return None
