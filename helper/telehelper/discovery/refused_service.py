"""Finding a service CIDR out from what the API server says to a Service that it is only asked to pretend to create.

Every Service here is sent with ``dryRun=All``: admission and allocation run, nothing is stored (Kubernetes API concepts,
"Dry-run"). First it wants an address that is in no cluster's range; the refusal names the range ("The range of valid
IPs is 10.96.0.0/12"). The text is no interface, and newer releases leave the range out, so where it is missing two
things are used that all allocators do: a dry run without an address is given the network's first one, and an address is
refused exactly if it is out of range. The prefix length then follows by bisection.

With several ServiceCIDRs each dry run asks one of them at random: answers that do not fit together mean "unknown".
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telehelper.discovery.fields import addresses, text
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from telehelper.discovery.fields import Address, Network

NAME: Final = "telemagic-dry-run"
OUTSIDE: Final = {4: "1.1.1.1", 6: "1:1::1"}  # public addresses, which are no cluster's
# Bits of the prefixes that are looked for: a whole 10.0.0.0/8, or an IPv6 /64, is the widest that anybody uses.
_SHORTEST: Final = {4: 8, 6: 64}
_LONGEST: Final = {4: 30, 6: 126}
ASKED: Final = 3  # times that a question is asked whose answer would differ if there were several ranges
_RANGE: Final = re.compile(r"range of valid IPs is ([0-9a-fA-F.:]{2,45}/[0-9]{1,3})")
_OUT_OF_RANGE: Final = re.compile(r"not in the valid range|does not match the current range")
_IN_USE: Final = "already allocated"


class Verdict(NamedTuple):
    """What one dry run came to. ``is_inside`` is None if it does not tell."""

    is_inside: bool | None
    address: Address | None = None  # that the Service was given
    network: Network | None = None  # that the refusal names


UNKNOWN: Final = Verdict(None)


def service(version: int, address: str) -> dict[str, Any]:
    """Return the Service to ask with: of one family, wanting `address`, or any if that is empty."""
    spec: dict[str, Any] = {
        "ipFamilies": [f"IPv{version}"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 443, "protocol": "TCP"}],
    }
    if address:
        spec |= {"clusterIP": address, "clusterIPs": [address]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": spec}


def accepted(answer: object) -> Verdict:
    """Read the Service that would have been created."""
    given = next(addresses([text(answer, "spec", "clusterIP")]), None)
    return Verdict(True, given) if given is not None else UNKNOWN


def rejected(message: str) -> Verdict:
    """Read the API server's words; "already allocated" is said of addresses that are in range."""
    if named := _RANGE.search(message):
        try:
            return Verdict(False, None, ip_network(named[1]))
        except ValueError:
            return UNKNOWN
    if _OUT_OF_RANGE.search(message):
        return Verdict(False)
    return Verdict(True) if _IN_USE in message else UNKNOWN


async def find_range(ask: Callable[[str], Awaitable[Verdict]], version: int) -> Network | None:
    """Find the service CIDR of one family; None if the answers do not tell, or do not fit together.

    Parameters
    ----------
    ask
        Makes one dry run with an address, or with none if it is empty.
    version
        The family, 4 or 6.
    """
    named = {(await ask(OUTSIDE[version])).network for _ in range(ASKED)}
    if named != {None}:
        network = named.pop()
        return network if not named and network is not None and network.version == version else None
    bases = {(await ask("")).address for _ in range(ASKED)}
    base = bases.pop()
    if bases or base is None or base.version != version or not int(base):
        return None
    found = await _bisect(ask, base)
    if found is None:
        return None
    last = str(base + found.num_addresses - 2)
    again = {(await ask(last)).is_inside for _ in range(ASKED)}
    return found if again == {True} and (await ask("")).address == base else None


async def _bisect(ask: Callable[[str], Awaitable[Verdict]], base: Address) -> Network | None:
    """Find the prefix length of the range that begins at `base`.

    Of a range of length p the last address but one is ``base + 2^(max - p) - 2``; it is in the real range exactly if
    that is no longer than p. Both answers must have been given: a server that accepts everything, or nothing, tells nothing.
    """
    width = base.max_prefixlen
    zeros = (int(base) & -int(base)).bit_length() - 1
    low, high = max(_SHORTEST[base.version], width - zeros), _LONGEST[base.version]
    answers: set[bool] = set()
    while low < high:
        middle = (low + high) // 2
        inside = (await ask(str(base + (1 << (width - middle)) - 2))).is_inside
        if inside is None:
            return None
        answers.add(inside)
        low, high = (low, middle) if inside else (middle + 1, high)
    # One that accepts everything is found out by the first address behind the range that this would be.
    beyond = int(base) + (1 << (width - low))
    if answers == {True} and beyond < 1 << width:
        behind = (await ask(str(ip_address(beyond)))).is_inside
        answers |= {behind} if behind is not None else set()
    return ip_network(f"{base}/{low}") if answers == {True, False} else None


def verdict_of(error: ClusterError) -> Verdict:
    """Return what a failed dry run tells: nothing, if the API server did not even look at the Service."""
    if isinstance(error, CredentialsRefused | ApiServerUnavailable):
        return UNKNOWN
    return rejected(error.data.get("told") or error.message)


def review(namespace: str) -> dict[str, Any]:
    """Return the SelfSubjectAccessReview that asks whether services may be created in a namespace."""
    wanted = {"namespace": namespace, "verb": "create", "group": "", "resource": "services"}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
