"""What routes and plans say of themselves."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from telehelper.core.route_plan import FIRST, HostRoute, PlannedRoute, RoutePlan
from telehelper.errors import CidrConflict

TEN = ip_network("10.0.0.0/8")


def test_a_route_says_what_its_device_is() -> None:
    assert str(HostRoute(TEN, "tun0", what="a VPN")) == "10.0.0.0/8 on tun0 (a VPN)"
    assert str(HostRoute(TEN, "eth0")) == "10.0.0.0/8 on eth0"


@pytest.mark.parametrize(
    ("network", "expected"), [("0.0.0.0/0", True), ("128.0.0.0/1", True), ("10.0.0.0/8", False)]
)
def test_half_of_everything_is_a_default_route_too(network: str, expected: bool) -> None:
    assert HostRoute(ip_network(network), "tun0").is_default is expected


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (HostRoute(TEN, "tun0"), ""),
        (HostRoute(TEN, "eth0", connected=True), "this machine is attached to it"),
        (HostRoute(ip_network("10.0.0.1"), "tun0"), "no route can be more specific"),
        (HostRoute(ip_network("10.0.0.1"), "eth0", table=255, asked=FIRST), "this machine's own"),
        (HostRoute(TEN, "ts0", table=52, asked=FIRST), "a routing rule puts it before all of ours: table 52"),
        (HostRoute(TEN, "unreachable", table=0, asked=FIRST), "a routing rule puts it before all of ours"),
    ],
)
def test_why_a_route_stays(route: HostRoute, why: str) -> None:
    assert route.why_it_stays == why


def test_a_plans_routes_are_its_applied_rows() -> None:
    rows = [
        PlannedRoute(ip_network(f"10.{n}.0.0/16"), "pods", "x", s)
        for n, s in enumerate(("applied", "skipped"))
    ]
    plan = RoutePlan(tuple(rows), notices=("something is left out",))
    assert plan.routes == (ip_network("10.0.0.0/16"),)
    assert str(plan).splitlines()[1:] == [
        "10.1.0.0/16          pods         skipped   x",
        "something is left out",
    ]
    plan.check()


def test_a_plan_with_conflicts_is_refused_with_all_of_them() -> None:
    conflicts = [CidrConflict.of("10.0.0.0/8", f"10.{n}.0.0/16", "tun0") for n in range(2)]
    with pytest.raises(CidrConflict, match=r"10\.0\.0\.0/16 on tun0; 10\.0\.0\.0/8 overlaps 10\.1\.0\.0/16"):
        RoutePlan((), tuple(conflicts)).check()
