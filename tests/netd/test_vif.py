"""Opening the TUN: the ioctls in order, and what a kernel may refuse."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import VifError
from telehelper.netd.vif import TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, open_vif, tame

if TYPE_CHECKING:
    from pathlib import Path


class Tun:
    """An ioctl that remembers. It names the interface `lo`, because that one has an index everywhere."""

    def __init__(self, refuse: dict[int, int] | None = None, offloads: int = 0x7F) -> None:
        self.asked: list[tuple[int, object]] = []
        self._refuse = refuse or {}
        self._offloads = offloads

    def __call__(self, fd: int, request: int, argument: object) -> object:
        os.fstat(fd)  # must be open
        self.asked.append((request, argument))
        if request in self._refuse:
            raise OSError(self._refuse[request], os.strerror(self._refuse[request]))
        if request == TUNSETOFFLOAD and isinstance(argument, int) and argument & ~self._offloads:
            raise OSError(errno.EINVAL, "Invalid argument")
        return b"lo" + bytes(38) if request == TUNSETIFF else 0


def test_the_ioctls_in_order() -> None:
    tun = Tun()
    vif = open_vif("/dev/null", tun)
    os.close(vif.fd)
    assert (vif.name, vif.offload) == ("lo", 0x67)
    assert tun.asked == [
        (TUNSETIFF, struct.pack("16sH22x", b"tele%d", 0x5001)),  # IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
        (TUNSETVNETHDRSZ, struct.pack("=i", 10)),
        (TUNSETOFFLOAD, 0x67),  # CSUM, TSO4, TSO6, USO4, USO6
    ]


@pytest.mark.parametrize(("known", "taken"), [(0x7F, 0x67), (0x0F, 0x07), (0x01, 0)])
def test_the_best_offload_that_the_kernel_takes(known: int, taken: int) -> None:
    vif = open_vif("/dev/null", Tun(offloads=known))
    os.close(vif.fd)
    assert vif.offload == taken


def test_no_offload_at_all() -> None:
    vif = open_vif("/dev/null", Tun(refuse={TUNSETOFFLOAD: errno.EINVAL}))
    os.close(vif.fd)
    assert vif.offload == 0


def test_no_device_node(tmp_path: Path) -> None:
    with pytest.raises(VifError, match=r"cannot open .*: No such file") as caught:
        open_vif(str(tmp_path / "tun"))
    assert "modprobe tun" in caught.value.hint


def test_no_right_to_use_it() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(VifError, match="Operation not permitted") as caught:
        open_vif("/dev/null", Tun(refuse={TUNSETIFF: errno.EPERM}))
    assert "--cap-add NET_ADMIN" in caught.value.hint
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_set_and_what_cannot_be_is_no_matter_of_life_and_death(tmp_path: Path) -> None:
    mode, source = tmp_path / "ipv6/conf/tele0/addr_gen_mode", tmp_path / "ipv4/conf/tele0/rp_filter"
    tame("tele0", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    source.parent.mkdir(parents=True)
    source.write_bytes(b"0")
    tame("tele0", str(tmp_path))  # there is no IPv6
    assert (source.read_bytes(), mode.exists()) == (b"1", False)
    mode.parent.mkdir(parents=True)
    mode.write_bytes(b"0")
    tame("tele0", str(tmp_path))
    assert (source.read_bytes(), mode.read_bytes()) == (b"1", b"1")
