"""Packets in and out of the TUN descriptor, on the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Buffers = tuple[bytes | bytearray | memoryview, ...]

READ_SIZE: Final = 10 + 65535  # bytes: virtio_net_hdr and the largest IP packet
# Packets read before the loop's other work gets its turn: half a megabyte, which the carriers may send meanwhile. With
# 64 the far side idled between bursts, and a small request waited for 4 MiB.
BURST: Final = 8
_FULL: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})  # the kernel is short of memory
RETRY: Final = 0.002  # seconds until it is asked again; sooner than any timer of TCP
# Packets that wait for the kernel to take them; TCP sends again what is dropped beyond
QUEUE_LIMIT: Final = 4096


class TunIo:
    """Reads packets as they come and writes packets in order. Owns the descriptor.

    `on_packets` gets each burst read; `on_lost` is called once if the device goes (deleted by hand).
    A packet that the kernel cannot take now (no memory, or EAGAIN) waits, and those after it; overflow of that queue
    drops and counts.
    """

    def __init__(
        self, fd: int, *, on_packets: Callable[[list[bytes]], None], on_lost: Callable[[str], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._on_packets = on_packets
        self._on_lost = on_lost
        self._waiting: deque[Buffers] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._readable)
        self.dropped = 0

    def write(self, buffers: Buffers) -> None:
        """Write one packet, its parts in `buffers`, after those that wait already."""
        if self._waiting or not self._write_now(buffers):
            self._wait(buffers)

    def close(self) -> None:
        """Stop and close the descriptor: the device goes with the last one."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()

    def _wait(self, buffers: Buffers) -> None:
        if self._fd < 0:
            return
        if len(self._waiting) >= QUEUE_LIMIT:
            self.dropped += 1
            return
        if not self._waiting and self._retry is None:
            self._loop.add_writer(self._fd, self._writable)
        # Views are of buffers that may be freed by an ACK meanwhile: keep our own copy.
        self._waiting.append((b"".join(buffers),))

    def _writable(self) -> None:
        while self._waiting and self._write_now(self._waiting[0]):
            if self._waiting:  # writing may have failed, and closed us
                self._waiting.popleft()
        if self._fd >= 0 and (self._retry is not None or not self._waiting):
            self._loop.remove_writer(self._fd)

    def _try_again(self) -> None:
        self._retry = None
        if self._waiting:
            self._loop.add_writer(self._fd, self._writable)

    def _write_now(self, buffers: Buffers) -> bool:
        """Write a packet; False if it must wait."""
        try:
            os.writev(self._fd, buffers)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FULL:
                # Not for "writable", which the device is all the time.
                self._retry = self._retry or self._loop.call_later(RETRY, self._try_again)
                return False
            self._failed(error)
        return True

    def _readable(self) -> None:
        packets: list[bytes] = []
        fd = self._fd
        try:
            for _ in range(BURST):
                packets.append(os.read(fd, READ_SIZE))  # noqa: PERF401  # what was read survives the exception
        except BlockingIOError:
            pass  # all that was there has been read
        except OSError as error:
            self._failed(error)
        if packets:
            self._on_packets(packets)

    def _failed(self, error: OSError) -> None:
        if self._fd >= 0:
            # EIO: the link is down; EBADFD: the device was deleted. A malformed packet of ours would be EINVAL,
            # which is a bug that must not be hidden by going on.
            self.close()
            self._on_lost(f"the TUN device failed: {error.strerror}")
