"""Reading the API's JSON, of which nothing is taken for granted: what has another shape than it should is skipped."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Json = dict[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_ENTRIES: Final = (
    20_000  # of one list that are looked at; the API server's own limit on nodes is a quarter of it
)
MAX_NAME: Final = 63  # characters of a name that are shown, as long as a DNS label


def items(listing: object) -> list[Json]:
    """Return the objects of an API list."""
    found = listing.get("items") if isinstance(listing, dict) else None
    if not isinstance(found, list):
        return []
    return [item for item in islice(found, MAX_ENTRIES) if isinstance(item, dict)]


def field(item: object, *path: str) -> object:
    """Return what is at a path of keys; None if there is nothing."""
    value = item
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(item: object, *path: str) -> str:
    """Return the text at a path of keys; empty if there is none."""
    value = field(item, *path)
    return value if isinstance(value, str) else ""


def strings(value: object) -> list[str]:
    """Return the texts in a list."""
    return (
        [one for one in islice(value, MAX_ENTRIES) if isinstance(one, str)] if isinstance(value, list) else []
    )


def dicts(value: object) -> list[Json]:
    """Return the objects in a list."""
    return (
        [one for one in islice(value, MAX_ENTRIES) if isinstance(one, dict)]
        if isinstance(value, list)
        else []
    )


def name(item: object) -> str:
    """Return an object's name, fit to be shown."""
    return printable(text(item, "metadata", "name")[:MAX_NAME])[:MAX_NAME]


def key(item: object) -> tuple[str, str]:
    """Return what tells an object from the others of its list."""
    return text(item, "metadata", "namespace"), text(item, "metadata", "name")


def networks(texts: Iterable[str]) -> Iterator[Network]:
    """Read CIDRs; a comma separates several in one text, as in the components' flags."""
    for joined in texts:
        for one in joined.split(",") if len(joined) < 1000 else ():
            try:
                found = ip_network(one.strip(), strict=False)
            except ValueError:
                continue
            if getattr(found, "scope_id", None) is None and "%" not in one:
                yield found


def addresses(texts: Iterable[str]) -> Iterator[Address]:
    """Read addresses."""
    for one in texts:
        found = _address(one) if one else None
        if found is not None:
            yield found


@lru_cache(maxsize=MAX_ENTRIES)  # the same pods are read again after each change
def _address(one: str) -> Address | None:
    try:
        return ip_address(one) if "%" not in one else None
    except ValueError:
        return None
