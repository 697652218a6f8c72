"""What the manager does not dial, whoever asks: itself, its node, and what only the node's own software should ask.

Whoever may port-forward to the manager's pod can have it dial from inside the cluster. These addresses are never a
cluster's services, but would give away more than that: a cloud's metadata service hands out the node's credentials,
the node's own ports trust who is near, and the manager's carrier ports lead back to itself.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telehelper.core.frames import Address

KNOWN_ADDRESSES: Final = 4096  # whose verdict is remembered: services are few, dials many

# Of clouds' metadata services, those that are not link-local (169.254.169.254 and its like are): AWS, Alibaba, Azure,
# Oracle, Google, Scaleway, each in its own documentation of instance metadata.
METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd20:ce::254",
            "fd00:42::42",
        ),
    )
)
# The last 32 bits are an IPv4 address: RFC 6052 §2.1, and within networks RFC 8215 (as it is mostly cut, in /96)
NAT64: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


class DialRules:
    """What one manager refuses.

    Parameters
    ----------
    allow_loopback
        Dial the loopback too; for tests.
    node
        Addresses of the node the manager runs on.

    Attributes
    ----------
    own_ports
        Where the manager itself listens.
    """

    def __init__(self, *, allow_loopback: bool = False, node: Iterable[Address] = ()) -> None:
        self.own_ports: set[int] = set()
        self._allow_loopback = allow_loopback
        self._node = frozenset(node)
        self._judged = lru_cache(maxsize=KNOWN_ADDRESSES)(self._judge)

    def refusal(self, dst: Address, dport: int) -> str:
        """Return why an address and port must not be dialed, or an empty string."""
        reason = self._judged(dst)
        if not reason and dport in self.own_ports and is_own(dst):
            return f"{dst} port {dport} is the traffic manager itself"
        return reason

    def _judge(self, dst: Address) -> str:
        inner = embedded(dst)
        if inner is not None:
            return self._judge(inner)
        if dst.is_loopback:
            return "" if self._allow_loopback else f"{dst} is the traffic manager's own loopback"
        for is_wrong, what in (
            (dst.is_unspecified, "unspecified"),
            (dst.is_multicast, "multicast"),
            (dst.is_link_local, "link-local"),
            (dst in METADATA, "a cloud's metadata service"),
            (dst in self._node, "the traffic manager's node (it needs --allow-node)"),
        ):
            if is_wrong:
                return f"{dst} is {what}"
        return ""


def embedded(dst: Address) -> Address | None:
    """Return the IPv4 address that an IPv6 one stands for, if it does."""
    if not isinstance(dst, IPv6Address):
        return None
    if any(dst in network for network in NAT64):
        return ip_address(int(dst) & 0xFFFFFFFF)
    return dst.ipv4_mapped or dst.sixtofour


def is_own(dst: Address) -> bool:
    """Whether an address is one of this machine's: then the kernel sends to it from itself. Sends nothing."""
    family = socket.AF_INET if dst.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(dst), 9))
        except OSError:
            return False
        return ip_address(str(probe.getsockname()[0]).partition("%")[0]) == dst
