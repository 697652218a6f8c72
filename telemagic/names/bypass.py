"""Libraries in this process that resolve names by themselves, and what can be done about each while connected.

gRPC has a resolver of its own (c-ares) and chooses once, when it is loaded. dnspython reads /etc/resolv.conf once and
keeps it. c-ares for Python (pycares, aiodns, and aiohttp where that is installed) keeps it for each object. A JVM keeps
answers and denials. With ``--dns kernel`` all that is not Python's own is out of reach, and told.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

GRPC_RESOLVER: Final = "GRPC_DNS_RESOLVER"
_JVMS: Final = ("jpype", "pyspark", "py4j")
_FOREIGN: Final = {
    "pycurl": "libcurl",
    "confluent_kafka": "librdkafka",
    "uvloop": "libuv",
    "pyarrow": "Arrow's C++",
}


class Bypass(NamedTuple):
    """A library that does not simply ask the operating system.

    ``state``: fixed, or open. ``remedy``: what the user can do; empty where nothing needs to be done.
    """

    library: str
    state: str
    detail: str
    remedy: str = ""


class Fixes:
    """What is changed in this process while connected.

    Parameters
    ----------
    mechanism
        How names reach us: resolved, resolvconf or kernel.
    server
        Our resolver's address.
    """

    def __init__(self, mechanism: str, server: str) -> None:
        self._only_here = mechanism == "kernel"
        self._server = server
        self._undo: list[Callable[[], None]] = []
        self._grpc_in_time = False

    def apply(self) -> None:
        """Fix what can be fixed."""
        self._fix_grpc()
        for module in ("dns.resolver", "dns.asyncresolver"):
            self._fix_dnspython(module)

    def undo(self) -> None:
        """Put everything back, last first."""
        while self._undo:
            self._undo.pop()()

    def _fix_grpc(self) -> None:
        self._grpc_in_time = "grpc._cython.cygrpc" not in sys.modules
        if not self._grpc_in_time or GRPC_RESOLVER in os.environ:
            return
        os.environ[GRPC_RESOLVER] = "native"
        self._undo.append(_restore_grpc)

    def _fix_dnspython(self, name: str) -> None:
        """Have its default resolver read the configuration again, or with the hook ask us; and as it was afterwards."""
        module: Any = sys.modules.get(name)
        if module is None:
            return
        former = getattr(module, "default_resolver", None)
        if self._only_here:
            # Without this machine's configuration, which may have no nameserver: dnspython takes that for an error.
            module.default_resolver = module.Resolver(configure=False)
            module.default_resolver.nameservers = [self._server]
        elif former is not None:
            module.default_resolver = None  # it is read when somebody asks

        def restore() -> None:
            module.default_resolver = former

        self._undo.append(restore)

    def bypasses(self) -> list[Bypass]:
        """Return what is loaded now and does not ask the operating system."""
        found = [self._grpc(), self._dnspython(), self._cares(), self._jvm(), *self._foreign()]
        return [one for one in found if one is not None]

    def _grpc(self) -> Bypass | None:
        if "grpc._cython.cygrpc" not in sys.modules:
            return None
        if self._only_here:
            return Bypass(
                "grpc", "open", "resolves in threads of its own", "connect to an address of %tele resolve"
            )
        if os.environ.get(GRPC_RESOLVER) == "native" and self._grpc_in_time:
            return Bypass("grpc", "fixed", "uses the operating system's resolver, not c-ares")
        return Bypass(
            "grpc",
            "open",
            "was loaded before connecting, with a resolver of its own (c-ares)",
            "if a name does not resolve, restart the kernel and connect before importing grpc",
        )

    def _dnspython(self) -> Bypass | None:
        module: Any = sys.modules.get("dns.resolver")
        if module is None:
            return None
        default = getattr(module, "default_resolver", None)
        if self._only_here and (default is None or self._server not in map(str, default.nameservers)):
            return Bypass(
                "dnspython",
                "open",
                "reads /etc/resolv.conf, which is not changed",
                f"dns.resolver.default_resolver.nameservers = ['{self._server}']",
            )
        return Bypass("dnspython", "fixed", "its default resolver asks telemagic's; ones made before do not")

    def _cares(self) -> Bypass | None:
        if not {"pycares", "aiodns"} & set(sys.modules):
            return None
        if self._only_here:
            remedy = "with aiohttp use TCPConnector(resolver=aiohttp.ThreadedResolver())"
            return Bypass("pycares", "open", "reads /etc/resolv.conf, which is not changed", remedy)
        return Bypass(
            "pycares", "open", "resolvers made before connecting keep the old settings", "make new ones"
        )

    def _jvm(self) -> Bypass | None:
        loaded = [name for name in _JVMS if name in sys.modules]
        if not loaded:
            return None
        if self._only_here:
            return Bypass(
                loaded[0], "open", "a JVM is a program of its own", "%tele connect --dns auto reaches it"
            )
        return Bypass(
            loaded[0], "open", "a JVM remembers for 10 s that a name does not exist", "wait, then try again"
        )

    def _foreign(self) -> list[Bypass]:
        if not self._only_here:
            return []
        return [
            Bypass(
                name,
                "open",
                f"{library} resolves in threads of its own",
                "%tele connect --dns auto reaches it",
            )
            for name, library in _FOREIGN.items()
            if name in sys.modules
        ]


def _restore_grpc() -> None:
    os.environ.pop(GRPC_RESOLVER, None)
