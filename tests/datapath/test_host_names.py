"""The host's resolver: set, checked by a name that only we know, watched, set again; on a scripted netd and file."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import pytest
from telehelper.datapath import host_names
from telehelper.datapath.host_names import HostNames, Wish, is_ours, look_up
from telehelper.errors import HelperLost, HelperRefused, ResolverError, TelemagicError
from telehelper.messages import DnsSet, SetDns

from tests.datapath.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

OURS = "198.19.240.1"
COMPANY = "nameserver 10.0.0.1\nsearch corp.example\n"


def ours(below: str = COMPANY, server: str = OURS) -> str:
    was = json.dumps({"kind": "file", "text": below})
    return f"# telemagic netd 1 2 a-b\n# was {was}\nnameserver {server}\n"


class Host:
    """A machine: netd that writes its file, and programs whose questions arrive or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(COMPANY)
        self.orders: list[SetDns] = []
        self.refuses: set[str] = set()
        self.refusal: TelemagicError = ResolverError("cannot write")
        self.auto = "resolvconf"
        self.working = {"resolved", "resolvconf"}
        self.in_force = "none"
        self.said: list[str] = []
        self.upstreams: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.names = HostNames(
            self,  # type: ignore[arg-type]  # a netd that only sets DNS
            arrives=self.arrives,
            note=self.said.append,
            upstreams_changed=self.upstreams.append,
            path=path,
            ask=self.asked.append,
        )

    async def set_dns(self, order: SetDns) -> DnsSet:
        self.orders.append(order)
        mechanism = self.auto if order.mechanism == "auto" else order.mechanism
        if mechanism in self.refuses:
            raise self.refusal
        self.in_force = mechanism
        self.path.write_text(ours() if mechanism == "resolvconf" else COMPANY)
        return DnsSet(mechanism)

    async def arrives(self, label: bytes, within: float) -> bool:
        assert within == host_names.PROBE_TIMEOUT
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.asked[-1].startswith(label.decode())
        return self.in_force in self.working

    def mechanisms(self) -> list[str]:
        return [order.mechanism for order in self.orders]


