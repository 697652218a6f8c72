"""The stand-ins write down every deed and can refuse."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from telehelper.errors import ResolverError, VifError
from telehelper.messages import SetDns
from telehelper.netd.fakes import RecordingNet, RecordingResolver
from telehelper.netd.plan import Change, Held, difference


def test_every_deed_is_written_down() -> None:
    net, network = RecordingNet(), ip_network("10.0.0.0/8")
    net.set_up(7, 1500)
    for change in difference((), (ip_interface("198.18.0.1/32"), network)):
        net.change(7, change)
    net.change(7, Change("drop", network))
    net.delete_link(7, "tele0")
    assert net.deeds == [
        "up 7 mtu 1500",
        "add 198.18.0.1/32 dev 7",
        "add 10.0.0.0/8 dev 7",
        "drop 10.0.0.0/8 dev 7",
        "delete 7 tele0",
    ]


def test_it_has_what_it_was_given() -> None:
    held = [Held(ip_network("10.0.0.0/8"), 2)]
    assert (RecordingNet().addresses(), RecordingNet().routes()) == ([], [])
    assert (RecordingNet(held).addresses(), RecordingNet(routes=held).routes()) == (held, held)


def test_it_refuses_when_told() -> None:
    net = RecordingNet()
    net.refuse = ("up 7 mtu 1500",)
    with pytest.raises(VifError):
        net.set_up(7, 1500)


def test_the_resolver_too() -> None:
    order = SetDns("auto", "198.18.0.2", ("svc",))
    deeds: list[str] = []
    resolver = RecordingResolver(deeds)
    assert resolver.set(order, 7) == "resolvconf"
    resolver.undo()
    assert deeds == ["resolver 198.18.0.2 svc", "resolver back"]
    with pytest.raises(ResolverError):
        RecordingResolver([], "set").set(order, 7)
    with pytest.raises(PermissionError):
        RecordingResolver([], "undo").undo()
