"""What the facts about a cluster mean for whoever wants to connect: one finding each, with a remedy; pure."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from telehelper.core.route_plan import RoutePlan
    from telehelper.errors import TelemagicError

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"

SLOW: Final = 0.5  # seconds; a connect asks the API server some ten times, one after the other
SKEW: Final = 30.0  # seconds; the Date header has a grain of one, the request may be on its way for some
BAD_SKEW: Final = (
    300.0  # seconds; where logins and certificates begin to fail (Kerberos' and many clouds' limit)
)
SOON: Final = 600.0  # seconds to a token's end
SOON_CERTIFICATE: Final = 7 * 86_400.0  # seconds to a certificate's
SMALL_MTU: Final = 1280  # bytes: what IPv6 needs at least (RFC 8200 §5); below that paths lose packets


class Finding(NamedTuple):
    """What one check found, in one line, and what to do about it."""

    check: str
    level: str
    found: str
    remedy: str = ""


class Right(NamedTuple):
    """Something one may do or not. ``scope`` is where: manager, connected, or cluster (in all namespaces)."""

    verb: str
    resource: str
    scope: str
    group: str = ""


FORWARD: Final = "pods/portforward"
_SLICES: Final = ("endpointslices", "discovery.k8s.io")
RIGHTS: Final[Mapping[str, tuple[tuple[Right, ...], str]]] = {
    "rights: manager": (
        (
            Right("list", "pods", "manager"),
            Right("get", FORWARD, "manager"),
            Right("create", FORWARD, "manager"),
        ),
        "no way in through a traffic manager",
    ),
    "rights: agentless": (
        (
            Right("list", "pods", "connected"),
            Right("list", "services", "connected"),
            Right("list", _SLICES[0], "connected", _SLICES[1]),
            Right("get", FORWARD, "connected"),
            Right("create", FORWARD, "connected"),
        ),
        "no way in without a traffic manager",
    ),
    "rights: names": (
        (
            Right("list", "namespaces", "cluster"),
            Right("list", "services", "cluster"),
            Right("list", "pods", "cluster"),
            Right("list", _SLICES[0], "cluster", _SLICES[1]),
        ),
        "-A shows the connected namespace only, and names of other namespaces may need their full form",
    ),
    "rights: networks": (
        (
            Right("list", "servicecidrs", "cluster", "networking.k8s.io"),
            Right("list", "nodes", "cluster"),
            Right("create", "services", "connected"),
        ),
        "the cluster's networks may be known in part: names work, addresses that no name led to may not",
    ),
}


def rights(name: str, allowed: Mapping[Right, bool | None], where: Mapping[str, str]) -> Finding:
    """Judge one group of `RIGHTS`. `allowed` is None where the API server did not say.

    Parameters
    ----------
    where
        The namespaces of the scopes manager and connected.
    """
    group, lost = RIGHTS[name]
    missing = [right for right in group if allowed.get(right) is False]
    unknown = [right for right in group if allowed.get(right) is None]
    if missing:
        found = f"you may not {_phrase(missing, where, 'or')}: {lost}"
        return Finding(name, WARNING, found, "ask your cluster's administrator for it")
    if unknown:
        return Finding(
            name, WARNING, f"the API server does not say whether you may {_phrase(unknown, where)}"
        )
    return Finding(name, OK, f"you may {_phrase(group, where)}")


def _phrase(some: Iterable[Right], where: Mapping[str, str], joint: str = "and") -> str:
    """Return rights for people: `list pods; get and create pods/portforward in shop`."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in some:
        verbs.setdefault((right.scope, right.resource), []).append(right.verb)
    resources: dict[tuple[str, str], list[str]] = {}
    for (scope, resource), said in verbs.items():
        resources.setdefault((scope, f" {joint} ".join(said)), []).append(resource)
    places: dict[str, list[str]] = {}
    for (scope, words), what in resources.items():
        places.setdefault(scope, []).append(f"{words} {', '.join(what)}")
    return "; ".join(f"{'; '.join(parts)} {_place(scope, where)}" for scope, parts in places.items())


def _place(scope: str, where: Mapping[str, str]) -> str:
    return "in all namespaces" if scope == "cluster" else f"in {where.get(scope) or scope}"


def may(name: str, allowed: Mapping[Right, bool | None]) -> bool:
    """Whether nothing of a group is known to be refused."""
    return all(allowed.get(right) is not False for right in RIGHTS[name][0])


def api_server(server: str, version: str, seconds: float) -> Finding:
    """Judge an API server that answers."""
    found = f"{server}: {version}, {seconds * 1e3:.0f} ms round trip"
    if seconds > SLOW:
        return Finding("API server", WARNING, f"{found}, which is slow", "a network nearer to the cluster")
    return Finding("API server", OK, found)


def clock(skew: float) -> Finding:
    """Judge how far this machine's clock is ahead of the API server's, in seconds."""
    if abs(skew) <= SKEW:
        return Finding("clock", OK, "agrees with the API server's")
    direction = "ahead of" if skew > 0 else "behind"
    level = PROBLEM if abs(skew) > BAD_SKEW else WARNING
    found = f"{duration(abs(skew))} {direction} the API server's: tokens and certificates seem expired or not yet valid"
    return Finding("clock", level, found, "set the clock: timedatectl set-ntp true")


