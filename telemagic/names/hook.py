"""The resolver hook: the cluster's names in this process alone, where the machine must not or cannot be changed.

Theory of operation
-------------------
*What is replaced.* ``_socket.getaddrinfo``, which ``socket.getaddrinfo`` calls, and with it everything of Python's that
resolves names: ``socket.create_connection``, urllib, requests, asyncio's ``loop.getaddrinfo`` in its threads; and
``gethostbyname`` with ``gethostbyname_ex``. For C libraries of the main thread (libpq of psycopg), glibc's own settings
of that thread are pointed at our resolver (:mod:`telemagic.names.glibc`).

*What is ours.* Names under the cluster's domains and names without a dot. Anything else goes to the original function
with the very arguments; so do addresses, ``localhost``, this machine's own name and what /etc/hosts has. A name without
a dot that the cluster does not have is looked up as before.

*When it is over* the originals are put back. A forked child keeps the hook and asks by sockets of its own; when the
interface has gone, its names are looked up as before. Other programs, and threads of C libraries, are not reached.
"""

from __future__ import annotations

import _socket
import errno
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper.core import dns_message as dns

from telemagic.names import glibc
from telemagic.names.ask import Found, ask

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS: Final = Path("/etc/hosts")
_REPLACED: Final = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")


class Hook:
    """Answers the cluster's names in this process.

    Parameters
    ----------
    server, device
        Our resolver's address, and the interface that it is behind.
    domains
        Names under these are the cluster's, as in :class:`~telehelper.messages.Status`.
    """

    def __init__(
        self,
        server: str,
        device: str,
        domains: tuple[str, ...],
        ask: Callable[[str, str, str, tuple[int, ...]], Found] = ask,
    ) -> None:
        self._server = server
        self._device = device
        self._domains = tuple(f".{name.removeprefix('~').lower()}" for name in domains)
        self._ask = ask
        self._originals: dict[str, Callable[..., Any]] = {}  # for good: a call of ours may outlive the hook
        self._is_installed = False
        self._libc = glibc.ThreadResolver(server)

    def install(self) -> None:
        """Replace the functions."""
        if self._is_installed:
            return
        self._originals = {name: getattr(_socket, name) for name in _REPLACED}
        self._is_installed = True
        setattr(_socket, "getaddrinfo", self._getaddrinfo)  # noqa: B010  # its stub does not know it as a variable
        for name in _REPLACED[1:]:
            for module in (_socket, socket):
                setattr(module, name, getattr(self, f"_{name}"))
        self._libc.point()

    def remove(self) -> None:
        """Put the originals back, unless somebody else has replaced ours meanwhile: then theirs stays."""
        self._is_installed = False
        for name, original in self._originals.items():
            for module in (_socket, socket):
                if getattr(module, name) == getattr(self, f"_{name}"):
                    setattr(module, name, original)
        self._libc.restore()

    def is_ours(self, host: object) -> str:
        """Return the name if it is for us to look up, else nothing."""
        name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
        if not isinstance(name, str) or not name.isascii() or not self._is_installed:
            return ""
        name = name.rstrip(".").lower()
        if not name or _is_address(name) or name == "localhost" or name.endswith(".localhost"):
            return ""
        under = any(f".{name}".endswith(domain) for domain in self._domains)
        if not under and "." in name:
            return ""
        return "" if name == socket.gethostname().lower() or _is_in_hosts(name) else name

    # --- the replaced functions

    def _getaddrinfo(
        self,
        host: object,
        port: object,
        family: int = 0,
        type: int = 0,  # noqa: A002  # it may come by name
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        original = self._originals["getaddrinfo"]
        name = "" if flags & socket.AI_NUMERICHOST else self.is_ours(host)
        types = {int(socket.AF_INET): (dns.A,), int(socket.AF_INET6): (dns.AAAA,)}
        addresses = self._look_up(name, types.get(family, (dns.AAAA, dns.A))) if name else None
        if addresses is None:
            return list(original(host, port, family, type, proto, flags))
        found: list[tuple[Any, ...]] = []
        kept = flags & ~(socket.AI_CANONNAME | socket.AI_ADDRCONFIG) | socket.AI_NUMERICHOST
        for address in addresses:
            found += original(address, port, family, type, proto, kept)
        if flags & socket.AI_CANONNAME:
            found[0] = (*found[0][:3], name, found[0][4])
        return found

    def _gethostbyname(self, host: object) -> str:
        name = self.is_ours(host)
        addresses = self._look_up(name, (dns.A,)) if name else None
        return str(self._originals["gethostbyname"](host)) if addresses is None else addresses[0]

    def _gethostbyname_ex(self, host: object) -> tuple[str, list[str], list[str]]:
        name = self.is_ours(host)
        addresses = self._look_up(name, (dns.A,)) if name else None
        if addresses is not None:
            return name, [], addresses
        canonical, aliases, found = self._originals["gethostbyname_ex"](host)
        return canonical, aliases, found

    def _look_up(self, name: str, types: tuple[int, ...]) -> list[str] | None:
        """Return the addresses, or None where the name is to be looked up as before.

        Raises
        ------
        socket.gaierror
            As the original would: there is no such name, or for now nobody knows.
        """
        try:
            found = self._ask(self._server, self._device, name, types)
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        except OSError as error:
            if error.errno == errno.ENODEV:  # not connected any more
                return None
            # Never to strangers: they may know another `postgres.dev`, and would get what is meant for ours.
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
        if found.addresses:
            return list(found.addresses)
        if found.rcode == dns.NXDOMAIN and "." not in name:
            return None
        if found.rcode in (dns.NOERROR, dns.NXDOMAIN):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return name.replace(".", "").isdigit()  # "127.1" is an address to the C library
    return True


def _is_in_hosts(name: str) -> bool:
    try:
        lines = HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(name in line.partition("#")[0].lower().split()[1:] for line in lines)
