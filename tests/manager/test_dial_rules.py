"""What the manager does not dial: itself, its node, metadata services, and the same in disguise."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from telehelper.manager.dial_rules import DialRules, embedded, is_own

NODE = ip_address("10.0.0.7")


@pytest.mark.parametrize(
    ("dst", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("10.0.0.7", "--allow-node"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:10.0.0.7", "--allow-node"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b:1::169.254.169.254", "link-local"),
        ("64:ff9b:1:ffff::10.0.0.7", "--allow-node"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2002:7f00:1::", "loopback"),
        ("64:ff9b::100.100.100.200", "metadata"),
    ],
)
def test_refused(dst: str, why: str) -> None:
    rules = DialRules(node=[NODE])
    for _ in range(2):  # a verdict is remembered
        assert why in rules.refusal(ip_address(dst), 80)


@pytest.mark.parametrize(
    "dst",
    [
        "10.96.0.1",
        "192.168.1.1",
        "8.8.8.8",
        "100.64.0.9",
        "fd00::7",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2001:db8::1",
    ],
)
def test_dialed(dst: str) -> None:
    assert DialRules(node=[NODE]).refusal(ip_address(dst), 80) == ""


def test_two_managers_have_rules_of_their_own() -> None:
    loopback = ip_address("127.0.0.1")
    assert DialRules(allow_loopback=True).refusal(loopback, 80) == ""
    assert DialRules().refusal(loopback, 80) != ""
    assert DialRules().refusal(NODE, 10250) == ""


def test_the_managers_own_ports_lead_back_to_it() -> None:
    rules = DialRules(allow_loopback=True)
    rules.own_ports |= {8081, 8082}
    assert "the traffic manager itself" in rules.refusal(ip_address("127.0.0.1"), 8082)
    assert rules.refusal(ip_address("127.0.0.1"), 8080) == ""
    assert rules.refusal(ip_address("192.0.2.1"), 8082) == "", "somebody else's port 8082"


def test_which_addresses_are_our_own() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("192.0.2.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback's")
        assert is_own(ip_address(probe.getsockname()[0]))


def test_an_address_that_cannot_be_reached_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    class Socket(socket.socket):
        connect = refuse  # type: ignore[assignment]

    monkeypatch.setattr(socket, "socket", Socket)
    assert not is_own(ip_address("127.0.0.1"))


def test_what_is_inside_an_address() -> None:
    assert embedded(ip_address("::ffff:1.2.3.4")) == ip_address("1.2.3.4")
    assert embedded(ip_address("64:ff9b::1.2.3.4")) == ip_address("1.2.3.4")
    assert embedded(ip_address("fd00::1")) is None
    assert embedded(ip_address("1.2.3.4")) is None
