"""What a connection's methods do that look into the cluster: two answers compared, a name made an address and a port."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.errors import TelemagicError, UsageError
from telehelper.views import PortRow

from telemagic import addresses
from telemagic.cluster_frames import LookupLine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telehelper.views import PodRow, Resolved, ServiceRow

SYSTEM_PATIENCE: Final = 12.0  # seconds for getaddrinfo; glibc's own limit is 5 for each server and try
_FAMILIES: Final = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}
_NO_SUCH: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class SystemAnswer(NamedTuple):
    """What this machine's getaddrinfo says, as every program hears it."""

    addresses: tuple[str, ...]
    seconds: float
    error: str  # empty if there are addresses
    is_missing: bool = False  # it says that there is no such name


def ask_system(name: str, family: int = socket.AF_UNSPEC) -> SystemAnswer:
    """Ask getaddrinfo, for at most SYSTEM_PATIENCE; never raises."""
    found: list[SystemAnswer] = []
    begun = time.perf_counter()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
        except socket.gaierror as error:
            said = str(error.strerror or error)
            found.append(
                SystemAnswer((), time.perf_counter() - begun, said, is_missing=error.errno in _NO_SUCH)
            )
        except (OSError, UnicodeError) as error:
            found.append(SystemAnswer((), time.perf_counter() - begun, str(error)))
        else:
            texts = dict.fromkeys(str(row[4][0]).partition("%")[0] for row in rows)
            found.append(SystemAnswer(tuple(texts), time.perf_counter() - begun, ""))

    # getaddrinfo cannot be interrupted: in a thread of its own it keeps nobody waiting.
    thread = threading.Thread(target=ask, name="telemagic getaddrinfo", daemon=True)
    thread.start()
    thread.join(SYSTEM_PATIENCE)
    return (
        found[0] if found else SystemAnswer((), SYSTEM_PATIENCE, f"no answer within {SYSTEM_PATIENCE:.0f} s")
    )


def compare(
    name: str, rtype: str, said: Resolved, system: SystemAnswer | None
) -> tuple[list[LookupLine], bool | None]:
    """Put our resolver's answer and the machine's side by side.

    Returns
    -------
    list, bool
        The lines, at least one; and whether the two agree, None where there is nothing to compare.
    """
    theirs = set(system.addresses) if system is not None else set()
    ours = {row.data for row in said.records if row.rtype == rtype}
    agree = _agree(ours, said, system)
    lines = [
        LookupLine(
            row.name,
            row.rtype,
            row.data,
            row.ttl,
            said.lookup.source or "unknown",
            said.seconds,
            (row.data in theirs) if system is not None and row.rtype == rtype else None,
            said.lookup.asked,
            said.explanation,
        )
        for row in said.records
    ]
    if not lines:
        note = said.explanation or said.rcode
        source = said.lookup.source or "unknown"
        lines.append(LookupLine(name, rtype, "", -1, source, said.seconds, None, said.lookup.asked, note))
    if system is not None:
        lines += [
            LookupLine(name, rtype, one, -1, "this machine only", system.seconds, True, "", _ONLY_HERE)
            for one in system.addresses
            if one not in ours
        ]
        if ours and not theirs:
            lines = [replace(line, note=f"programs do not get it: {system.error}") for line in lines]
    return lines, agree


_ONLY_HERE: Final = "what programs get: not telemagic's answer (/etc/hosts, another resolver, a cache?)"


def _agree(ours: set[str], said: Resolved, system: SystemAnswer | None) -> bool | None:
    if system is None:
        return None
    if not ours and not system.addresses:
        return system.is_missing or said.rcode not in ("NOERROR", "NXDOMAIN")
    # libc may leave families or duplicates out, and sorts: the same addresses at all is what counts.
    return bool(ours & set(system.addresses))


