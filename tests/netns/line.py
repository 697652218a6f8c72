"""What lies between the kernel and the stack: a descriptor that fails, a line that loses, and a tap that records.

Everything goes wrong at a count, never at random: a failing test fails again.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from telehelper.core.checksum import add, complement
from telehelper.core.packet import NEEDS_CSUM, VNET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from telehelper.datapath.tun_io import Buffers

WRITEV: Final = os.writev
LINKTYPE_RAW: Final = 101  # https://www.tcpdump.org/linktypes.html: the packet begins with its IP header


class Rough:
    """A line that spoils the packets of one direction: which are dropped, swapped with the next, and doubled, by count; 0: none."""

    def __init__(self, drop: int, swap: int, double: int) -> None:
        self.dropped = self.doubled = self.swapped = 0
        self._drop, self._swap, self._double = drop, swap, double
        self._count = 0
        self._held: bytes | None = None

    def carry(self, packet: bytes) -> list[bytes]:
        """Return what arrives when this packet is sent."""
        self._count += 1
        if self._held is not None:
            late, self._held = self._held, None
            return [packet, late]
        if self._drop and self._count % self._drop == 0:
            self.dropped += 1
            return []
        if self._swap and self._count % self._swap == 0:
            self.swapped += 1
            self._held = packet
            return []
        if self._double and self._count % self._double == 0:
            self.doubled += 1
            return [packet, packet]
        return [packet]


class FailingWrites:
    """Stands in for ``os.writev``: each `every`th write fails, with the errors named in turn.

    And a kernel's EIO, which says that the link is down, passes for ENOBUFS: `TunIo` gives a device up that is down,
    because its routes are gone; here the question is what the flows lose.
    """

    def __init__(self, names: Sequence[str], every: int) -> None:
        self.failed = 0
        self._codes = [getattr(errno, name) for name in names]
        self._every = every
        self._count = 0

    def __call__(self, fd: int, buffers: Buffers) -> int:
        self._count += 1
        if self._codes and self._count % self._every == 0:
            code = self._codes[self.failed % len(self._codes)]
            self.failed += 1
            raise OSError(code, os.strerror(code))
        try:
            return WRITEV(fd, buffers)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.failed += 1
            raise OSError(errno.ENOBUFS, "the link is down") from error


class Capture:
    """Writes packets into a file that Wireshark reads (the classic format, with nanoseconds).

    A checksum that was left to the other side (NEEDS_CSUM) is completed, as that side would: so the file's checksums can
    all be verified, and one that is wrong in the file is wrong on the line.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 17, LINKTYPE_RAW))

    def add(self, packet: bytes) -> None:
        """Add one packet, virtio_net_hdr first."""
        flags, _gso_type, _hdr_len, _gso_size, start, offset = VNET.unpack_from(packet)
        body = bytearray(packet[VNET.size :])
        if flags & NEEDS_CSUM:
            body[start + offset : start + offset + 2] = complement(add(bytes(body[start:]))).to_bytes(
                2, "big"
            )
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        self._file.write(struct.pack("=IIII", seconds, nanoseconds, len(body), len(body)) + body)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class Tap:
    """Passes packets on in both directions, over a rough line if there is one, and records them if that is wanted."""

    def __init__(
        self,
        up: Callable[[list[bytes]], None],
        down: Callable[[Buffers], None],
        *,
        capture: Capture | None = None,
        rough: tuple[Rough, Rough] | None = None,
    ) -> None:
        self._up = up
        self._down = down
        self._capture = capture
        self._rough = rough

    def packets(self, packets: list[bytes]) -> None:
        """Take packets from the kernel."""
        if self._rough is not None:
            packets = [arrived for packet in packets for arrived in self._rough[0].carry(packet)]
        if self._capture is not None:
            for packet in packets:
                self._capture.add(packet)
        self._up(packets)

    def write(self, buffers: Buffers) -> None:
        """Take a packet from the stack."""
        if self._capture is not None:
            self._capture.add(b"".join(buffers))
        if self._rough is None:
            self._down(buffers)
        else:
            for arrived in self._rough[1].carry(b"".join(buffers)):
                self._down((arrived,))
