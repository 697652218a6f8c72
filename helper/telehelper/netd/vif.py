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
    silence(name)
    return vif


def silence(name: str, sysctl: str = "/proc/sys/net/ipv6/conf") -> None:
    """Keep the kernel from giving the interface a link-local address and soliciting routers through it.

    1 is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h). Only noise is lost if it cannot be set, say without IPv6.
    """
    with suppress(OSError), open(f"{sysctl}/{name}/addr_gen_mode", "wb", buffering=0) as file:
        file.write(b"1")
