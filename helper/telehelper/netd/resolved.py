"""systemd-resolved, told by D-Bus which names to send to our interface: nothing of the machine's own is touched.

The settings belong to the link and go with it, so neither a file is changed nor a guardian needed. They are set as a
whole and may be set again: NetworkManager resets those of a new link, and a restarted systemd-resolved knows none.
It takes orders from uid 0, which needs no capability for that (org.freedesktop.resolve1(5)).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from jeepney.io.blocking import open_dbus_connection

from telehelper.errors import ResolverError
from telehelper.messages import SetDns

STUB: Final = "127.0.0.53"  # where systemd-resolved answers; a resolv.conf that names it leads to it
SOCKET: Final = "/run/dbus/system_bus_socket"
NAME: Final = "org.freedesktop.resolve1"
TIMEOUT: Final = 2.0  # seconds for one call; one takes 1 ms
UNKNOWN: Final = "org.freedesktop.DBus.Error.UnknownMethod"
# What a link may be told besides, each since another version: without it the link is as an older one is.
OPTIONAL: Final = ("SetLinkDefaultRoute", "SetLinkDNSOverTLS", "SetLinkMulticastDNS", "SetLinkLLMNR")

Call = tuple[str, str, tuple[object, ...]]  # of its manager: the method, its signature, its arguments


def by_bus(*calls: Call, path: str = SOCKET) -> Iterator[str]:  # pragma: no cover  # see tests/netd_resolved
    """Make calls one after the other; of each the error's name, or nothing. Raises what jeepney and sockets do."""
    manager = DBusAddress("/org/freedesktop/resolve1", NAME, f"{NAME}.Manager")
    with open_dbus_connection(f"unix:path={path}", auth_timeout=TIMEOUT) as bus:
        for method, signature, arguments in calls:
            message = new_method_call(manager, method, signature or None, arguments)
            header: Any = bus.send_and_get_reply(message, timeout=TIMEOUT).header
            failed = header.message_type is MessageType.error
            yield str(header.fields.get(HeaderFields.error_name, "error")) if failed else ""


def leads_here(resolv_conf: str) -> bool:
    """Whether a resolv.conf sends everything to systemd-resolved."""
    servers = [line.split()[1:2] for line in resolv_conf.splitlines() if line.startswith("nameserver")]
    return servers == [[STUB]]


class Resolved:
    """Tells systemd-resolved, and takes it back. Raises ResolverError if that cannot be."""

    def __init__(self, ask: Callable[..., Iterator[str]] = by_bus) -> None:
        self._ask = ask
        self._index = 0  # of the link that was set

    def point(self, index: int, order: SetDns) -> None:
        """Have the order's domains asked of its nameserver by way of this link."""
        address = ip_address(order.nameserver)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        domains = [(name.removeprefix("~"), name.startswith("~")) for name in order.domains]
        no = ("LLMNR", "MulticastDNS", "DNSOverTLS", "DNSSEC")
        self._index = index
        self._say(
            ("SetLinkDNS", "ia(iay)", (index, [(int(family), address.packed)])),
            ("SetLinkDomains", "ia(sb)", (index, domains)),
            ("SetLinkDefaultRoute", "ib", (index, False)),
            *((f"SetLink{what}", "is", (index, "no")) for what in no),
            ("FlushCaches", "", ()),
        )

    def revert(self) -> None:
        """Take everything back; a link that is gone took it along."""
        index, self._index = self._index, 0
        if index:
            self._say(("RevertLink", "i", (index,)), ("FlushCaches", "", ()))

    def _say(self, *calls: Call) -> None:
        try:
            for (method, _, _), error in zip(calls, self._ask(*calls), strict=False):
                if error and not (error == UNKNOWN and method in OPTIONAL):
                    raise ResolverError(f"systemd-resolved refused {method}: {error}")
        except (OSError, EOFError, ValueError) as error:
            hint = "%tele connect --dns resolvconf does without it"
            raise ResolverError(f"systemd-resolved cannot be told: {error}", hint=hint) from error
