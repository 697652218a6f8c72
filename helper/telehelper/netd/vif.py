"""Opening the TUN device (linux/if_tun.h; Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from telehelper.errors import VifError

DEVICE: Final = "/dev/net/tun"
NAME_PATTERN: Final = b"tele%d"  # the kernel puts the first free number in: never an existing interface
HINT: Final = "sudo modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN"
VNET_HDR_SIZE: Final = 10  # bytes; struct virtio_net_hdr without num_buffers

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
# Best first: TUN_F_CSUM 1, TSO4 2, TSO6 4; and USO4 0x20, USO6 0x40, from Linux 6.2
OFFLOADS: Final = (0x67, 0x07, 0)


@dataclass(frozen=True, slots=True)
class Vif:
    """The interface, still down. ``fd`` is the only descriptor: the interface vanishes when its last copy is closed."""

    fd: int
    name: str
    index: int
    offload: int


def _set_offload(fd: int, ioctl: Callable[..., Any]) -> int:
    for offload in OFFLOADS:
        with suppress(OSError):  # EINVAL: a bit this kernel does not know
            ioctl(fd, TUNSETOFFLOAD, offload)
            return offload
    return 0


def open_vif(device: str = DEVICE, ioctl: Callable[..., Any] = fcntl.ioctl) -> Vif:
    """Make a non-persistent TUN interface with a vnet header and the offloads this kernel has, or raise VifError."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise VifError(f"cannot open {device}: {error.strerror}", hint=HINT) from error
    try:
        request = struct.pack("16sH22x", NAME_PATTERN, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
        name = bytes(ioctl(fd, TUNSETIFF, request))[:16].rstrip(b"\0").decode()
        ioctl(fd, TUNSETVNETHDRSZ, struct.pack("=i", VNET_HDR_SIZE))
        vif = Vif(fd, name, socket.if_nametoindex(name), _set_offload(fd, ioctl))
    except OSError as error:
        os.close(fd)
        raise VifError(f"cannot make a TUN interface: {error.strerror}", hint=HINT) from error
    tame(name)
    return vif


def tame(name: str, sysctl: str = "/proc/sys/net") -> None:
    """Set what of an interface's settings can be set: in a container /proc/sys may be read-only.

    No link-local address, nor asking for routers (1 is IN6_ADDR_GEN_MODE_NONE, linux/if_link.h). And no packets whose
    source is not behind the interface (ip-sysctl.rst): its owner could else write them as from any host, to this
    machine's services and, where it forwards, to others. IPv6 has no such setting.
    """
    for setting in (f"ipv6/conf/{name}/addr_gen_mode", f"ipv4/conf/{name}/rp_filter"):
        with suppress(OSError), open(f"{sysctl}/{setting}", "wb", buffering=0) as file:
            file.write(b"1")
