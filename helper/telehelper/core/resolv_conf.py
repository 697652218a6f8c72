"""What a `resolv.conf` says: a pod's tells of its cluster, the machine's of its nameservers."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple


class ResolvConf(NamedTuple):
    """The lines that matter here (resolv.conf(5))."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    @property
    def cluster_domain(self) -> str:
        """The cluster's domain, from the search entry ``svc.<domain>`` that the kubelet writes; empty if there is none.

        Without one the file is the node's, not a pod's (``dnsPolicy: Default``), and its nameservers are no cluster's.
        """
        for name in self.search:
            if name.startswith("svc.") and len(name) > 4:
                return name.removeprefix("svc.").rstrip(".")
        return ""

    @property
    def cluster_dns(self) -> str:
        """The first nameserver that can be dialed, if the file is a pod's; else empty.

        A node-local cache (link-local or loopback) answers on its own node only and is passed over.
        """
        if not self.cluster_domain:
            return ""
        for server in self.nameservers:
            address = ip_address(server)
            if not (address.is_link_local or address.is_loopback):
                return server
        return ""


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read the file's text; what is not understood is skipped, as in the C library. The last search or domain counts."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(name.lower() for name in words[1:])
    return ResolvConf(tuple(nameservers), search)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text
