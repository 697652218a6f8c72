"""What the real netd does in a sandbox: run by test_real.py as `python -m tests.netd.scenarios NAME`.

Each scenario starts a netd as the launcher does and plays the data plane. It must be run as root of a network and
mount namespace with an /etc of its own.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from telehelper.codec import Decoder, encode
from telehelper.messages import (
    PROTOCOL_VERSION,
    Configure,
    DnsSet,
    Done,
    Failed,
    Message,
    NetdReady,
    OpenVif,
    SetDns,
    Undo,
    VifOpened,
)
from telehelper.netd.powers import CAP_NET_ADMIN

if TYPE_CHECKING:
    from collections.abc import Callable

M = TypeVar("M", bound=Message)
RESOLV_CONF = Path("/etc/resolv.conf")
BOUND = 5.0  # seconds; the promise is that everything of ours is gone by then
ADDRESSES = ("198.19.240.1/32", "2001:2::1/128")
ROUTES = ("198.18.0.0/20", "198.19.240.2/32", "fd00:10::/64")
DNS = SetDns("resolvconf", "198.19.240.2", ("shop.svc.cluster.local",))


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f"not within {BOUND} s: {what}"
        time.sleep(0.01)


def shown(*arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, check=True, text=True)
    return list(json.loads(done.stdout or "[]"))


def links() -> list[object]:
    return [link["ifname"] for link in shown("link", "show")]


def machine() -> tuple[object, ...]:
    """Everything that netd could have changed."""
    names = sorted(os.listdir("/etc"))
    what = os.readlink(RESOLV_CONF) if RESOLV_CONF.is_symlink() else RESOLV_CONF.read_bytes()
    return links(), shown("route"), shown("-6", "route"), shown("addr"), what, names


PIDS: set[int] = set()  # netds and guardians of this scenario


def helpers() -> list[int]:
    """Which of them are alive."""
    return [pid for pid in PIDS if Path(f"/proc/{pid}").exists()]


class Netd:
    """A real netd and our end of its socket."""

    def __init__(self, *how: str) -> None:
        self.sock, far = socket.socketpair()
        self.sock.settimeout(BOUND)
        command = [sys.executable, "-I", *(how or ("-m", "telehelper.netd"))]
        self.process = subprocess.Popen(command, stdin=far, stderr=subprocess.PIPE, start_new_session=True)
        far.close()
        self.fds: list[int] = []
        self.decoder = Decoder()
        self.pid = self.receive(NetdReady).pid
        PIDS.add(self.pid)

    def receive(self, kind: type[M]) -> M:
        while True:
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            self.fds += fds
            assert data, f"EOF: {self.log()}"
            for envelope in self.decoder.feed(data):
                assert isinstance(envelope.body, kind), envelope
                return envelope.body

    def ask(self, request: Message, kind: type[M]) -> M:
        self.sock.sendall(encode(request, 1))
        return self.receive(kind)

    def bring_up(self, *, dns: bool = True) -> VifOpened:
        vif = self.ask(OpenVif(PROTOCOL_VERSION, 65000), VifOpened)
        self.ask(Configure(ADDRESSES, ROUTES), Done)
        if dns:
            self.ask(DNS, DnsSet)
            PIDS.add(self.guardian())
        return vif

    def guardian(self) -> int:
        (pid,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def die_as_data_plane(self) -> None:
        """Close what a killed data plane has: its end of the socket and the TUN."""
        self.sock.close()
        while self.fds:
            os.close(self.fds.pop())

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def ended(self) -> int:
        code = self.process.wait(BOUND)
        self.die_as_data_plane()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


# --- scenarios ---------------------------------------------------------------------------------------------------


def what_is_configured_is_there() -> None:
    netd = Netd()
    vif = netd.bring_up()
    assert vif.name == "tele0"
    assert vif.offload & 1
    assert os.readlink(f"/proc/self/fd/{netd.fds[0]}") == "/dev/net/tun"
    (link,) = shown("-d", "link", "show", vif.name)
    assert link["mtu"] == 65000
    assert "UP" in link["flags"]  # type: ignore[operator]  # a list of strings
    assert {route["dst"]: route.get("protocol") for route in shown("route", "show", "dev", vif.name)} == {
        "198.18.0.0/20": "84",
        "198.19.240.2": "84",
    }
    assert [route["dst"] for route in shown("-6", "route", "show", "dev", vif.name, "proto", "84")] == [
        "fd00:10::/64"
    ]
    (addresses,) = shown("addr", "show", "dev", vif.name)
    hosts = [entry["local"] for entry in addresses["addr_info"]]  # type: ignore[attr-defined]
    assert hosts == ["198.19.240.1", "2001:2::1"], "and no link-local one"
    netd.ask(Configure(ADDRESSES[:1], ("198.18.0.0/20", "198.18.64.0/20")), Done)
    assert {route["dst"] for route in shown("route", "show", "dev", vif.name)} == {
        "198.18.0.0/20",
        "198.18.64.0/20",
    }
    assert "nameserver 198.19.240.2" in RESOLV_CONF.read_text()
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def ipv6_comes_and_goes() -> None:
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    netd.ask(Configure(ADDRESSES[:1], ROUTES[:1]), Done)
    assert shown("-6", "addr", "show", "dev", "tele0") == []
    assert shown("-6", "route", "show", "dev", "tele0") == []
    netd.ask(Configure(ADDRESSES, ROUTES), Done)
    for target in ("fd00:10::7", "fd00:10::ffff:1"):
        (found,) = shown("-6", "route", "get", target)
        assert (found["dev"], found["prefsrc"]) == ("tele0", "2001:2::1"), found
    netd.ask(Configure(ADDRESSES[:1], ROUTES[:2]), Done)
    assert shown("-6", "addr", "show", "dev", "tele0") == []
    assert shown("-6", "route", "show", "dev", "tele0") == []
    netd.ask(Configure(ADDRESSES, ROUTES), Done)
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def forbidden_ipv6_is_refused() -> None:
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    netd.ask(Configure(ADDRESSES, ROUTES), Done)
    before = shown("-6", "route"), shown("-6", "addr")
    for cidr in (
        "::/0", "::1/128", "::/128", "::ffff:10.0.0.0/104", "fe80::/10", "fe80::/64", "ff00::/8", "ff02::1/128",
        "fc00::/7", "2000::/15",
    ):  # fmt: skip
        failed = netd.ask(Configure(ADDRESSES, (*ROUTES, cidr)), Failed)
        assert failed.slug == "helper-refused", (cidr, failed)
    for address in ("2001:2::/64", "2001:2:1::1/128", "fe80::1/128", "fd00::1/128", "::1/128"):
        failed = netd.ask(Configure((*ADDRESSES, address), ROUTES), Failed)
        assert failed.slug == "helper-refused", (address, failed)
    assert (shown("-6", "route"), shown("-6", "addr")) == before
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def ipv6_switched_off() -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    was = machine()
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    failed = netd.ask(Configure(ADDRESSES, ROUTES), Failed)
    assert failed.slug == "vif", failed
    assert shown("route", "show", "dev", "tele0") == [], "all or nothing"
    netd.ask(Configure(ADDRESSES[:1], ROUTES[:2]), Done)
    assert len(shown("route", "show", "dev", "tele0")) == 2
    netd.ask(Undo(), Done)
    assert netd.ended() == 0
    until(lambda: machine() == was, "the machine is as before")
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("0")


def a_conflict_changes_nothing() -> None:
    subprocess.run(["ip", "link", "add", "eth7", "type", "veth", "peer", "name", "eth8"], check=True)
    subprocess.run(["ip", "addr", "add", "198.18.3.4/24", "dev", "eth7"], check=True)
    subprocess.run(["ip", "link", "set", "eth7", "up"], check=True)
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 65000), VifOpened)
    failed = netd.ask(Configure(ADDRESSES, ROUTES), Failed)
    assert failed.slug == "cidr-conflict", failed
    assert failed.data == {"wanted": "198.18.0.0/20", "existing": "198.18.3.0/24", "device": "eth7"}
    assert shown("route", "show", "dev", "tele0") == []
    netd.ask(Undo(), Done)
    assert netd.ended() == 0
    subprocess.run(["ip", "link", "del", "eth7"], check=True)


def nameservers() -> list[str]:
    return [line.split()[1] for line in RESOLV_CONF.read_text().splitlines() if line.startswith("nameserver")]


def killed_under_and_over_another() -> None:
    for lower_first in (True, False):
        lower, upper = Netd(), Netd()
        lower.bring_up()
        upper.ask(OpenVif(PROTOCOL_VERSION, 65000), VifOpened)
        upper.ask(Configure(("198.19.240.5/32",), ("198.19.240.6/32",)), Done)
        upper.ask(SetDns("auto", "198.19.240.6", ()), DnsSet)
        order = (
            [(lower, "198.19.240.6"), (upper, "")] if lower_first else [(upper, "198.19.240.2"), (lower, "")]
        )
        for netd, left in order:
            os.kill(netd.pid, signal.SIGKILL)
            assert netd.ended() == -9
            if left:
                until(lambda: nameservers() == [left], f"{left} is left")  # noqa: B023  # within this turn


def hostile_networks_are_refused() -> None:
    for command in (
        "link add docker0 type bridge",
        "link set docker0 addrgenmode none",
        "link set docker0 up",
        "addr add 172.17.0.1/16 dev docker0",
        "link add eth7 type veth peer name eth8",
        "link set eth7 addrgenmode none",
        "link set eth7 up",
        "route add default via 10.31.1.1 dev eth7 onlink",  # attached to no network of the gateway's
    ):
        subprocess.run(["ip", *command.split()], check=True)
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    netd.ask(Configure(ADDRESSES[:1], ROUTES[:2]), Done)
    before = shown("route")
    for cidr, slug in (
        ("0.0.0.0/0", "helper-refused"),
        ("128.0.0.0/1", "helper-refused"),
        ("10.0.0.0/7", "helper-refused"),
        ("127.0.0.0/8", "helper-refused"),
        ("127.0.0.53/32", "helper-refused"),
        ("169.254.0.0/16", "helper-refused"),
        ("169.254.169.254/32", "helper-refused"),
        ("172.16.0.0/12", "cidr-conflict"),
        ("172.17.0.0/17", "cidr-conflict"),
        ("172.17.0.9/32", "cidr-conflict"),
        ("10.0.0.0/8", "cidr-conflict"),  # the default gateway is in there
        ("10.31.1.1/32", "cidr-conflict"),
    ):
        failed = netd.ask(Configure(ADDRESSES[:1], (*ROUTES[:2], cidr)), Failed)
        assert failed.slug == slug, (cidr, failed)
    assert shown("route") == before
    netd.ask(Undo(), Done)
    assert netd.ended() == 0
    for name in ("docker0", "eth7"):
        subprocess.run(["ip", "link", "del", name], check=True)


def a_vpns_network_is_taken_and_given_back() -> None:
    for command in ("tuntap add dev tun0 mode tun", "link set tun0 up", "route add 10.96.1.0/24 dev tun0"):
        subprocess.run(["ip", *command.split()], check=True)
    before = shown("route")
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    failed = netd.ask(Configure(ADDRESSES[:1], ("10.96.0.0/16",)), Failed)
    assert failed.data["device"] == "tun0", failed
    halves = tuple(cidr for cidr in ("10.96.1.0/25", "10.96.1.128/25"))
    netd.ask(Configure(ADDRESSES[:1], halves), Done)
    assert [shown("route", "get", f"10.96.1.{n}")[0]["dev"] for n in (0, 127, 128, 255)] == ["tele0"] * 4
    netd.ask(Configure(ADDRESSES[:1], halves[:1]), Done)
    assert shown("route", "get", "10.96.1.200")[0]["dev"] == "tun0"
    netd.ask(Undo(), Done)
    assert netd.ended() == 0
    assert shown("route") == before
    subprocess.run(["ip", "link", "del", "tun0"], check=True)


def two_side_by_side() -> None:
    one, two = Netd(), Netd()
    assert one.bring_up().name == "tele0"
    assert two.ask(OpenVif(PROTOCOL_VERSION, 65000), VifOpened).name == "tele1"
    assert two.ask(Configure(ADDRESSES, ROUTES), Failed).data["device"] == "tele0"
    two.ask(Configure(("198.19.240.5/32",), ("198.18.64.0/20", "198.19.240.6/32")), Done)
    two.ask(SetDns("auto", "198.19.240.6", ()), DnsSet)
    assert nameservers() == ["198.19.240.6"], "the second one on top"
    one.ask(Undo(), Done)
    assert nameservers() == ["198.19.240.6"], "and it stays when the first one leaves"
    two.ask(Undo(), Done)
    assert (one.ended(), two.ended()) == (0, 0)


def eof() -> None:
    netd = Netd()
    netd.bring_up()
    netd.sock.shutdown(socket.SHUT_WR)  # the descriptor stays open: netd deletes the interface itself
    assert netd.ended() == 0


def data_plane_killed() -> None:
    netd = Netd()
    netd.bring_up()
    netd.die_as_data_plane()
    assert "tele0" not in links(), "at once, with the last descriptor"
    assert netd.ended() == 0


def terminated() -> None:
    netd = Netd()
    netd.bring_up()
    os.kill(netd.pid, signal.SIGTERM)
    assert netd.ended() == 0


def terminal_signals_are_ignored() -> None:
    netd = Netd()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        os.kill(netd.pid, number)
    netd.bring_up()
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def surprise() -> None:
    netd = Netd()
    netd.bring_up()
    netd.sock.sendall(encode(OpenVif(PROTOCOL_VERSION, 1500), 9))
    assert netd.ended() == 76


def killed(dns: bool, configured: bool) -> None:
    netd = Netd()
    if configured:
        netd.bring_up(dns=dns)
    os.kill(netd.pid, signal.SIGKILL)
    assert netd.ended() == -9  # with our descriptors, as the data plane does at EOF


def killed_when_ready() -> None:
    killed(dns=False, configured=False)


def killed_when_configured() -> None:
    killed(dns=False, configured=True)


def killed_with_resolver() -> None:
    killed(dns=True, configured=True)


def guardian_killed() -> None:
    netd = Netd()
    netd.bring_up()
    os.kill(netd.guardian(), signal.SIGKILL)
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def both_killed_and_the_next_repairs() -> None:
    netd = Netd()
    netd.bring_up()
    guardian = netd.guardian()
    os.kill(guardian, signal.SIGKILL)
    os.kill(netd.pid, signal.SIGKILL)
    netd.ended()
    assert "nameserver 198.19.240.2" in RESOLV_CONF.read_text()
    after = Netd()
    assert "198.19.240.2" not in RESOLV_CONF.read_text()
    after.ask(Undo(), Done)
    assert after.ended() == 0


def guardian_outlives_a_killed_group() -> None:
    netd = Netd()
    netd.bring_up()
    os.killpg(netd.process.pid, signal.SIGKILL)  # as a session's end may do; the guardian is in its own
    netd.ended()


def a_link_comes_back_as_a_link() -> None:
    subprocess.run(["umount", "/etc/resolv.conf"], check=False, capture_output=True)
    old = os.readlink(RESOLV_CONF) if RESOLV_CONF.is_symlink() else RESOLV_CONF.read_bytes()
    RESOLV_CONF.unlink()
    RESOLV_CONF.symlink_to("/run/stub.conf")
    netd = Netd()
    netd.bring_up()
    assert not RESOLV_CONF.is_symlink()
    os.kill(netd.pid, signal.SIGKILL)
    netd.ended()
    until(RESOLV_CONF.is_symlink, "the link is back")
    assert os.readlink(RESOLV_CONF) == "/run/stub.conf"
    RESOLV_CONF.unlink()
    RESOLV_CONF.symlink_to(old) if isinstance(old, str) else RESOLV_CONF.write_bytes(old)


def a_bind_mounted_file_comes_back() -> None:
    own = Path("/etc/telemagic-test-resolv.conf")
    own.write_text("nameserver 192.0.2.1\n")
    subprocess.run(["mount", "--bind", own, RESOLV_CONF], check=True)
    netd = Netd()
    netd.bring_up()
    assert "nameserver 198.19.240.2" in own.read_text()
    os.kill(netd.pid, signal.SIGKILL)
    netd.ended()
    until(lambda: own.read_text() == "nameserver 192.0.2.1\n", "the bind-mounted file is back")
    subprocess.run(["umount", RESOLV_CONF], check=True)
    own.unlink()


def it_is_small_inside() -> None:
    os.environ["PYTHONPATH"] = "/nowhere"
    os.environ["TELEMAGIC_TEST_SECRET"] = "x"
    netd = Netd()
    netd.bring_up()
    for pid in (netd.pid, netd.guardian()):
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        sets = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")}
        only = 1 << CAP_NET_ADMIN
        assert sets == {"CapEff": only, "CapPrm": only, "CapInh": 0, "CapAmb": 0, "CapBnd": 0}, sets
        assert (status["NoNewPrivs"], status["Umask"], status["Threads"]) == ("1", "0077", "1")
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), limits
        assert re.search(r"Max open files +64 +64 ", limits), limits
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


# Runs netd, and ends it at the first import of a file after it has given up its rights.
NO_IMPORTS = """
import sys
from telehelper.netd import main
class Nothing:
    def find_spec(self, name, path=None, target=None):
        main.log(f"imported {name}")
        sys.exit(99)