def wish(mechanism: str = "auto", *domains: str) -> Wish:
    return Wish(mechanism, OURS, ("shop.svc.cluster.local",), domains or ("cluster.local", "~svc"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(host_names, "LOOK", 0.001)
    monkeypatch.setattr(host_names, "PROBES", (0.001, 0.001))
    return Host(tmp_path / "resolv.conf")


def run(host: Host, test: Callable[[HostNames], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await test(host.names)
        finally:
            await host.names.close()

    asyncio.run(main())


def test_a_file_that_works_and_the_nameservers_it_replaced(host: Host) -> None:
    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        assert (names.mechanism, names.upstreams) == ("resolvconf", ("10.0.0.1",))
        (asked,) = host.asked
        assert asked.startswith("telemagic-")
        assert is_ours(asked)
        assert asked.endswith(".shop.svc.cluster.local.")
        assert host.said == []

    run(host, test)
    assert host.orders[0].domains == ("cluster.local", "~svc")


@pytest.mark.parametrize("mechanism", ["kernel", "none"])
def test_a_machine_that_must_not_be_touched_is_not(host: Host, mechanism: str) -> None:
    async def test(names: HostNames) -> None:
        await names.point(wish(mechanism))
        await names.check()
        assert names.mechanism == mechanism

    run(host, test)
    assert (host.orders, host.asked) == ([], [])


@pytest.mark.parametrize(
    ("working", "tried", "ends"),
    [
        ({"resolved"}, ["auto"], "resolved"),
        ({"resolvconf"}, ["auto", "resolvconf"], "resolvconf"),
        (set(), ["auto", "resolvconf", "none"], "kernel"),
    ],
)
def test_what_does_not_work_is_followed_by_the_next(
    host: Host, working: set[str], tried: list[str], ends: str
) -> None:
    host.auto, host.working = "resolved", working

    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        assert names.mechanism == ends

    run(host, test)
    assert host.mechanisms() == tried
    assert len(host.said) == len(tried) - 1 + (ends == "kernel")


def test_what_netd_cannot_do_at_all_is_done_in_the_kernel_and_told(host: Host) -> None:
    host.auto = "none"

    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        assert names.mechanism == "kernel"

    run(host, test)
    assert host.said == [
        "DNS: this machine's resolver cannot be changed, so names resolve in this notebook only"
    ]


def test_a_refused_second_way_leaves_the_last(host: Host) -> None:
    host.auto, host.working, host.refuses = "resolved", set(), {"resolvconf"}

    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        assert names.mechanism == "kernel"

    run(host, test)
    assert host.mechanisms() == ["auto", "resolvconf", "none"]


def test_what_the_user_insists_on_must_work(host: Host) -> None:
    host.working = set()

    async def test(names: HostNames) -> None:
        await names.point(wish("resolvconf"))
        with pytest.raises(ResolverError, match="do not reach the cluster by resolvconf") as caught:
            await names.check()
        assert "--dns auto" in caught.value.hint

    run(host, test)


# --- watching ----------------------------------------------------------------------------------------------------


def test_an_overwritten_file_is_set_again_once_and_its_nameservers_are_used(host: Host) -> None:
    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        host.path.write_text("nameserver 10.0.0.2\n")  # a DHCP client
        await until(lambda: host.said)
        assert host.mechanisms() == ["auto", "resolvconf"]
        assert names.mechanism == "resolvconf"
        host.path.write_text("nameserver 10.0.0.33\n")  # it insists
        await until(lambda: len(host.said) == 2)
        assert names.mechanism == "none"
        assert "was overwritten again" in host.said[1]
        assert host.mechanisms() == ["auto", "resolvconf"]

    run(host, test)
    assert host.said[0].endswith("was overwritten by another program; it was set again")


@pytest.mark.parametrize("refusal", [ResolverError, HelperRefused, HelperLost])
def test_a_file_that_cannot_be_set_again_is_told(host: Host, refusal: type[TelemagicError]) -> None:
    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        host.refuses, host.refusal = {"resolvconf"}, refusal("cannot write")
        host.path.write_text("nameserver 10.0.0.2\n")
        await until(lambda: host.said)
        assert names.mechanism == "none"

    run(host, test)
    assert "cannot be set again: cannot write" in host.said[0]


def test_another_connection_above_or_gone_from_below(host: Host) -> None:
    async def test(names: HostNames) -> None:
        host.path.write_text(ours(server="198.19.240.9"))
        await names.point(wish("none"))
        assert names.upstreams == ("198.19.240.9",)
        names._asked = "resolvconf"
        host.path.write_text(ours(ours(server="198.19.240.9")))
        names._watcher = asyncio.create_task(names._watch())
        await until(lambda: names._seen != ())
        assert names.upstreams == ("198.19.240.9",)
        host.path.write_text(
            ours(ours(COMPANY), server="198.19.240.7")
        )  # a third one on top, the first one gone
        await until(lambda: names.upstreams == ("10.0.0.1",))
        assert host.said == []

    run(host, test)


def test_a_forgetful_systemd_resolved_is_told_again(host: Host) -> None:
    host.auto = "resolved"

    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.check()
        await until(lambda: len(host.asked) > 3)
        host.in_force = "none"  # it was restarted
        await until(lambda: host.said)
        assert host.mechanisms() == ["auto", "resolved"]
        host.in_force = "none"
        await until(lambda: names.mechanism == "none")
        host.in_force = "resolved"  # by itself, after all
        await until(lambda: names.mechanism == "resolved")

    run(host, test)
    assert (
        host.said[0] == "DNS: what systemd-resolved was told was undone by another program; it was set again"
    )
    assert "again: the cluster's names do not resolve" in host.said[1]
    assert host.said[2] == "DNS: names arrive again by resolved"


def test_changed_namespaces_are_told_to_systemd_resolved_only(host: Host) -> None:
    host.auto = "resolved"

    async def test(names: HostNames) -> None:
        await names.point(wish())
        await names.change(wish())
        await names.change(wish("auto", "cluster.local", "~new"))
        assert host.mechanisms() == ["auto", "resolved"]
        assert host.orders[-1].domains == ("cluster.local", "~new")

    run(host, test)


def test_what_systemd_resolved_sends_us_never_goes_back(host: Host) -> None:
    host.auto = "resolved"

    async def test(names: HostNames) -> None:
        host.path.write_text("nameserver 127.0.0.53\nnameserver 10.0.0.1\n")
        names._asked = "resolved"
        names._read_upstreams()
        assert names.upstreams == ("10.0.0.1",)

    run(host, test)


@pytest.mark.parametrize("name", ["localhost.", "not a name at all.."])
def test_looking_up_waits_for_nobody(name: str) -> None:
    before = set(threading.enumerate())
    look_up(name)
    (thread,) = set(threading.enumerate()) - before or [None]  # perhaps it has ended already
    if thread is not None:
        assert thread.daemon  # the data plane may end meanwhile
        thread.join(10)  # what it raised would fail this test
        assert not thread.is_alive()


def test_names_of_our_own_are_told_from_those_of_programs() -> None:
    assert is_ours("tele-doctor-1234.shop.svc")
    assert not is_ours("postgres.telemagic-shop")
