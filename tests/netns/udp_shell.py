"""A TUN as netd opens it, the data plane's engine on it, and services that take datagrams, made of frames.

`python -m tests.netns.udp_shell [options] -- CLIENT_CODE`, inside `unshare -Urn`. The code runs in another process of the
same namespace, against 198.18.0.x and fd00:198:18::x. What it prints goes to standard output; then one line "stack: …"
of JSON about the stack. What a service does is its port's affair, and for a ping the last byte of the address.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import fcntl
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.core.echo import decode_echo, encode_echo
from telehelper.core.frames import (
    Frame,
    FrameType,
    Open,
    Proto,
    decode_coded,
    decode_open,
    encode_coded,
    encode_u32,
)
from telehelper.core.limits import Limits
from telehelper.core.packet import GSO_UDP
from telehelper.core.stack import Stack
from telehelper.datapath.engine import Engine
from telehelper.datapath.tun_io import TunIo
from telehelper.netd import vif

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.flows import FiveTuple

ECHO: Final = 7
LATE: Final = 8  # answers when the test says so, by a datagram to NOW
NOW: Final = 9
FAILS: Final = 1000  # and above: resets with this errno
ALIVE, NO_HOST, MAY_NOT = 9, 10, 11  # last bytes of addresses
OFFLOADS: Final = {"all": vif.OFFLOADS[0], "no-uso": vif.OFFLOADS[1], "none": vif.OFFLOADS[2]}


def prepare(name: str) -> None:
    """Give the interface its addresses and routes, and let this namespace's own processes ping."""
    for line in (
        "link set lo up",
        f"link set {name} mtu 1500 up",
        f"addr add 198.18.1.1/32 dev {name}",
        f"addr add fd00:198:18:1::1/128 dev {name} nodad",
        f"route add 198.18.0.0/24 dev {name}",
        f"route add fd00:198:18::/64 dev {name} src fd00:198:18:1::1",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")


class Far:
    """All services. `answer` takes the frames that come back."""

    def __init__(self, answer: Callable[[list[Frame]], None]) -> None:
        self.opens: dict[int, Open] = {}
        self.resets: list[int] = []
        self._late: list[Frame] = []
        self._answer = answer
        self._loop = asyncio.get_running_loop()

    def send(self, frame: Frame) -> None:
        """Take a frame from the stack; the answer comes a turn later."""
        answers = self._receive(frame)
        if answers:
            self._loop.call_soon(self._answer, answers)

    def forget(self, flow: int) -> None:
        """Forget nothing, so that what follows shows."""

    def _receive(self, frame: Frame) -> list[Frame]:
        if frame.type is FrameType.OPEN:
            return self._open(frame.flow, decode_open(frame))
        if frame.type is FrameType.RST:
            self.resets.append(decode_coded(frame)[0])
            return []
        what = self.opens[frame.flow]
        if what.protocol is Proto.ICMP:
            return self._ping(frame, what)
        if what.dport >= FAILS:
            return [encode_coded(FrameType.RST, frame.flow, what.dport - FAILS)]
        if what.dport == LATE:
            self._late.append(frame)
            return []
        if what.dport == NOW:
            late, self._late = self._late, []
            return [*late, frame]
        return [frame]

    def _open(self, flow: int, what: Open) -> list[Frame]:
        self.opens[flow] = what
        if what.protocol is Proto.ICMP and what.dst.packed[-1] == MAY_NOT:
            return [encode_coded(FrameType.REJECTED, flow, errno.EPROTONOSUPPORT, "may not ping")]
        return [encode_u32(FrameType.OPENED, flow, 0)]

    def _ping(self, frame: Frame, what: Open) -> list[Frame]:
        _code, sequence, _data = decode_echo(frame.payload)
        if what.dst.packed[-1] == NO_HOST:
            failed = encode_echo(sequence, code=errno.EHOSTUNREACH)
            return [Frame(FrameType.DATAGRAM, frame.flow, failed)]
        return [frame] if what.dst.packed[-1] == ALIVE else []


class NoNames:
    """There is no resolver behind this TUN."""

    def query(self, client: FiveTuple, data: bytes) -> None:
        """Nobody asks."""
        raise AssertionError(f"{client} asked {data!r}")

    def cluster_answer(self, data: bytes) -> None:
        """Nobody answers."""
        raise AssertionError(data)


async def main(options: argparse.Namespace) -> None:
    """Run the client; report."""
    found = vif.open_vif()
    fcntl.ioctl(found.fd, vif.TUNSETOFFLOAD, OFFLOADS[options.offload])
    prepare(found.name)
    stack = Stack(isn=lambda: 1, gso=options.offload != "none", limits=Limits(udp_idle=options.idle))
    engine, runs, lost = Engine(stack), Counter[int](), []  # type: tuple[Engine, Counter[int], list[str]]

    def packets(received: list[bytes]) -> None:
        runs.update(packet[1] for packet in received)
        engine.packets_received(received)

    tun = TunIo(found.fd, on_packets=packets, on_lost=lost.append)
    far = Far(engine.frames_received)
    engine.tun, engine.tunnel, engine.names = tun, far, NoNames()
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", options.code)
    status = await client.wait()
    while options.idle < 1 and stack.open_flows:  # noqa: ASYNC110  # the core has no events
        await asyncio.sleep(0.01)
    facts = {
        "status": status,
        "offload": found.offload,
        "runs": runs[GSO_UDP],
        "drops": dict(stack.drops),
        "resets": far.resets,
        "flows": [[r.state, r.reason, r.packets_up, r.packets_down] for r in stack.snapshot(0.0)],
        "lost": lost,
    }
    print("stack:", json.dumps(facts), flush=True)  # noqa: T201  # the parent reads it
    engine.close()
    tun.close()


def arguments() -> argparse.Namespace:
    """Understand the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("code")
    parser.add_argument("--offload", choices=OFFLOADS, default="all")
    parser.add_argument("--idle", type=float, default=60.0, help="below 1: wait until all flows are")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
