"""From API objects to CIDRs: pure functions, each one way of finding out, each saying how sure it is.

Objects are the API's JSON, of which nothing is taken for granted: what has another shape is skipped.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Json = dict[str, Any]
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


def node_pod_cidrs(nodes: object, pods: list[str] | None) -> tuple[list[FoundCidr], str]:
    """Read the nodes' podCIDRs, and check them against the addresses of visible pods.

    Some networks (EKS, Azure flat, Calico, Cilium) ignore podCIDR, so it is believed only if it contains every pod.

    Parameters
    ----------
    nodes
        A list of nodes.
    pods
        Addresses of pods; None if they may not be listed.

    Returns
    -------
    tuple
        The CIDRs, and a notice if they cannot be believed.
    """
    texts = [
        _strings(_field(item, "spec", "podCIDRs")) or _strings([_field(item, "spec", "podCIDR")])
        for item in items(nodes)
    ]
    networks = _collapse(_networks(text for several in texts for text in several))
    count = sum(1 for several in texts if several)
    strangers = [a for a in pods or () if not _inside(a, networks)]
    if networks and strangers:
        return [], f"the nodes' podCIDRs do not contain the pod {strangers[0]}, so they are not used"
    source = f"podCIDR of {count} node{'s' if count != 1 else ''}"
    confidence = "certain" if pods else "likely"
    return [FoundCidr(str(network), "pods", source, confidence) for network in networks], ""


def _inside(address: str, networks: list[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return True  # no address: says nothing against them
    return any(found in network for network in networks)


def covering(addresses: Iterable[str], kind: str, what: str) -> list[FoundCidr]:
    """Guess from observed addresses: the /24 (IPv6: /64) round each, joined where they touch."""
    seen: set[Network] = set()
    count = 0
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        count += 1
        seen.add(ip_network((address, COVER_V4 if address.version == 4 else COVER_V6), strict=False))
    source = f"round {count} visible {what}"
    return [FoundCidr(str(network), kind, source, "guess") for network in _collapse(seen)[:MAX_COVERS]]
