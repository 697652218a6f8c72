"""netd's requests as a transcript: what is asked, answered and done to the network."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from telehelper.errors import ControlError, VifError
from telehelper.messages import (
    PROTOCOL_VERSION,
    Configure,
    DnsSet,
    Done,
    Failed,
    Message,
    OpenVif,
    SetDns,
    Undo,
    VifOpened,
)
from telehelper.netd.fakes import RecordingNet, RecordingResolver
from telehelper.netd.monitor import ORIGIN, Monitor, Reply
from telehelper.netd.plan import Held
from telehelper.netd.vif import Vif

OPEN = OpenVif(PROTOCOL_VERSION, 65000)
CONFIGURE = Configure(("198.19.240.1/32",), ("198.18.0.0/20", "198.19.240.2/32"))
DNS = SetDns("auto", "198.19.240.2", ("shop.svc.cluster.local", "svc.cluster.local"))


class Bench:
    """A monitor with recording ends; `deeds` is everything that was done, in order."""

    def __init__(self, refuse: str = "") -> None:
        self.net = RecordingNet()
        self.deeds = self.net.deeds
        self.resolver = RecordingResolver(self.deeds, refuse)
        self.log: list[str] = []
        self.vif: Vif | VifError = Vif(99, "tele0", 7, 0x67)
        self.monitor = Monitor(self.net, self.open_vif, self.resolver, self.log.append)

    def open_vif(self) -> Vif:
        if isinstance(self.vif, VifError):
            raise self.vif
        return self.vif

    def ask(self, *requests: Message) -> Reply:
        """Make the requests and return the last reply."""
        return [self.monitor.handle(request) for request in requests][-1]


def slug(reply: Reply) -> str:
    assert isinstance(reply.message, Failed)
    return reply.message.slug


def test_a_session_from_start_to_end() -> None:
    bench = Bench()
    # >> OpenVif  << VifOpened with the descriptor
    assert bench.ask(OPEN) == Reply(VifOpened("tele0", 7, 0x67, 10, ORIGIN), fd=99)
    # >> Configure  << Done
    assert bench.ask(CONFIGURE) == Reply(Done())
    # >> the same again  << Done, and nothing happens
    assert bench.ask(CONFIGURE) == Reply(Done())
    # >> SetDns  << DnsSet
    assert bench.ask(DNS) == Reply(DnsSet("resolvconf"))
    # >> fewer routes  << Done
    assert bench.ask(Configure(("198.19.240.1/32",), ("198.19.240.2/32",))) == Reply(Done())
    # >> Undo  << Done, and the end
    assert bench.ask(Undo()) == Reply(Done(), last=True)
    assert bench.deeds == [
        "up 7 mtu 65000",
        "add 198.19.240.1/32 dev 7",
        "add 198.18.0.0/20 dev 7",
        "add 198.19.240.2/32 dev 7",
        "resolver 198.19.240.2 shop.svc.cluster.local svc.cluster.local",
        "drop 198.18.0.0/20 dev 7",
        "resolver back",
        "delete 7 tele0",
    ]
    assert bench.log == [
        "made tele0",
        "add address 198.19.240.1/32",
        "add route 198.18.0.0/20",
        "add route 198.19.240.2/32",
        "resolver: resolvconf",
        "drop route 198.18.0.0/20",
        "undone: the resolver configuration",
        "undone: interface tele0",
    ]


def test_undo_before_anything_does_nothing() -> None:
    bench = Bench()
    assert bench.ask(Undo()) == Reply(Done(), last=True)
    assert bench.deeds == []


def test_undo_happens_once() -> None:
    bench = Bench()
    bench.ask(OPEN, CONFIGURE, DNS, Undo())
    done = list(bench.deeds)
    assert bench.monitor.undo() is None
    assert bench.deeds == done


def test_a_refused_value_changes_nothing_and_netd_goes_on() -> None:
    bench = Bench()
    bench.ask(OPEN)
    assert slug(bench.ask(Configure((), ("0.0.0.0/0",)))) == "helper-refused"
    assert bench.deeds == []
    assert bench.ask(CONFIGURE) == Reply(Done())


def test_a_network_that_appears_later_does_not_keep_the_rest_from_changing() -> None:
    bench = Bench()
    bench.ask(OPEN, CONFIGURE)
    bench.net.routes().append(Held(ip_network("198.18.3.0/24"), 2))  # inside a route that we have
    more = Configure(CONFIGURE.addresses, (*CONFIGURE.routes, "10.3.0.1/32"))
    assert bench.ask(more) == Reply(Done())
    assert bench.deeds[-1] == "add 10.3.0.1/32 dev 7"
    clashing = Configure(CONFIGURE.addresses, (*more.routes, "198.18.2.0/23"))
    assert slug(bench.ask(clashing)) == "cidr-conflict", "what is new is looked at"
    bench.ask(Configure(CONFIGURE.addresses, CONFIGURE.routes[1:]))
    assert slug(bench.ask(CONFIGURE)) == "cidr-conflict", "and what was gone is new"


def test_a_wrong_version_opens_nothing() -> None:
    bench = Bench()
    assert slug(bench.ask(OpenVif(PROTOCOL_VERSION + 1, 1500))) == "helper-refused"
    assert slug(bench.ask(CONFIGURE)) == "vif"
    assert bench.ask(Undo()).message == Done()
    assert bench.deeds == []


def test_no_tun_is_said() -> None:
    bench = Bench()
    bench.vif = VifError("cannot open /dev/net/tun")
    assert slug(bench.ask(OPEN)) == "vif"


def test_a_refusing_kernel_leaves_the_former_configuration() -> None:
    bench = Bench()
    bench.ask(OPEN, CONFIGURE)
    bench.net.refuse = ("add 10.0.0.0/8 dev 7",)
    wider = Configure(CONFIGURE.addresses, (*CONFIGURE.routes, "10.0.0.0/8"))
    assert slug(bench.ask(wider)) == "vif"
    bench.net.refuse = ()
    bench.deeds.clear()
    assert bench.ask(CONFIGURE) == Reply(Done())
    assert bench.deeds == []


def test_a_failing_resolver_is_put_back_all_the_same() -> None:
    bench = Bench(refuse="set")
    assert slug(bench.ask(OPEN, CONFIGURE, DNS)) == "resolver"
    bench.ask(Undo())
    assert bench.deeds[-2:] == ["resolver back", "delete 7 tele0"]


def test_each_step_of_undo_is_guarded() -> None:
    bench = Bench(refuse="undo")
    bench.net.refuse = ("delete 7 tele0",)
    reply = bench.ask(OPEN, CONFIGURE, DNS, Undo())
    assert reply.last
    assert isinstance(reply.message, Failed)
    assert reply.message.slug == "undo-incomplete"
    assert reply.message.data == {"left": "the resolver configuration, interface tele0"}
    assert bench.deeds[-2:] == ["resolver back", "delete 7 tele0"]


def test_a_surprise_is_the_callers_to_end() -> None:
    with pytest.raises(ControlError):
        Bench().ask(CONFIGURE)