def drop(real=main.drop):
    real()
    sys.meta_path.insert(0, Nothing())
main.drop = drop
sys.exit(main.main())
"""


def nothing_is_imported_once_rights_are_gone() -> None:
    netd = Netd("-c", NO_IMPORTS)
    netd.bring_up()
    netd.ask(Configure(ADDRESSES, (*ROUTES, "169.254.0.0/16")), Failed)
    netd.ask(Configure((*ADDRESSES, "198.19.240.9/32"), ROUTES[:1]), Done)
    netd.ask(SetDns("resolved", "198.19.240.9", (), domains=("cluster.local",)), Failed)
    netd.ask(SetDns("none", "198.19.240.9", ()), DnsSet)
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def a_read_only_file_comes_back() -> None:
    RESOLV_CONF.chmod(0o444)
    netd = Netd()
    netd.bring_up()
    assert nameservers() == ["198.19.240.2"]
    os.kill(netd.pid, signal.SIGKILL)
    netd.ended()
    until(lambda: nameservers() != ["198.19.240.2"], "the old one is back")
    assert RESOLV_CONF.stat().st_mode & 0o777 == 0o444
    RESOLV_CONF.chmod(0o644)


def the_data_plane_dies_while_another_holds_its_socket() -> None:
    """As a login plugin that was forked at the wrong moment might."""
    netd = Netd()
    child = os.fork()
    if not child:
        netd.bring_up()
        os._exit(0)
    os.waitpid(child, 0)
    assert netd.ended() == 0


def wide_networks_need_the_users_word() -> None:
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    assert "too wide" in netd.ask(Configure(ADDRESSES[:1], ("64.0.0.0/3",)), Failed).message
    netd.ask(Undo(), Done)
    assert netd.ended() == 0
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500, wide=True), VifOpened)
    assert "too wide" in netd.ask(Configure(ADDRESSES[:1], ("0.0.0.0/0",)), Failed).message
    netd.ask(Configure(ADDRESSES[:1], ("64.0.0.0/3",)), Done)
    assert shown("route", "get", "80.1.2.3")[0]["dev"] == "tele0"
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def without_a_socket_it_says_why() -> None:
    command = [sys.executable, "-I", "-m", "telehelper.netd"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("telemagic-netd: cannot start: standard input is no socket"), done.stderr


def it_starts_fast() -> None:
    """Measured in processor time: beside others, the clock says nothing."""
    for _ in range(3):
        netd = Netd()
        netd.ask(Undo(), Done)
        netd.ended()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = (used.ru_utime + used.ru_stime) / 3
    print(f"netd from start to end: {seconds:.3f} s of a processor")  # noqa: T201
    assert seconds < 0.6, "the data plane takes as long to start, side by side"


SCENARIOS = [
    what_is_configured_is_there,
    ipv6_comes_and_goes,
    forbidden_ipv6_is_refused,
    ipv6_switched_off,
    a_conflict_changes_nothing,
    hostile_networks_are_refused,
    a_vpns_network_is_taken_and_given_back,
    two_side_by_side,
    killed_under_and_over_another,
    eof,
    data_plane_killed,
    terminated,
    terminal_signals_are_ignored,
    surprise,
    killed_when_ready,
    killed_when_configured,
    killed_with_resolver,
    guardian_killed,
    both_killed_and_the_next_repairs,
    guardian_outlives_a_killed_group,
    a_link_comes_back_as_a_link,
    a_bind_mounted_file_comes_back,
    it_is_small_inside,
    nothing_is_imported_once_rights_are_gone,
    a_read_only_file_comes_back,
    the_data_plane_dies_while_another_holds_its_socket,
    wide_networks_need_the_users_word,
    without_a_socket_it_says_why,
    it_starts_fast,
]


def main(name: str) -> None:
    before = machine()
    {scenario.__name__: scenario for scenario in SCENARIOS}[name]()
    until(lambda: machine() == before, "the machine is as before: see ip address, ip route, resolv.conf")
    until(lambda: not helpers(), f"no process is left: {helpers()}")


if __name__ == "__main__":
    main(sys.argv[1])
