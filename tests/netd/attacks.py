"""What somebody who has the user's account tries with the real netd: run by test_attacks.py as `python -m tests.netd.attacks NAME`.

Each attack speaks to a real netd in a sandbox, or uses the TUN that it handed out, for what SECURITY.md does not grant.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from telehelper.codec import encode
from telehelper.messages import (
    NETD_LOG_PREFIX,
    PROTOCOL_VERSION,
    Configure,
    Done,
    Failed,
    OpenVif,
    SetDns,
    Undo,
    VifOpened,
)

from tests.netd.scenarios import ADDRESSES, BOUND, DNS, ROUTES, Netd, links, machine, shown, until

LAN, ME, NEIGHBOUR, ABSENT = "10.9.9.0/24", "10.9.9.1", "10.9.9.77", "10.66.6.6"
SERVICE: Final = "198.18.0.7"  # within ROUTES
PORT: Final = 5000
VNET_HEADER: Final = bytes(10)  # nothing is left to be done by the kernel
ETH_P_IP: Final = 0x0800


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(src: str, dst: str) -> bytes:
    """An IPv4 packet that says who it claims to be from; without a UDP checksum, as is allowed."""
    text = src.encode()
    udp = struct.pack("!4H", PORT, PORT, 8 + len(text), 0) + text
    ends = IPv4Address(src).packed + IPv4Address(dst).packed
    head = struct.pack("!2B3H2BH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0) + ends
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + udp


def lan() -> None:
    """Attach the machine to a network, whose other end we have too."""
    for command in (
        "link add eth7 type veth peer name eth8",
        f"addr add {ME}/24 dev eth7",
        "link set eth7 up",
        "link set eth8 up",
        f"neigh add {NEIGHBOUR} lladdr 02:00:00:00:00:77 dev eth7",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    until(lambda: "LOWER_UP" in str(shown("link", "show", "dev", "eth7")), "the link is up")


def up() -> Netd:
    netd = Netd()
    netd.bring_up(dns=False)
    return netd


def heard(sock: socket.socket, seconds: float = 0.5) -> set[str]:
    """The claimed sources of what arrives."""
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(2048)
        except TimeoutError:
            break
        if data[:1] == b"\x45":  # a whole packet
            data = data[28:] if data[9] == socket.IPPROTO_UDP else b""
        found |= {data.decode()} if data else set()
    return found


# --- attacks -----------------------------------------------------------------------------------------------------


def packets_from_elsewhere_do_not_get_in() -> None:
    """The TUN's owner writes what he likes: but not as the LAN's hosts, or anybody's who is not behind the TUN."""
    lan()
    netd = up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trusting:
        trusting.bind(("0.0.0.0", PORT))
        for src in (NEIGHBOUR, ABSENT, "8.8.8.8", ME, "127.0.0.1", SERVICE):
            os.write(netd.fds[0], VNET_HEADER + datagram(src, ME))
        assert heard(trusting) == {SERVICE}
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def nor_out_again_where_the_machine_forwards() -> None:
    """On a machine with containers, which forwards: no packet with a made-up source goes out to its LAN."""
    lan()
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    netd = up()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as wire:
        wire.bind(("eth8", ETH_P_IP))
        for src in (ABSENT, "8.8.8.8", ME, SERVICE):
            os.write(netd.fds[0], VNET_HEADER + datagram(src, NEIGHBOUR))
        assert heard(wire) == {SERVICE}, "and that one is forwarded, or nothing was tried"
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def addresses_with_text_in_them_are_refused() -> None:
    """IPv6 addresses may end in "%" and any text: it must reach neither the kernel, a file nor the log."""
    netd = Netd()
    netd.ask(OpenVif(PROTOCOL_VERSION, 1500), VifOpened)
    evil = "%a\nnetd: ready\x1b[2J"
    for addresses in ((f"2001:2::1{evil}",), (f"2001:2::1{evil}/128",), ("2001:2::1%lo/128",)):
        assert netd.ask(Configure(addresses, ()), Failed).slug == "helper-refused"
    for route in (f"fd00:10::{evil}/64", "fd00:10::%lo/64", f"10.0.0.0/8{evil}"):
        assert netd.ask(Configure(ADDRESSES, (route,)), Failed).slug == "helper-refused"
    netd.ask(Configure(ADDRESSES, (*ROUTES, "2001:2::2/128")), Done)
    before = machine()
    failed = netd.ask(SetDns("resolvconf", f"2001:2::2{evil}", ()), Failed)
    assert failed.slug == "helper-refused"
    assert machine() == before
    netd.ask(Undo(), Done)
    code = netd.process.wait(BOUND)
    log = netd.log()
    assert code == 0
    assert all(line.isprintable() for line in log.splitlines()), log
    assert sum(line.startswith(f"{NETD_LOG_PREFIX}ready") for line in log.splitlines()) == 1
    netd.die_as_data_plane()


