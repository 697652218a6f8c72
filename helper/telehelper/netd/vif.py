"""Opening the TUN device (linux/if_tun.h; Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import VifError

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE: Final = "/dev/net/tun"
NAME_PATTERN: Final = b"tele%d"  # the kernel puts the first free number in: never an existing interface
VNET_HDR_SIZE: Final = 10  # bytes; struct virtio_net_hdr without num_buffers

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 = 0x1, 0x2, 0x4, 0x20, 0x40
_TCP: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
OFFLOADS: Final = (_TCP | TUN_F_USO4 | TUN_F_USO6, _TCP, 0)  # best first; USO exists from Linux 6.2


@dataclass(frozen=True, slots=True)
class Vif:
    """The interface, still down. ``fd`` is the only descriptor: the interface vanishes when its last copy is closed."""

    fd: int
    name: str
    index: int
    offload: int


def _hint(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "sudo modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN"
    return "in a container: --device /dev/net/tun --cap-add NET_ADMIN"


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
        raise VifError(f"cannot open {device}: {error.strerror}", hint=_hint(error)) from error
    try:
        request = struct.pack("16sH22x", NAME_PATTERN, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
        name = bytes(ioctl(fd, TUNSETIFF, request))[:16].rstrip(b"\0").decode()
        ioctl(fd, TUNSETVNETHDRSZ, struct.pack("=i", VNET_HDR_SIZE))
        vif = Vif(fd, name, socket.if_nametoindex(name), _set_offload(fd, ioctl))
    except OSError as error:
        os.close(fd)
        raise VifError(f"cannot make a TUN interface: {error.strerror}", hint=_hint(error)) from error
    silence(name)
    return vif


def silence(name: str, sysctl: str = "/proc/sys/net/ipv6/conf") -> None:
    """Keep the kernel from giving the interface a link-local address and soliciting routers through it.

    1 is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h). Only noise is lost if it cannot be set, say without IPv6.
    """
    with suppress(OSError):
        fd = os.open(f"{sysctl}/{name}/addr_gen_mode", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
