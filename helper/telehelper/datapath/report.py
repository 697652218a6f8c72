"""What the data plane tells of itself: pure functions from its state to the control vocabulary."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.route_plan import APPLIED, MAPPED, SKIPPED
from telehelper.messages import CidrRow, RouteRow

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import Iterable

    from telehelper.core.address_map import Mapping
    from telehelper.core.flows import FlowRecord
    from telehelper.core.frames import Address
    from telehelper.core.route_plan import RoutePlan
    from telehelper.rpc.manager_pb2 import ClusterInfo

UNKNOWN = -1.0  # a time or a duration that is not there yet


class Owner(NamedTuple):
    """Whose flow it is, on this machine; unknown numbers are -1."""

    uid: int = -1
    pid: int = -1
    process: str = ""
    notebook: str = ""
    cell: int = -1


class Place(NamedTuple):
    """What an address is in the cluster. ``service`` is name.namespace; ``pod`` only where it is certain which."""

    service: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""


NOBODY: Final = Owner()
NOWHERE: Final = Place()


def flow_values(
    record: FlowRecord, clock_offset: float, name: str, owner: Owner = NOBODY, place: Place = NOWHERE
) -> tuple[object, ...]:
    """Describe one flow: the values of a :class:`~telehelper.observing.FlowRow`, in the order of its fields.

    Parameters
    ----------
    record
        With monotonic times.
    clock_offset
        What makes Unix seconds of monotonic ones.
    name
        That was resolved to its address.
    owner, place
        Of the flow's two ends.
    """
    opened, connected = record.opened_at, record.connected_at
    first_byte, closed = record.first_byte_at, record.closed_at
    five = record.five_tuple
    return (
        record.flow,
        five.protocol.name,
        str(five.src),
        five.sport,
        str(five.dst),
        five.dport,
        name,
        record.state,
        opened + clock_offset,
        UNKNOWN if closed is None else closed + clock_offset,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN if connected is None else connected - opened,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN if connected is None or first_byte is None else first_byte - connected,
        UNKNOWN,
        UNKNOWN,
        record.bytes_up,
        record.bytes_down,
        record.packets_up,
        record.packets_down,
        record.reason,
        *place,
        *owner,
    )


def cidr_rows(info: ClusterInfo) -> tuple[CidrRow, ...]:
    """Describe the cluster's CIDRs, as the manager found them."""
    return tuple(CidrRow(c.cidr, c.kind, c.source, c.confidence) for c in info.cidrs)


def route_rows(plan: RoutePlan, device: str) -> tuple[RouteRow, ...]:
    """Describe a plan that is in force on `device`."""
    return tuple(
        RouteRow(
            str(row.network),
            device if row.state == APPLIED else row.device,
            row.kind,
            row.source,
            row.state,
            row.detail,
        )
        for row in plan.rows
    )


def resolved_rows(
    singles: Iterable[Address],
    mappings: Iterable[Mapping],
    refused: abc.Mapping[Address, str],
    device: str,
    names: abc.Mapping[Address, str],
) -> tuple[RouteRow, ...]:
    """Describe what was routed, mapped, or refused (with the reason), because a name led there."""

    def row(address: Address, device: str, state: str, detail: str = "") -> RouteRow:
        name = names.get(address, "")
        source = f"resolved: {name}" if name else "resolved"
        return RouteRow(str(ip_network(address)), device, "address", source, state, detail)

    return (
        *(row(address, device, "resolved") for address in singles),
        *(row(pair.mapped, device, MAPPED, f"stands for {pair.real}") for pair in mappings),
        *(row(address, "", SKIPPED, reason) for address, reason in refused.items()),
    )
