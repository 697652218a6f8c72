"""A picture of the machine's network configuration and of our processes and files, to compare before with after."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pyroute2 import IPRoute

MARK: Final = b"TELEMAGIC_TEST_RUN="  # set by conftest.py, inherited by all that the tests start
NETD: Final = b"telehelper.netd"
OURS: Final = (b"telehelper.", b"telemagic.")
SUDO: Final = b"sudo"
RESOLV_CONF: Final = Path("/etc/resolv.conf")
_ROUTE: Final = ("family", "dst_len", "tos", "proto", "scope", "type")
_ROUTE_ATTRIBUTES: Final = ("RTA_TABLE", "RTA_DST", "RTA_GATEWAY", "RTA_OIF", "RTA_PRIORITY", "RTA_PREFSRC")
_RULE: Final = ("family", "dst_len", "src_len", "tos", "action", "flags")
_RULE_ATTRIBUTES: Final = (
    "FRA_TABLE",
    "FRA_PRIORITY",
    "FRA_SRC",
    "FRA_DST",
    "FRA_FWMARK",
    "FRA_IIFNAME",
    "FRA_OIFNAME",
)


def _network() -> set[str]:
    lines: set[str] = set()
    with IPRoute() as netlink:
        for link in netlink.get_links():
            lines.add(f"link {link['index']} {link.get_attr('IFLA_IFNAME')} mtu {link.get_attr('IFLA_MTU')}")
        for address in netlink.get_addr():
            lines.add(
                f"address {address.get_attr('IFA_ADDRESS')}/{address['prefixlen']} on link {address['index']}"
            )
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in netlink.get_routes(family=family):
                lines.add(_describe("route", route, _ROUTE, _ROUTE_ATTRIBUTES))
            for rule in netlink.get_rules(family=family):
                lines.add(_describe("rule", rule, _RULE, _RULE_ATTRIBUTES))
    return lines


def _describe(kind: str, message: object, header: tuple[str, ...], attributes: tuple[str, ...]) -> str:
    words = [f"{name}={message[name]}" for name in header]  # type: ignore[index]  # pyroute2 has no types
    found = ((name, message.get_attr(name)) for name in attributes)  # type: ignore[attr-defined]  # as above
    words += [f"{name[4:].lower()}={value}" for name, value in found if value is not None]
    return " ".join([kind, *words])


def _resolv_conf() -> str:
    link = f" -> {os.readlink(RESOLV_CONF)}" if RESOLV_CONF.is_symlink() else ""
    content = RESOLV_CONF.read_text() if RESOLV_CONF.exists() else "(none)"
    return f"{RESOLV_CONF}{link}: {content!r}"


def _files(runtime: Path) -> set[str]:
    found = {*runtime.rglob("*"), *Path("/run").glob("telemagic*")}
    return {f"file {path}" for path in found}


def _is_ours(process: Path, runtime: Path) -> bool:
    mark = _mark(process)
    if mark:
        return mark == MARK + os.fsencode(runtime)
    # sudo, su and netd clear the environment; what they started is known by its command line, and by who started it.
    command = process.joinpath("cmdline").read_bytes()
    if mark is not None and os.path.basename(command.partition(b"\0")[0]) == SUDO:
        return False  # its own environment is as it was started with: somebody tries something by hand
    is_foreign = process.stat().st_uid != os.geteuid()
    if not (NETD in command or (is_foreign and any(word in command for word in OURS))):
        return False
    parent = _parent(process)
    while parent is not None:
        if mark := _mark(parent):
            return mark == MARK + os.fsencode(runtime)
        parent = _parent(parent)
    return _parent(process) is None  # whoever started it has gone; else he is no test


def _mark(process: Path) -> bytes | None:
    """Return the run that a process says it belongs to, empty if it does not say; None if it may not be asked."""
    try:
        words = process.joinpath("environ").read_bytes().split(b"\0")
    except PermissionError:
        return None
    return next((word for word in words if word.startswith(MARK)), b"")


def _parent(process: Path) -> Path | None:
    """Return the parent, or None if that is process 1: the one that began it has ended."""
    pid = int(process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[1])
    return Path(f"/proc/{pid}") if pid > 1 else None


def _is_zombie(process: Path) -> bool:
    # The state follows the command's name, which is in parentheses and may hold anything.
    return process.joinpath("stat").read_bytes().rpartition(b")")[2].split()[0] in {b"Z", b"X"}


def _processes(runtime: Path) -> set[str]:
    lines: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.name != str(os.getpid()) and _is_ours(process, runtime) and not _is_zombie(process):
                command = (
                    process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                lines.add(f"process {process.name}: {command.strip()}")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return lines


@dataclass(frozen=True)
class Snapshot:
    """What there was at one moment, as lines for people."""

    lines: frozenset[str]

    @classmethod
    def take(cls, runtime: Path) -> Self:
        """Look at the machine now; our processes are those with `runtime` as the value of TELEMAGIC_TEST_RUN."""
        return cls(frozenset(_network() | {_resolv_conf()} | _files(runtime) | _processes(runtime)))

    def difference(self, after: Snapshot) -> str:
        """Return a line for all that is new (+) or gone (-); processes and files may go."""
        gone = {line for line in self.lines - after.lines if not line.startswith(("process ", "file "))}
        return "\n".join(
            [f"+ {line}" for line in sorted(after.lines - self.lines)]
            + [f"- {line}" for line in sorted(gone)]
        )
