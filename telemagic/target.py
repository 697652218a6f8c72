"""What the user asks for, and which cluster that means."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from telehelper.endpoint import PORTFORWARD, parse_carrier
from telehelper.errors import UsageError

from telemagic import config, kubeconfig, paths
from telemagic.config import DNS_MECHANISMS, ON_CONFLICT, WAYS

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What the user asked for; empty means the kubeconfig's own. ``timeout`` in seconds, without password typing."""

    context: str = ""
    namespace: str = ""
    kubeconfig: str = ""
    timeout: float = 30.0
    also_proxy: tuple[str, ...] = ()
    never_proxy: tuple[str, ...] = ()
    dns: str = "auto"
    elevate: str = "auto"
    carrier: str = PORTFORWARD
    cidrs: tuple[str, ...] = ()
    on_conflict: str = "refuse"
    via: str = "auto"
    manager_namespace: str = "telemagic"
    share: bool = False
    allow_wide: bool = False
    demo: bool = False  # the cluster is the embedded one; only what is said depends on it

    @property
    def command(self) -> str:
        """What connects to the same cluster in a terminal."""
        flags = {"--context": self.context, "--namespace": self.namespace, "--kubeconfig": self.kubeconfig}
        words = [word for flag, value in flags.items() if value for word in (flag, value)]
        return shlex.join(["telemagic", "connect", *(["--demo"] if self.demo else words)])

    def check(self) -> None:
        """Refuse values that can never work.

        Raises
        ------
        UsageError
            A CIDR is none, the timeout is not positive, or a choice is none of those there are.
        """
        for cidr in (*self.also_proxy, *self.never_proxy, *self.cidrs):
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise _no_cidr(cidr) from error
        if not 0 < self.timeout < float("inf"):
            raise UsageError(f"a timeout of {self.timeout:g} s makes no sense", hint="--timeout 30")
        for what, value, known in (
            ("DNS mechanism", self.dns, DNS_MECHANISMS),
            ("answer to a conflict", self.on_conflict, ON_CONFLICT),
            ("way into a cluster", self.via, WAYS),
        ):
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}", hint=f"one of: {', '.join(known)}")
        parse_carrier(self.carrier)


def _no_cidr(text: str) -> UsageError:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return UsageError(f"{text!r} is no CIDR", hint="write it like 10.1.0.0/16")
    return UsageError(f"{text!r} is no CIDR: it has host bits set", hint=str(meant))


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster that the options mean. Two notebooks with the same ``socket`` share one data plane."""

    options: ConnectOptions
    search: str  # the kubeconfig files as a value of KUBECONFIG, absolute
    context: kubeconfig.Context
    socket: Path

    @property
    def namespace(self) -> str:
        """The namespace whose short names resolve."""
        return self.options.namespace or self.context.namespace or "default"


def of_defaults(options: ConnectOptions) -> ConnectOptions:
    """Say which cluster where the options do not, but the user's defaults do; for scripts, as lines have it already."""
    settings = config.current()
    return replace(
        options,
        context=options.context or settings.context,
        namespace=options.namespace or settings.namespace,
        kubeconfig=options.kubeconfig or settings.kubeconfig,
    )


def resolve(options: ConnectOptions) -> Target:
    """Find out which cluster is meant, without touching the network.

    Raises
    ------
    ConfigError
        A file with defaults cannot be used.
    KubeconfigError
        The kubeconfig or the context is not there or not usable.
    HelperMissing
        The runtime directory is refused.
    """
    options = of_defaults(options)
    options.check()
    found = kubeconfig.read(options.kubeconfig)
    context = found.choose(options.context)
    return Target(options, found.search, context, paths.socket_path(_key(context)))


def _key(context: kubeconfig.Context) -> str:
    # The network namespace is part of it: a route in one is none in the other. The uid is in the directory.
    netns = os.stat("/proc/self/ns/net")
    parts = (str(netns.st_dev), str(netns.st_ino), context.server, context.user, context.cluster)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
