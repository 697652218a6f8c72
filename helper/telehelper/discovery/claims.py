"""What is said about the cluster's networks, and which of it is believed; pure.

Each way of finding out makes *claims*. For each kind of address and each family the first claim that the visible
addresses do not refute is taken; later ones that say the same are named with it. Visible addresses outside of what is
taken are covered one by one. Everything here comes from the cluster, so nothing of it is trusted: what can be no
cluster's is left out with a notice.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import cidr
from telehelper.core.routes import NEVER
from telehelper.discovery.fields import Address, Network
from telehelper.discovery.fields import networks as read_networks
from telehelper.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

CERTAIN: Final = "certain"
LIKELY: Final = "likely"
GUESS: Final = "guess"
RANK: Final = {CERTAIN: 0, LIKELY: 1, GUESS: 2}

PODS: Final = "pods"
SERVICES: Final = "services"

COVER_V4: Final = 24  # bits; the widest block taken for one observed address, the usual share of a node
COVER_V6: Final = 64  # bits; likewise
MAX_COVERS: Final = 64  # blocks of a kind; those with most addresses are kept
MAX_CIDRS: Final = 128  # of one claim after joining neighbours; netd takes 1024 routes in all
WIDEST: Final = {4: 8, 6: 32}  # bits; no cluster has more than a whole 10.0.0.0/8
MAX_NOTICES: Final = 12  # lines
MAX_NOTICE: Final = 240  # characters


class FoundCidr(NamedTuple):
    """A CIDR and how it was found. ``kind``: pods or services; ``confidence``: certain, likely or guess."""

    cidr: str
    kind: str
    source: str
    confidence: str


class Notice(NamedTuple):
    """One line about what is not known, or not believed. ``topic``: pods, services, dns, namespaces, or empty for all."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Networks that somebody says the pods, or the services, are in.

    Attributes
    ----------
    networks
        All of them, of both families.
    source
        Who says so, for people.
    alone
        How sure it is when no address of the kind is visible.
    witnessed
        How sure it is when visible addresses are in it.
    is_whole
        Whether it means all addresses of the kind, so that one outside refutes it. Otherwise it is refuted only if it
        contains none of those visible.
    """

    networks: tuple[Network, ...]
    source: str
    alone: str = LIKELY
    witnessed: str = CERTAIN
    is_whole: bool = True


def claim(
    texts: Iterable[str], source: str, *, alone: str = LIKELY, witnessed: str = CERTAIN, is_whole: bool = True
) -> list[Claim]:
    """Return the claim that these texts make; none if they name no network."""
    found = tuple(read_networks(texts))
    return [Claim(found, source, alone, witnessed, is_whole)] if found else []


def sane(one: Claim, kind: str, notices: list[Notice]) -> Claim:
    """Return the claim without what can be no cluster's; at most one notice tells why."""
    kept: list[Network] = []
    refused: list[Network] = []
    for network in one.networks:
        is_wide = network.prefixlen < WIDEST[network.version]
        (refused if is_wide or any(cidr.overlap(network, never) for never in NEVER) else kept).append(network)
    joined = cidr.merge(kept)
    if refused:
        also = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        notices.append(
            Notice(kind, f"{one.source} names {refused[0]}{also}, which can be no cluster's: left out")
        )
    if len(joined) > MAX_CIDRS:
        notices.append(
            Notice(kind, f"{one.source} names {len(joined)} networks, more than can be routed: not used")
        )
        joined = []
    return replace(one, networks=tuple(joined))


def decide(
    kind: str,
    claims: Iterable[Claim],
    seen: Collection[Address],
    excluded: Collection[Address],
    notices: list[Notice],
    *,
    is_exact: bool = False,
) -> list[FoundCidr]:
    """Choose among claims, each family for itself.

    Parameters
    ----------
    kind
        Pods or services.
    claims
        In the order in which they are believed.
    seen
        Addresses of this kind that are visible.
    excluded
        Addresses that are none of the cluster's networks and must not be covered by a guess: nodes, the API server.
    notices
        Gets a line for each claim that is refuted, and for each that can be no cluster's.
    is_exact
        Whether a guess may only be the address itself, because nobody knows whose its neighbours are.
    """
    clean = [sane(one, kind, notices) for one in claims]
    found: list[FoundCidr] = []
    for version in (4, 6):
        visible = [address for address in seen if address.version == version]
        taken = _of_family(kind, version, clean, visible, notices)
        strangers = outside(visible, [ip_network(one.cidr) for one in taken])
        found += [*taken, *covering(strangers, kind, excluded, is_exact=is_exact)]
    return found