def family_of(name: str, rtype: str) -> int | None:
    """Return the address family that getaddrinfo can be asked for; None if it knows no such records."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _FAMILIES.get(rtype)
    return None


class Goal(NamedTuple):
    """Where a ping goes."""

    address: str
    port: int
    notices: tuple[str, ...] = ()


class Directory:
    """What there is to find, asked when it is needed."""

    def __init__(
        self,
        services: Callable[[str], Sequence[ServiceRow]],
        pods: Callable[[str], Sequence[PodRow]],
        namespace: str,
        domain: str,
    ) -> None:
        self._services = services
        self._pods = pods
        self._namespace = namespace
        self._domain = domain

    def service(self, target: addresses.Target) -> ServiceRow:
        """Return the service that is meant.

        Raises
        ------
        UsageError
            There is none; the hint says which was probably meant.
        """
        place = addresses.place(target.host, self._namespace, self._domain)
        if place is None:
            raise UsageError(f"{target.host!r} is no service's name", hint="write it like postgres.shop")
        found = addresses.find(place, self._services(place.namespace))
        if found is None:
            raise UsageError(
                f"there is no service {place.service!r} in namespace {place.namespace!r}",
                hint=self.suggest(place) or "%tele services -A lists them",
            )
        return found

    def suggest(self, place: addresses.Place) -> str:
        """Return `did you mean postgres.shop?` for a service that is not there; empty when nothing is close."""
        try:
            return addresses.did_you_mean(place, self._services(""))
        except TelemagicError:  # a suggestion is not worth an error
            return ""

    def explain(self, said: Resolved) -> Resolved:
        """Add to the explanation of a name that is not there which was probably meant."""
        place = addresses.place(said.lookup.asked, self._namespace, self._domain)
        if said.rcode != "NXDOMAIN" or said.lookup.source == "machine" or place is None:
            return said
        close = self.suggest(place)
        return replace(said, explanation=f"{said.explanation}; {close}") if close else said

    def url(self, text: str, port: str) -> str:
        """Return the address of a service with its port; see :meth:`telemagic.connection.Connection.url`."""
        target = addresses.parse(text)
        if port and target.port:
            raise UsageError(f"{text!r} has a port already, and {port!r} is another", hint="give one of them")
        row = self.service(target)
        scheme = target.url.scheme.partition("+")[0] if target.url is not None else ""
        chosen = addresses.choose_port(target.host, row.ports, port or target.port, scheme)
        return addresses.join(target, chosen.number)

    def goal(self, text: str, ask: Callable[[str], SystemAnswer] = ask_system) -> Goal:
        """Find the address and the port to connect to: of a service, a pod, or as given.

        Raises
        ------
        UsageError
            There is no such thing, or it has no such port, or that is a UDP port.
        """
        target = addresses.parse(text)
        try:
            ipaddress.ip_address(target.host)
        except ValueError:
            pass  # a name
        else:
            return Goal(target.host, _number(target))
        row, ports, fallback = self._lookup(target)
        scheme = target.url.scheme if target.url is not None else ""
        port = addresses.choose_port(target.host, ports, target.port, scheme) if row else None
        if port is not None and port.protocol != "TCP":
            raise UsageError(
                f"{target.host} port {port.number} is {port.protocol}, which has no connect to measure",
                hint="ping needs a TCP port",
            )
        number = port.number if port is not None else _number(target)
        if row == "pod":
            return Goal(fallback, number)
        answer = ask(target.host)
        if answer.addresses:
            return Goal(answer.addresses[0], number)
        if fallback:
            said = f"{target.host} does not resolve on this machine ({answer.error}): connected to {fallback}"
            return Goal(fallback, number, (said,))
        raise UsageError(
            f"{target.host} does not resolve: {answer.error}", hint=f"%tele resolve {target.host}"
        )

    def _lookup(self, target: addresses.Target) -> tuple[str, Sequence[PortRow], str]:
        """Return what the name is, service, pod or nothing we know, with its ports and its address."""
        place = addresses.place(target.host, self._namespace, self._domain)
        if place is None:
            return "", (), ""
        try:
            row = self.service(target)
        except UsageError:
            for pod in self._pods(place.namespace):
                if (pod.name, pod.namespace) == place and pod.ip:
                    return "pod", _any_port(target) or pod.ports, pod.ip
            raise
        except TelemagicError:
            if target.port.isdigit():  # services may not be listed: the name may still resolve
                return "", (), ""
            raise
        # A name without an address of its own leads to the pods themselves, which may listen anywhere.
        ports = row.ports if row.cluster_ip else _any_port(target) or row.ports
        return "service", ports, row.cluster_ip


def _any_port(target: addresses.Target) -> tuple[PortRow, ...]:
    return (PortRow("", _number(target), "TCP"),) if target.port.isdigit() else ()


def _number(target: addresses.Target) -> int:
    if not target.port.isdigit() or not 0 < int(target.port) < 65536:
        raise UsageError(f"{target.host} needs a port by number", hint=f"write it like {target.host}:5432")
    return int(target.port)
