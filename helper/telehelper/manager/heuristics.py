"""From API objects to CIDRs: pure functions, each one way of finding out, each saying how sure it is.

Objects are the API's JSON, of which nothing is taken for granted: what has another shape is skipped. Each address
family stands for itself: a cluster may tell of its IPv4 and hide its IPv6, or the other way round.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Json = dict[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

COVER_V4: Final = 24  # bits; the block taken for one observed address, the usual share of a node
COVER_V6: Final = 64  # bits; likewise
MAX_COVERS: Final = 64  # blocks; more are no guess but noise


class FoundCidr(NamedTuple):
    """A CIDR and how it was found. ``kind``: pods or services; ``confidence``: certain, likely or guess."""

    cidr: str
    kind: str
    source: str
    confidence: str


def items(listing: object) -> list[Json]:
    """Return the objects of an API list."""
    found = listing.get("items") if isinstance(listing, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _field(item: Json, *path: str) -> object:
    value: object = item
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _strings(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _networks(texts: Iterable[str]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ip_network(text, strict=False)
        except ValueError:
            continue


def _collapse(networks: Iterable[Network]) -> list[Network]:
    known = list(networks)
    four = collapse_addresses(n for n in known if isinstance(n, IPv4Network))
    six = collapse_addresses(n for n in known if isinstance(n, IPv6Network))
    return [*four, *six]


def names(listing: object) -> list[str]:
    """Return the names of the objects in a list, sorted."""
    return sorted(
        name for item in items(listing) if isinstance(name := _field(item, "metadata", "name"), str)
    )


def service_cidrs(listing: object) -> list[FoundCidr]:
    """Read ServiceCIDR objects (networking.k8s.io/v1, Kubernetes ≥ 1.33): the truth about service addresses."""
    return [
        FoundCidr(str(network), "services", f"ServiceCIDR {_field(item, 'metadata', 'name')}", "certain")
        for item in items(listing)
        for network in _networks(_strings(_field(item, "spec", "cidrs")))
    ]


def service_addresses(listing: object) -> list[str]:
    """Return the cluster addresses of the services in a list."""
    return [
        address
        for item in items(listing)
        for address in _strings(_field(item, "spec", "clusterIPs"))
        or [str(_field(item, "spec", "clusterIP"))]
        if address not in ("None", "")
    ]


def pod_addresses(listing: object) -> list[str]:
    """Return the addresses of the pods in a list; pods on the host's network have the node's, which are none."""
    found: list[str] = []
    for item in items(listing):
        if _field(item, "spec", "hostNetwork") is True:
            continue
        several = _field(item, "status", "podIPs")
        for entry in several if isinstance(several, list) else [{"ip": _field(item, "status", "podIP")}]:
            address = entry.get("ip") if isinstance(entry, dict) else None
            if isinstance(address, str) and address:
                found.append(address)
    return found


def node_pod_cidrs(nodes: object, pods: list[str] | None) -> tuple[list[FoundCidr], list[str]]:
    """Read the nodes' podCIDRs, and check them against the addresses of visible pods.

    Some networks (EKS, Azure flat, Calico, Cilium) ignore podCIDR, so those of a family are believed only if they
    contain every pod.

    Parameters
    ----------
    nodes
        A list of nodes.
    pods
        Addresses of pods; None if they may not be listed.

    Returns
    -------
    tuple
        The CIDRs, and a notice for each family whose own cannot be believed.
    """
    texts = [
        _strings(_field(item, "spec", "podCIDRs")) or _strings([_field(item, "spec", "podCIDR")])
        for item in items(nodes)
    ]
    networks = _collapse(_networks(text for several in texts for text in several))
    count = sum(1 for several in texts if several)
    addresses = _addresses(pods or ())
    source = f"podCIDR of {count} node{'s' if count != 1 else ''}"
    found: list[FoundCidr] = []
    notices: list[str] = []
    for version in dict.fromkeys(network.version for network in networks):
        own = [network for network in networks if network.version == version]
        seen = [address for address in addresses if address.version == version]
        strangers = [address for address in seen if not any(address in network for network in own)]
        if strangers:
            notices.append(f"the nodes' podCIDRs do not contain the pod {strangers[0]}, so they are not used")
        else:
            found += [FoundCidr(str(n), "pods", source, "certain" if seen else "likely") for n in own]
    return found, notices


def _addresses(texts: Iterable[str]) -> list[Address]:
    found: list[Address] = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue
    return found


def of_other_families(addresses: Iterable[str], found: Iterable[FoundCidr]) -> list[str]:
    """Return the addresses of the families that none of the CIDRs found is of."""
    known = {network.version for network in _networks(entry.cidr for entry in found)}
    return [str(address) for address in _addresses(addresses) if address.version not in known]


def covering(addresses: Iterable[str], kind: str, what: str) -> list[FoundCidr]:
    """Guess from observed addresses: the /24 (IPv6: /64) round each, joined where they touch."""
    known = _addresses(addresses)
    blocks = {ip_network((a, COVER_V4 if a.version == 4 else COVER_V6), strict=False) for a in known}
    source = f"round {len(known)} visible {what}"
    return [FoundCidr(str(network), kind, source, "guess") for network in _collapse(blocks)[:MAX_COVERS]]
