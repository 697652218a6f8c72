"""What tests compare before and after: what somebody does to the machine shows, what it does by itself does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.inside import inside, machine, wait_until


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def of_eth7() -> list[str]:
    return [line for line in machine().splitlines() if "eth7" in line and "eth8@" not in line]


@inside()
def test_a_carrier_that_comes_is_no_change() -> None:
    ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
    for name in ("eth7", "eth8"):  # with a carrier IPv6 gets a route more, for multicast
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    ip("link", "set", "eth7", "up")
    ip("route", "add", "192.0.2.0/24", "dev", "eth7")
    assert "NO-CARRIER" in ip("link", "show", "eth7")
    assert "linkdown" in ip("route", "show", "192.0.2.0/24")
    before = of_eth7()
    assert len(before) >= 2
    ip("link", "set", "eth8", "up")
    assert wait_until(
        lambda: "LOWER_UP> " in ip("link", "show", "eth7") and "state UP" in ip("link", "show", "eth7")
    )
    assert "linkdown" not in ip("route", "show", "192.0.2.0/24")
    assert of_eth7() == before, (of_eth7(), before)


@inside()
def test_a_link_that_is_set_down_is_a_change() -> None:
    ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
    ip("link", "set", "eth7", "up")
    before = of_eth7()
    ip("link", "set", "eth7", "down")
    assert of_eth7() != before
