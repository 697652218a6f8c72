"""A TUN, the data plane's engine on it, and a far side made of frames, in a namespace of their own.

`python -m tests.netns.tun_shell CLIENT_CODE [options]`, inside `unshare -Urn`; tests call :func:`tests.netns.near_side.run`.
The code runs in another process of the same namespace, against 198.18.0.x and fd00:198:18::x. What it prints goes to
standard output; then one line "stack: …" of JSON about the stack.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import itertools
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from telehelper.core.limits import Limits
from telehelper.core.packet import FIN, PacketError, Segment, parse, to_five_tuple
from telehelper.core.stack import Stack
from telehelper.datapath.engine import Engine
from telehelper.datapath.tun_io import TunIo

from tests.netns.far_side import CROSSING, Far
from tests.netns.line import Capture, FailingWrites, Rough, Tap

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple, FlowRecord

TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
OFFLOADS: Final = 1 | 2 | 4  # CSUM, TSO4, TSO6
# Up and down: each n-th packet is lost, each m-th doubled, each k-th swapped with the next.
ROUGH: Final = (Rough(43, 31, 7), Rough(31, 23, 11))
DRAIN: Final = 10.0  # seconds for what comes after the client's end; a lost FIN is repeated
FIRST_ISN: Final = 2**32 - 70_000  # the first flow's numbers wrap after 70 kB; the others' follow
LINES: Final = (
    "link set lo up",
    "link set tt0 mtu 1500 up",
    "addr add 198.18.1.1/32 dev tt0",
    "addr add fd00:198:18:1::1/128 dev tt0 nodad",
    "route add 198.18.0.0/24 dev tt0",
    "route add fd00:198:18::/64 dev tt0 src fd00:198:18:1::1",
)


def open_tun(*, offload: bool, queue: int) -> int:
    """Make tt0 with its addresses and routes. `queue`: packets that the kernel keeps for us before it drops."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tt0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    if offload:
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
    Path("/proc/sys/net/ipv6/conf/tt0/addr_gen_mode").write_text(
        "1"
    )  # no link-local address, no solicitations
    for line in (f"link set tt0 txqueuelen {queue}", *LINES):
        subprocess.run(["ip", *line.split()], check=True)
    return fd


def overflow() -> int:
    """Return how many packets the kernel dropped because nobody took them in time: proc_pid_net(5), transmit, drop."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[12]) for line in lines if line.split()[0] == "tt0:")


class NoNames:
    """There is no resolver behind this TUN."""

    def query(self, client: FiveTuple, data: bytes) -> None:
        """Nobody asks."""
        raise AssertionError(f"{client} asked {data!r}")

    def cluster_answer(self, data: bytes) -> None:
        """Nobody answers."""
        raise AssertionError(data)


class Shell:
    """The data plane's engine and TUN, with a tap between them."""

    def __init__(self, fd: int, options: argparse.Namespace) -> None:
        counter = itertools.count(FIRST_ISN, 1_000_003)
        self.stack = Stack(
            isn=lambda: next(counter),
            gso=not options.no_offload,
            limits=Limits(udp_idle=2.0, dial_timeout=2.0, time_wait=0.5),
        )
        self.engine = Engine(self.stack)
        self.far = Far(self.engine.frames_received)
        self.rough = ROUGH if options.rough else None
        self.capture = Capture(options.capture) if options.capture else None
        self.writes = FailingWrites(options.fail, options.every)
        self.lost: list[str] = []
        self.states: set[str] = set()  # in which CROSSING flows were seen
        os.writev = self.writes  # type: ignore[assignment]  # what TunIo calls
        self.tun = TunIo(fd, on_packets=lambda packets: self.tap.packets(packets), on_lost=self.lost.append)
        self.tap = Tap(self.receive, self.tun.write, capture=self.capture, rough=self.rough)
        self.engine.tun, self.engine.tunnel, self.engine.names = self.tap, self.far, NoNames()

    def receive(self, packets: list[bytes]) -> None:
        """Give packets to the engine; before one that ends a CROSSING flow, the far side ends it too."""
        for packet in packets:
            if (record := self.crossing(packet)) is not None:
                self.far.cross(record.flow)
                self.engine.packets_received([packet])
                self.states |= {one.state for one in self.stack.snapshot(0.0) if one.flow == record.flow}
            else:
                self.engine.packets_received([packet])

    def crossing(self, packet: bytes) -> FlowRecord | None:
        """Return the CROSSING flow that this packet belongs to, if it carries a FIN."""
        try:
            segment = parse(packet)
        except PacketError:
            return None
        if not isinstance(segment, Segment) or not segment.flags & FIN:
            return None
        key = to_five_tuple(6, segment.key)  # type: ignore[arg-type]  # Proto.TCP is 6
        found = (record for record in self.stack.snapshot(0.0) if record.five_tuple[1:] == key[1:])
        return next((record for record in found if record.five_tuple.dport == CROSSING), None)

    def facts(self, status: int) -> dict[str, object]:
        """Say what came of it all."""
        rough = self.rough or ()
        return {
            "status": status,
            "open": self.stack.open_flows,
            "drops": dict(self.stack.drops),
            "resets": self.far.resets,
            "flows": [[r.state, r.reason, r.bytes_up, r.bytes_down] for r in self.stack.snapshot(0.0)],
            "states": sorted(self.states),
            "overflow": overflow(),
            "failed writes": self.writes.failed,
            "dropped": [line.dropped for line in rough],
            "doubled": [line.doubled for line in rough],
            "swapped": [line.swapped for line in rough],
            "lost": self.lost,
        }

    def close(self) -> None:
        """Let go of everything."""
        self.engine.close()
        self.tun.close()
        if self.capture is not None:
            self.capture.close()


async def main(options: argparse.Namespace) -> None:
    """Run the client; report."""
    shell = Shell(open_tun(offload=not options.no_offload, queue=options.queue), options)
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", options.code)
    status = await client.wait()
    # The last packets of the client's sockets are still to come.
    deadline = monotonic() + DRAIN
    while shell.stack.open_flows and monotonic() < deadline:  # noqa: ASYNC110  # the core has no events
        await asyncio.sleep(0.01)
    print("stack:", json.dumps(shell.facts(status)), flush=True)  # noqa: T201  # the parent reads it
    shell.close()


def arguments() -> argparse.Namespace:
    """Understand the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("code")
    parser.add_argument("--no-offload", action="store_true")
    parser.add_argument("--queue", type=int, default=500, help="txqueuelen; Linux's default for a TUN is 500")
    parser.add_argument("--fail", action="append", default=[], metavar="ERRNO", help="of writes; repeatable")
    parser.add_argument("--every", type=int, default=3, help="which writes fail")
    parser.add_argument("--rough", action="store_true", help="lose, double and swap packets both ways")
    parser.add_argument("--capture", type=Path, help="file for all packets")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
