"""From the data plane's state to rows of the control vocabulary."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.address_map import Mapping
from telehelper.core.flows import FiveTuple, FlowRecord
from telehelper.core.frames import Proto
from telehelper.core.route_plan import APPLIED, CONFLICT, PlannedRoute, RoutePlan
from telehelper.datapath.report import (
    NOWHERE,
    UNKNOWN,
    Owner,
    Place,
    cidr_rows,
    flow_sample,
    flow_text,
    flow_values,
    resolved_rows,
    route_rows,
    service_of,
)
from telehelper.messages import CidrRow, RouteRow
from telehelper.observing import FLOW_COLUMNS, FlowRow
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

HERE, THERE = IPv4Address("198.19.240.0"), IPv4Address("198.18.0.9")
RECORD = FlowRecord(
    flow=7,
    five_tuple=FiveTuple(Proto.TCP, HERE, 40000, THERE, 5432),
    state="ESTABLISHED",
    opened_at=100.0,
    connected_at=100.25,
    first_byte_at=100.75,
    closed_at=None,
    bytes_up=10,
    bytes_down=20,
    packets_up=1,
    packets_down=2,
    reason="",
)


def row_of(record: FlowRecord, offset: float = 0.0, name: str = "") -> FlowRow:
    return FlowRow(*flow_values(record, offset, name))  # type: ignore[arg-type]  # their types are the fields'


def test_an_open_flow() -> None:
    assert row_of(RECORD, 1000.0, "postgres.shop") == FlowRow(
        flow=7,
        protocol="TCP",
        src="198.19.240.0",
        sport=40000,
        dst="198.18.0.9",
        dport=5432,
        name="postgres.shop",
        state="ESTABLISHED",
        opened_at=1100.0,
        closed_at=UNKNOWN,
        connect=0.25,
        first_byte=0.5,
        bytes_up=10,
        bytes_down=20,
        packets_up=1,
        packets_down=2,
        reason="",
    )


def test_a_closed_flow_has_an_end_and_a_reason() -> None:
    row = row_of(RECORD._replace(closed_at=101.0, state="CLOSED", reason="FIN"), 1000.0)
    assert (row.closed_at, row.state, row.reason, row.name) == (1101.0, "CLOSED", "FIN", "")


def test_a_flow_that_never_connected_has_no_durations() -> None:
    row = row_of(RECORD._replace(connected_at=None, first_byte_at=None), 0.0)
    assert (row.connect, row.first_byte) == (UNKNOWN, UNKNOWN)


def test_a_flow_without_an_answer_yet() -> None:
    row = row_of(RECORD._replace(first_byte_at=None), 0.0)
    assert (row.connect, row.first_byte) == (0.25, UNKNOWN)


def test_where_the_time_went() -> None:
    row = row_of(
        RECORD._replace(last_byte_at=102.75, dns=0.01, queue=0.02, tunnel=0.03, dial=0.04, wait=0.05)
    )
    assert (row.dns, row.queue, row.tunnel, row.dial, row.wait, row.transfer) == (
        *(0.01, 0.02, 0.03, 0.04, 0.05),
        2.0,
    )


def test_a_flow_whose_last_byte_went_before_the_first_came_has_transferred_in_no_time() -> None:
    assert row_of(RECORD._replace(last_byte_at=100.5)).transfer == 0


@given(st.text(), st.floats(0, 4e9), st.floats(0, 1e5), st.integers(0, 2**60), st.text())
def test_the_text_of_a_row_is_its_values(
    name: str, offset: float, dns: float, bytes_up: int, reason: str
) -> None:
    """What the fast encoder makes is what the general one would, in whole microseconds."""
    record = RECORD._replace(dns=dns, bytes_up=bytes_up, reason=reason, closed_at=101.0)
    owner, place = Owner(1000, 77, 'py"thon', "über.ipynb", 3), Place("postgres.shop", "shop", "pg-0", "n")
    values = flow_values(record, offset, name, owner, place)
    told = json.loads(flow_text(values))
    assert [type(value) for value in told] == [type(value) for value in values]
    assert told == [pytest.approx(value, abs=1e-6) if isinstance(value, float) else value for value in values]
    assert len(told) == len(FLOW_COLUMNS)


def test_what_a_flow_tells_of_its_service() -> None:
    record = RECORD._replace(dial=0.1, wait=0.2)
    place = Place("postgres.shop", "shop")
    assert flow_sample(record, "pg", place) == ("postgres.shop:5432", False, 0.25, 0.1, 0.5, 0.2)
    refused = RECORD._replace(connected_at=None, first_byte_at=None, failure="refused")
    assert flow_sample(refused, "", NOWHERE) == ("198.18.0.9:5432", True, -1, -1, -1, -1)
    assert not flow_sample(refused._replace(is_strangers=True), "", NOWHERE).failed


def test_the_other_side_cannot_say_that_a_flow_was_a_strangers() -> None:
    refused = RECORD._replace(failure="refused", reason="not yours: uid 0's")
    assert row_of(refused).reason == "the other side says: not yours: uid 0's"
    assert flow_sample(refused, "", NOWHERE).failed
    assert row_of(refused._replace(is_strangers=True)).reason == "not yours: uid 0's"
    assert row_of(RECORD._replace(reason="not found")).reason == "not found"


@pytest.mark.parametrize(
    ("address", "port", "name", "place", "service"),
    [
        ("198.18.0.9", 5432, "pg", Place("postgres.shop"), "postgres.shop:5432"),
        ("198.18.0.9", 5432, "pg", NOWHERE, "pg:5432"),
        ("198.18.0.9", 5432, "", NOWHERE, "198.18.0.9:5432"),
        ("fd12::9", 5432, "", NOWHERE, "[fd12::9]:5432"),
        ("fd12::9", 5432, "pg", NOWHERE, "pg:5432"),
        ("fd12::9", 0, "", NOWHERE, "fd12::9"),
        ("198.18.0.9", 0, "pg", NOWHERE, "pg"),
    ],
)
def test_the_name_of_the_other_end(address: str, port: int, name: str, place: Place, service: str) -> None:
    assert service_of(ip_address(address), port, name, place) == service


def test_cidrs_as_the_manager_found_them() -> None:
    found = Cidr(cidr="198.18.0.0/16", kind="pods", source="node podCIDR", confidence="certain")
    assert cidr_rows(ClusterInfo(cidrs=[found])) == (
        CidrRow("198.18.0.0/16", "pods", "node podCIDR", "certain"),
    )
    assert cidr_rows(ClusterInfo()) == ()


def test_routes_applied_or_not() -> None:
    applied = PlannedRoute(ip_network("198.18.0.0/16"), "pods", "node podCIDR", APPLIED)
    conflict = PlannedRoute(
        ip_network("198.19.0.0/24"), "services", "ServiceCIDR", CONFLICT, "overlaps eth0", "eth0"
    )
    assert route_rows(RoutePlan((applied, conflict)), "tele0") == (
        RouteRow("198.18.0.0/16", "tele0", "pods", "node podCIDR", "applied", ""),
        RouteRow("198.19.0.0/24", "eth0", "services", "ServiceCIDR", "conflict", "overlaps eth0"),
    )


def test_what_names_led_to() -> None:
    mapped, stranger = IPv4Address("198.19.192.1"), IPv4Address("8.8.8.8")
    found = resolved_rows(
        [THERE],
        [Mapping(mapped, IPv4Address("10.0.0.9"))],
        {stranger: "a public address"},
        "tele0",
        {THERE: "postgres.shop", mapped: "catalog.shop"},
    )
    assert found == (
        RouteRow("198.18.0.9/32", "tele0", "address", "resolved: postgres.shop", "resolved", ""),
        RouteRow(
            "198.19.192.1/32", "tele0", "address", "resolved: catalog.shop", "mapped", "stands for 10.0.0.9"
        ),
        RouteRow("8.8.8.8/32", "", "address", "resolved", "skipped", "a public address"),
    )