def speaking_as_another_process_ends_it() -> None:
    """A second process that has the socket, or says it is the first one, is not obeyed."""
    netd = up()
    child = os.fork()
    if child == 0:
        forged = struct.pack("3i", os.getppid(), os.getuid(), os.getgid())
        try:  # the kernel lets root of its own pid namespace say what it likes
            netd.sock.sendmsg([encode(DNS, 2)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)])
        except PermissionError:
            netd.sock.sendall(encode(DNS, 2))
        os._exit(0)
    os.waitpid(child, 0)
    code = netd.process.wait(BOUND)
    log = netd.log()
    assert code == 76, log
    assert "a second process speaks" in log
    assert b"198.19.240.2" not in Path("/etc/resolv.conf").read_bytes()
    netd.die_as_data_plane()
    until(lambda: "tele0" not in links(), "all is undone")


def descriptors_that_come_along_are_not_kept() -> None:
    """64 descriptors are all that netd has: a flood of them must not get in, nor keep files open as root's."""
    netd = up()

    def count() -> int:
        return len(list(Path(f"/proc/{netd.pid}/fd").iterdir()))

    before, pipes = count(), [os.pipe() for _ in range(20)]
    ends = array.array("i", [fd for pair in pipes for fd in pair])
    for _ in range(10):
        netd.sock.sendmsg(
            [encode(Configure(ADDRESSES, ROUTES), 3)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)]
        )
        netd.receive(Done)
    assert count() == before
    netd.ask(Undo(), Done)
    assert netd.ended() == 0


def half_a_message_and_silence_keeps_nothing() -> None:
    """Who says half of something and goes leaves nothing, like everybody."""
    was = machine()
    netd = up()
    netd.sock.sendall(encode(DNS, 9)[:-3])
    netd.die_as_data_plane()
    assert netd.ended() == 0
    until(lambda: machine() == was, "the machine is as before")


def numbers_and_nesting_without_end_are_survived() -> None:
    """JSON that costs more than it looks like ends netd at once, and undoes everything."""
    was = machine()
    for body in (b"[" * 200_000, b"9" * 200_000, b'{"type":"Undo","id":1e999,"body":{}}'):
        netd = up()
        began = time.monotonic()
        netd.sock.sendall(len(body).to_bytes(4, "big") + body)
        assert netd.process.wait(BOUND) == 76
        assert time.monotonic() - began < BOUND
        netd.die_as_data_plane()
        assert netd.process.stderr is not None
        netd.process.stderr.close()
        until(lambda: machine() == was, "the machine is as before")


ATTACKS = [
    packets_from_elsewhere_do_not_get_in,
    nor_out_again_where_the_machine_forwards,
    addresses_with_text_in_them_are_refused,
    speaking_as_another_process_ends_it,
    descriptors_that_come_along_are_not_kept,
    half_a_message_and_silence_keeps_nothing,
    numbers_and_nesting_without_end_are_survived,
]


if __name__ == "__main__":
    {attack.__name__: attack for attack in ATTACKS}[sys.argv[1]]()
