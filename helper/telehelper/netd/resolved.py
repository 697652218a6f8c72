"""systemd-resolved, told by D-Bus which names to send to our interface: nothing of the machine's own is touched.

The settings belong to the link and go with it, so neither a file is changed nor a guardian needed. They are set as a
whole and may be set again: NetworkManager resets those of a new link, and a restarted systemd-resolved knows none.
It takes orders from uid 0, which needs no capability for that (org.freedesktop.resolve1(5)).
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol

from telehelper.errors import ResolverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.messages import SetDns

STUB: Final = "127.0.0.53"  # where systemd-resolved answers; a resolv.conf that names it leads to it
SOCKET: Final = "/run/dbus/system_bus_socket"
NAME: Final = "org.freedesktop.resolve1"
TIMEOUT: Final = 2.0  # seconds for one call; one takes 1 ms
UNKNOWN: Final = "org.freedesktop.DBus.Error.UnknownMethod"
# What a link may be told besides, each since another version: without it the link is as an older one is.
OPTIONAL: Final = frozenset(
    {"SetLinkDefaultRoute", "SetLinkDNSOverTLS", "SetLinkMulticastDNS", "SetLinkLLMNR"}
)


class Bus(Protocol):
    """What is needed of D-Bus; :class:`SystemBus` is the real one."""

    def call(self, method: str, signature: str, arguments: tuple[object, ...]) -> str:
        """Call a method of systemd-resolved's manager; returns the error's name, or nothing. Raises OSError."""
        ...

    def close(self) -> None:
        """Close the connection."""


class SystemBus:  # pragma: no cover  # tests/netd_resolved has the real one
    """The system's bus, by jeepney: imported here only, for most machines never need it."""

    def __init__(self, path: str = SOCKET) -> None:
        from jeepney.io.blocking import open_dbus_connection

        try:
            self._connection = open_dbus_connection(f"unix:path={path}", auth_timeout=TIMEOUT)
        except (EOFError, ValueError) as error:
            raise OSError(f"no D-Bus at {path}: {error}") from error

    def call(self, method: str, signature: str, arguments: tuple[object, ...]) -> str:
        """Call a method; see :class:`Bus`."""
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        manager = DBusAddress("/org/freedesktop/resolve1", NAME, f"{NAME}.Manager")
        message = new_method_call(manager, method, signature or None, arguments)
        try:
            reply: Any = self._connection.send_and_get_reply(message, timeout=TIMEOUT)
        except EOFError as error:
            raise OSError("D-Bus closed the connection") from error
        if reply.header.message_type is MessageType.error:
            return str(reply.header.fields.get(HeaderFields.error_name, "error"))
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def leads_here(resolv_conf: str) -> bool:
    """Whether a resolv.conf sends everything to systemd-resolved."""
    servers = [line.split()[1:2] for line in resolv_conf.splitlines() if line.startswith("nameserver")]
    return servers == [[STUB]]


class Resolved:
    """Tells systemd-resolved, and takes it back."""

    def __init__(self, connect: Callable[[], Bus] = SystemBus) -> None:
        self._connect = connect
        self._index = 0  # of the link that was set

    def point(self, index: int, order: SetDns) -> None:
        """Have the order's domains asked of its nameserver by way of this link; ResolverError if that cannot be."""
        address = ip_address(order.nameserver)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        domains = [(name.removeprefix("~"), name.startswith("~")) for name in order.domains]
        self._index = index
        self._say(
            ("SetLinkDNS", "ia(iay)", (index, [(int(family), address.packed)])),
            ("SetLinkDomains", "ia(sb)", (index, domains)),
            ("SetLinkDefaultRoute", "ib", (index, False)),
            ("SetLinkLLMNR", "is", (index, "no")),
            ("SetLinkMulticastDNS", "is", (index, "no")),
            ("SetLinkDNSOverTLS", "is", (index, "no")),
            ("SetLinkDNSSEC", "is", (index, "no")),
            ("FlushCaches", "", ()),
        )

    def revert(self) -> None:
        """Take everything back; a link that is gone took it along. Raises OSError."""
        index, self._index = self._index, 0
        if index:
            try:
                self._say(("RevertLink", "i", (index,)), ("FlushCaches", "", ()))
            except ResolverError as error:
                raise OSError(str(error)) from error

    def _say(self, *calls: tuple[str, str, tuple[object, ...]]) -> None:
        try:
            bus = self._connect()
            try:
                for method, signature, arguments in calls:
                    error = bus.call(method, signature, arguments)
                    if error and not (error == UNKNOWN and method in OPTIONAL):
                        raise ResolverError(f"systemd-resolved refused {method}: {error}")
            finally:
                bus.close()
        except (OSError, ImportError) as error:
            raise ResolverError(
                f"systemd-resolved cannot be told: {error}",
                hint="%tele connect --dns resolvconf does without it",
            ) from error