def _of_family(
    kind: str, version: int, claims: Sequence[Claim], seen: Sequence[Address], notices: list[Notice]
) -> list[FoundCidr]:
    """Return the networks of the first claim that stands, with the names of those that say the same."""
    taken: list[Network] = []
    sources: list[str] = []
    confidence = GUESS
    for one in claims:
        own = [network for network in one.networks if network.version == version]
        if not own:
            continue
        strangers = outside(seen, own)
        if strangers and (one.is_whole or len(strangers) == len(seen)):
            notices.append(
                Notice(
                    kind,
                    f"{one.source}: {_few(own)} does not contain {_noun(kind)} {strangers[0]}, so it is not used",
                )
            )
        elif not taken:
            taken, sources = own, [one.source]
            confidence = one.witnessed if len(strangers) < len(seen) else one.alone
        elif agree(own, taken) and one.source not in sources:
            sources.append(one.source)
    source = "; also: ".join(filter(None, (", ".join(sources[:1]), ", ".join(sources[1:]))))
    return [FoundCidr(str(network), kind, source, confidence) for network in taken]


def outside(seen: Sequence[Address], own: Sequence[Network]) -> list[Address]:
    """Return the addresses that are in none of the networks."""
    known = cidr.NetworkSet(own)
    return [address for address in seen if address not in known]


def agree(some: Sequence[Network], others: Sequence[Network]) -> bool:
    """Whether each of the first is in one of the others, or each of the others is in one of the first."""

    def within(inner: Sequence[Network], outer: Sequence[Network]) -> bool:
        return all(any(cidr.contains(one, network) for one in outer) for network in inner)

    return within(some, others) or within(others, some)


def _few(own: Sequence[Network]) -> str:
    return f"{own[0]}" + (f" (and {len(own) - 1} more)" if len(own) > 1 else "")


def _noun(kind: str) -> str:
    return "the visible pod" if kind == PODS else "the visible service address"


def covering(
    seen: Iterable[Address], kind: str, excluded: Collection[Address], *, is_exact: bool = False
) -> list[FoundCidr]:
    """Guess from observed addresses: a block round each, at most a /24 (IPv6: /64), that has no excluded address in it.

    Blocks are joined where they touch. Of more than `MAX_COVERS` those with most addresses are kept.
    """
    weights: dict[Network, int] = {}
    sorted_out = {
        version: sorted(int(one) for one in excluded if one.version == version) for version in (4, 6)
    }
    never = cidr.NetworkSet(NEVER)
    for address in seen:
        if address not in never and address not in excluded:
            block = ip_network(address) if is_exact else _block(address, sorted_out[address.version])
            weights[block] = weights.get(block, 0) + 1
    heaviest = sorted(weights, key=lambda block: -weights[block])[:MAX_COVERS]
    return [FoundCidr(str(network), kind, f"round visible {kind}", GUESS) for network in cidr.merge(heaviest)]


def _block(address: Address, excluded: Sequence[int]) -> Network:
    """Return the widest block round an address, within limits, that has none of the excluded numbers in it.

    `excluded` is sorted: of all its numbers a neighbour has the most leading bits in common with the address.
    """
    prefix = COVER_V4 if address.version == 4 else COVER_V6
    at = bisect_left(excluded, int(address))
    for number in excluded[max(0, at - 1) : at + 1]:
        common = address.max_prefixlen - (int(address) ^ number).bit_length()
        prefix = max(prefix, common + 1)
    host: Network = ip_network(address)
    return host.supernet(new_prefix=prefix)


def bounded(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Return the notices once each, printable, and not too many."""
    clean = dict.fromkeys(Notice(topic, printable(text[:MAX_NOTICE])[:MAX_NOTICE]) for topic, text in notices)
    return tuple(islice(clean, MAX_NOTICES))
