"""A TUN, the stack, and a far side made of frames, in a namespace of their own; run as a script by test_tun_tcp.

Usage: tun_shell.py CLIENT_CODE [no-offload]. The code runs in another process of the same namespace, against
198.18.0.x. What it prints goes to standard output; then one line "stack: …" of JSON about the stack.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import itertools
import json
import os
import struct
import subprocess
import sys
from collections import deque
from typing import Final

from telehelper.core.actions import Action, LocalDatagram, SendFrame, SendPacket
from telehelper.core.credit import CreditBalance, CreditIssuer
from telehelper.core.frames import (
    MAX_DATA,
    Frame,
    FrameType,
    Open,
    Proto,
    decode_open,
    decode_u32,
    encode_coded,
    encode_u32,
)
from telehelper.core.limits import Limits
from telehelper.core.stack import Stack

TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
OFFLOADS: Final = 1 | 2 | 4  # CSUM, TSO4, TSO6

ECHO, SINK, SOURCE, SWALLOW, REFUSED, BLACK_HOLE, NO_ROUTE, RESET, LATE = 7, 9, 19, 20, 1, 2, 3, 4, 5
SOURCE_BYTES: Final = 200_000_000
BLOCK: Final = bytes(range(256)) * (MAX_DATA // 256 + 1)


def open_tun(*, offload: bool) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"tt0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    if offload:
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
    for line in (
        "link set lo up",
        "link set tt0 mtu 1500 up",
        "addr add 198.18.1.1/32 dev tt0",
        "route add 198.18.0.0/24 dev tt0",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    return fd


class FarFlow:
    """What a service in the cluster does with one flow, chosen by its port."""

    def __init__(self, number: int, what: Open) -> None:
        self.number = number
        self.port = what.dport
        self.balance = CreditBalance(what.credit)
        self.issuer = CreditIssuer()
        self.digest = hashlib.sha256()
        self.queued: deque[bytes] = deque()
        self.left = SOURCE_BYTES if self.port == SOURCE else 0
        self.eof = False
        self.finished = False

    def receive(self, frame: Frame, now: float) -> list[Frame]:
        out: list[Frame] = []
        if frame.type is FrameType.CREDIT:
            self.balance.grant(decode_u32(frame))
        elif frame.type is FrameType.FIN:
            self.eof = True
            if self.port == SINK:
                self.queued.append(self.digest.hexdigest().encode())
        elif frame.type is FrameType.DATA:
            self.issuer.received(len(frame.payload))
            if self.port == SINK:
                self.digest.update(frame.payload)
            elif self.port == ECHO:
                self.queued.append(bytes(frame.payload))
            elif self.port == RESET:
                return [encode_coded(FrameType.RST, self.number, errno.ECONNRESET, "by the service")]
            if self.port != SWALLOW and (credit := self.issuer.consumed(len(frame.payload), now)):
                out.append(encode_u32(FrameType.CREDIT, self.number, credit))
        return out + self.pump()

    def pump(self) -> list[Frame]:
        out = []
        while self.balance.available and (self.queued or self.left):
            if self.queued:
                block = self.queued.popleft()
            else:
                at = (SOURCE_BYTES - self.left) % 256
                block = BLOCK[at : at + min(self.left, MAX_DATA)]
            n = min(len(block), self.balance.available)
            if self.left:
                self.left -= n
            elif n < len(block):
                self.queued.appendleft(block[n:])
            self.balance.spend(n)
            out.append(Frame(FrameType.DATA, self.number, block[:n]))
        done = self.port == SOURCE or self.eof
        if done and not self.queued and not self.left and not self.finished:
            self.finished = True
            out.append(Frame(FrameType.FIN, self.number))
        return out


class Far:
    """The manager and the services, as frames."""

    def __init__(self) -> None:
        self.flows: dict[int, FarFlow] = {}
        self.resets: list[int] = []

    def receive(self, frame: Frame, now: float) -> list[Frame]:
        if frame.type is FrameType.OPEN:
            return self.open(frame)
        if frame.type is FrameType.DATAGRAM:
            return [Frame(FrameType.DATAGRAM, frame.flow, bytes(frame.payload))]
        if frame.type is FrameType.RST:
            self.resets.append(frame.flow)
            self.flows.pop(frame.flow, None)
            return []
        flow = self.flows.get(frame.flow)
        return flow.receive(frame, now) if flow else []

    def open(self, frame: Frame) -> list[Frame]:
        what = decode_open(frame)
        code = {REFUSED: errno.ECONNREFUSED, BLACK_HOLE: errno.ETIMEDOUT, NO_ROUTE: errno.EHOSTUNREACH}
        if what.dport in code:
            return [encode_coded(FrameType.REJECTED, frame.flow, code[what.dport])]
        if what.protocol is Proto.UDP:
            return [encode_u32(FrameType.OPENED, frame.flow, 0)]
        flow = self.flows[frame.flow] = FarFlow(frame.flow, what)
        return [encode_u32(FrameType.OPENED, frame.flow, flow.issuer.initial), *flow.pump()]


class Shell:
    """Performs the stack's actions, on one loop."""

    def __init__(self, fd: int, *, offload: bool) -> None:
        self.fd = fd
        self.loop = asyncio.get_running_loop()
        counter = itertools.count(2**32 - 70_000, 1_000_003)
        self.stack = Stack(
            isn=lambda: next(counter),
            gso=offload,
            limits=Limits(udp_idle=2.0, dial_timeout=2.0, time_wait=0.5),
        )
        self.far = Far()
        self.frames: deque[Frame] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.loop.add_reader(fd, self.read)

    def read(self) -> None:
        for _ in range(32):
            try:
                data = os.read(self.fd, 65_600)
            except BlockingIOError:
                break
            self.perform(self.stack.receive_packet(data, self.loop.time()))
        self.work()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, SendPacket):
                os.writev(self.fd, action.buffers)
            elif isinstance(action, SendFrame):
                self.frames.append(action.frame)
            elif isinstance(action, LocalDatagram):
                self.perform(self.stack.send_datagram(action.five_tuple, action.payload, self.loop.time()))

    def work(self) -> None:
        now = self.loop.time()
        while self.frames:
            for frame in self.far.receive(self.frames.popleft(), now):
                self.perform(self.stack.receive_frame(frame, now))
        self.arm()

    def arm(self) -> None:
        if self.timer:
            self.timer.cancel()
        when = self.stack.next_timer()
        self.timer = None if when is None else self.loop.call_at(when, self.fire)

    def fire(self) -> None:
        self.perform(self.stack.handle_timer(self.loop.time()))
        self.work()

    def close(self) -> None:
        self.loop.remove_reader(self.fd)
        if self.timer:
            self.timer.cancel()
        os.close(self.fd)


async def main(code: str, *, offload: bool) -> None:
    shell = Shell(open_tun(offload=offload), offload=offload)
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    status = await client.wait()
    # The last packets of the client's sockets are still to come.
    deadline = shell.loop.time() + 3
    while shell.stack.open_flows and shell.loop.time() < deadline:  # noqa: ASYNC110  # the core has no events
        await asyncio.sleep(0.01)
    facts = {
        "status": status,
        "open": shell.stack.open_flows,
        "drops": dict(shell.stack.drops),
        "resets": len(shell.far.resets),
        "flows": [[r.state, r.reason, r.bytes_up, r.bytes_down] for r in shell.stack.snapshot(0.0)],
    }
    print("stack:", json.dumps(facts), flush=True)  # noqa: T201  # the parent reads it
    shell.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], offload="no-offload" not in sys.argv))