def credentials(kind: str, token_end: float | None, certificate_end: float | None, now: float) -> Finding:
    """Judge credentials that were accepted; ends are Unix seconds, None if there is none."""
    for what, end, soon, remedy in (
        ("token", token_end, SOON, "log in again"),
        ("client certificate", certificate_end, SOON_CERTIFICATE, "get a new kubeconfig from your cluster"),
    ):
        if end is None:
            continue
        left = end - now
        if left <= 0:
            return Finding("credentials", WARNING, f"the {what} expired {duration(-left)} ago", remedy)
        if left < soon and kind != "login plugin":
            return Finding("credentials", WARNING, f"the {what} expires in {duration(left)}", remedy)
    ends = [end - now for end in (token_end, certificate_end) if end is not None]
    lasts = f", good for {duration(min(ends))}" if ends else ""
    return Finding("credentials", OK, f"{kind} accepted{lasts}")


def refused(error: TelemagicError, token_end: float | None, now: float) -> Finding:
    """Judge credentials that the API server refused."""
    found = error.message
    if token_end is not None and token_end < now:
        found = f"the token expired {duration(now - token_end)} ago: {found}"
    return Finding("credentials", PROBLEM, found, "log in again; kubectl get pods must work")


def mtu(size: int, device: str) -> Finding:
    """Judge the path's MTU to the API server."""
    found = f"{size} bytes to the API server" + (f", by {device}" if device else "")
    if 0 < size < SMALL_MTU:
        remedy = f"sudo ip link set {device} mtu {SMALL_MTU}" if device else "a VPN with a larger MTU"
        return Finding("MTU", WARNING, f"{found}: too small for IPv6, slow for the rest", remedy)
    return Finding("MTU", OK, found)


def overlap(plan: RoutePlan) -> Finding:
    """Judge how the cluster's networks go with this machine's routes."""
    if plan.conflicts:
        first = plan.conflicts[0]
        more = f" (and {len(plan.conflicts) - 1} more)" if len(plan.conflicts) > 1 else ""
        facts = first.data
        found = f"the cluster's {facts['wanted']} overlaps {facts['existing']} on {facts['device']}{more}"
        return Finding("networks", PROBLEM, f"{found}: connecting is refused", first.hint)
    if not plan.rows:
        return Finding(
            "networks", WARNING, "none is known: names work, addresses by themselves do not", "--cidr"
        )
    shown = ", ".join(str(network) for network in plan.routes) or "none of them can be routed"
    return Finding("networks", OK, f"{shown}: nothing of this machine overlaps")


def manager(where: str, version: str, ours: str, error: TelemagicError | None) -> Finding:
    """Judge the traffic manager at `where`, or why there is none."""
    if error is not None:
        return Finding("traffic manager", WARNING, error.message, error.hint)
    if version and version != ours:
        found = f"{where}, version {version}; this is {ours}"
        return Finding(
            "traffic manager", WARNING, found, "if connecting fails: %tele install brings it to this version"
        )
    return Finding("traffic manager", OK, f"{where} is ready" + (f", version {version}" if version else ""))


def way_in(has_manager: bool, allowed: Mapping[Right, bool | None], namespaces: Collection[str]) -> Finding:
    """Say which way a connect would take."""
    if has_manager and may("rights: manager", allowed):
        return Finding("way in", OK, "through the traffic manager")
    if may("rights: agentless", allowed):
        return Finding("way in", OK, "agentless: no UDP, and only what your rights reach")
    missing = "your rights to it are not enough" if has_manager else "there is no traffic manager"
    where = " or ".join(dict.fromkeys(namespaces))
    return Finding(
        "way in",
        PROBLEM,
        f"none: {missing}, and you may not go without one",
        f"ask for get and create on {FORWARD} in {where}",
    )


def duration(seconds: float) -> str:
    """Return a time span for people."""
    whole = round(seconds)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


# --- when credentials end ----------------------------------------------------------------------------------------


def token_end(authorization: str) -> float | None:
    """Return when a bearer token ends, Unix seconds, if it is one that says so (RFC 7519 §4.1.4); nothing is verified."""
    parts = authorization.removeprefix("Bearer ").split(".")
    if len(parts) != 3:
        return None
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(body["exp"])
    except (ValueError, KeyError, TypeError, binascii.Error, OverflowError):
        return None


def certificate_end(pem: bytes) -> float | None:
    """Return when the first certificate of a PEM file ends, Unix seconds; None if there is none to read.

    Only as much of DER as leads to the field: Certificate, tbsCertificate, validity, notAfter (RFC 5280 §4.1).
    """
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    body = pem.partition(begin)[2].partition(end)[0]
    try:
        certificate = _inside(base64.b64decode(body), 0)
        fields = list(_fields(_inside(certificate, 0)))
        # [0] version is there or not; then serial number, signature, issuer, validity.
        validity = fields[4 if fields[0][0] == 0xA0 else 3][1]
        tag, text = list(_fields(validity))[1]
        return _time(tag, text.decode("ascii"))
    except (ValueError, IndexError, StopIteration, binascii.Error):
        return None


def _inside(data: bytes, at: int) -> bytes:
    return next(_fields(data[at:]))[1]


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through the DER elements of `data` (X.690 §8.1): tag and contents."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, text: str) -> float:
    if tag == 0x17:  # UTCTime: two digits of the year, 50 and up are 19xx (RFC 5280 §4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    when = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return when.replace(tzinfo=datetime.UTC).timestamp()
