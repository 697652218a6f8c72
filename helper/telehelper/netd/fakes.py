"""Stand-ins for the kernel and the resolver file that only write down what they are asked. Never imported by netd."""

# ruff: noqa: D102  # the real ones document the methods

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.errors import ResolverError, VifError

if TYPE_CHECKING:
    from telehelper.messages import SetDns
    from telehelper.netd.plan import Change, Held


class RecordingNet:
    """A Netlink that only writes down; ``refuse`` names deeds that fail."""

    def __init__(self, addresses: list[Held] | None = None, routes: list[Held] | None = None) -> None:
        self.deeds: list[str] = []
        self.refuse: tuple[str, ...] = ()
        self._addresses = addresses or []
        self._routes = routes or []

    def _deed(self, text: str) -> None:
        self.deeds.append(text)
        if text in self.refuse:
            raise VifError(f"cannot {text}: Operation not permitted")

    def set_up(self, index: int, mtu: int) -> None:
        self._deed(f"up {index} mtu {mtu}")

    def delete_link(self, index: int, name: str) -> None:
        self._deed(f"delete {index} {name}")

    def change(self, index: int, change: Change) -> None:
        self._deed(f"{change.verb} {change.item} dev {index}")

    def addresses(self) -> list[Held]:
        return self._addresses

    def routes(self) -> list[Held]:
        return self._routes


class RecordingResolver:
    """A HostResolver that only writes down. ``refuse``: set or undo, which then fails."""

    def __init__(self, deeds: list[str], refuse: str = "") -> None:
        self.deeds = deeds
        self.refuse = refuse

    def set(self, order: SetDns, index: int) -> str:
        self.deeds.append(f"resolver {order.nameserver} {' '.join(order.search)}")
        if self.refuse == "set":
            raise ResolverError("cannot write")
        return "resolvconf"

    def undo(self) -> None:
        self.deeds.append("resolver back")
        if self.refuse == "undo":
            raise PermissionError(1, "Operation not permitted")
