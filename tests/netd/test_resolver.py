"""Choosing the resolver mechanism, and whether /etc is ours to write to."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import ResolverError
from telehelper.messages import SetDns
from telehelper.netd.resolvconf import ResolvConf
from telehelper.netd.resolved import Resolved
from telehelper.netd.resolver import HostResolver, owns_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD = "nameserver 10.0.0.1\nnameserver 198.19.240.2\n"


STUB = "nameserver 127.0.0.53\n"


def order(mechanism: str) -> SetDns:
    return SetDns(mechanism, "198.19.240.2", ("svc.cluster.local",), domains=("svc.cluster.local", "~svc"))


class FakeBus:
    """Writes down what systemd-resolved is told; `refuses` are methods it answers with an error."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuses: dict[str, str] = {}

    def __call__(self, *calls: tuple[str, str, tuple[object, ...]]) -> Iterator[str]:
        for method, _, _ in calls:
            self.calls.append(method)
            yield self.refuses.get(method, "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text(OLD)
    return path


@pytest.mark.parametrize("mechanism", ["auto", "resolvconf"])
def test_there_and_back(path: Path, mechanism: str) -> None:
    resolver = HostResolver(ResolvConf(path), owned=True)
    assert resolver.set(order(mechanism), 7) == "resolvconf"
    assert path.read_text() != OLD
    resolver.undo()
    assert path.read_text() == OLD
    resolver.undo()  # nothing left to do
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(("mechanism", "owned"), [("none", True), ("auto", False)])
def test_nothing_is_touched_when_it_must_not_be(path: Path, mechanism: str, owned: bool) -> None:
    resolver = HostResolver(ResolvConf(path), owned=owned)
    assert resolver.set(order(mechanism), 7) == "none"
    resolver.undo()
    assert path.read_text() == OLD


def test_auto_does_without_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    resolver = HostResolver(ResolvConf(tmp_path / "missing" / "resolv.conf"), owned=True)
    assert resolver.set(order("auto"), 7) == "none"
    with pytest.raises(ChildProcessError):  # its guardian is gone already
        os.waitpid(-1, os.WNOHANG)


def test_insisting_on_what_is_not_ours_is_refused(path: Path) -> None:
    with pytest.raises(ResolverError, match="shared with a network outside"):
        HostResolver(ResolvConf(path), owned=False).set(order("resolvconf"), 7)


def test_a_failure_leaves_no_guardian(tmp_path: Path) -> None:
    resolver = HostResolver(ResolvConf(tmp_path / "missing" / "resolv.conf"), owned=True)
    with pytest.raises(ResolverError):
        resolver.set(order("resolvconf"), 7)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_failure_later_on_leaves_the_guardian_that_was_there(path: Path) -> None:
    resolver = HostResolver(ResolvConf(path), owned=True)
    assert resolver.set(order("resolvconf"), 7) == "resolvconf"
    path.unlink()
    path.mkdir()  # as good as unwritable
    with pytest.raises(ResolverError, match="cannot write"):
        resolver.set(order("resolvconf"), 7)
    path.rmdir()
    path.write_text(OLD)
    resolver.undo()
    assert path.read_text() == OLD
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- systemd-resolved --------------------------------------------------------------------------------------------


def test_auto_prefers_systemd_resolved_where_the_file_leads_there(path: Path) -> None:
    path.write_text(STUB)
    bus = FakeBus()
    resolver = HostResolver(ResolvConf(path), owned=True, resolved=Resolved(bus))
    assert resolver.set(order("auto"), 7) == "resolved"
    assert path.read_text() == STUB
    resolver.undo()
    assert bus.calls[-2:] == ["RevertLink", "FlushCaches"]
    resolver.undo()
    assert bus.calls.count("RevertLink") == 1


def test_auto_takes_the_file_where_systemd_resolved_refuses(path: Path) -> None:
    path.write_text(STUB)
    bus = FakeBus()
    bus.refuses["SetLinkDNS"] = "org.freedesktop.DBus.Error.ServiceUnknown"
    resolver = HostResolver(ResolvConf(path), owned=True, resolved=Resolved(bus))
    assert resolver.set(order("auto"), 7) == "resolvconf"
    resolver.undo()
    assert path.read_text() == STUB
    assert "RevertLink" not in bus.calls
    with pytest.raises(ResolverError, match="refused SetLinkDNS"):
        resolver.set(order("resolved"), 7)


def test_one_may_be_asked_for_after_the_other(path: Path) -> None:
    path.write_text(STUB)
    bus = FakeBus()
    resolver = HostResolver(ResolvConf(path), owned=True, resolved=Resolved(bus))
    assert resolver.set(order("resolved"), 7) == "resolved"
    assert resolver.set(order("resolved"), 7) == "resolved"
    assert bus.calls.count("RevertLink") == 0
    assert resolver.set(order("resolvconf"), 7) == "resolvconf"
    assert bus.calls.count("RevertLink") == 1
    assert "198.19.240.2" in path.read_text()
    path.write_text(OLD)  # DHCP
    assert resolver.set(order("resolvconf"), 7) == "resolvconf"
    assert resolver.set(order("none"), 7) == "none"
    assert path.read_text() == OLD
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_systemd_resolved_of_another_network_is_not_told(path: Path) -> None:
    bus = FakeBus()
    resolver = HostResolver(ResolvConf(path), owned=False, resolved=Resolved(bus))
    with pytest.raises(ResolverError, match="shared with a network outside"):
        resolver.set(order("resolved"), 7)
    assert bus.calls == []


# --- whose files -------------------------------------------------------------------------------------------------


def proc(folder: Path, ours: dict[str, str], first: dict[str, str]) -> str:
    """A /proc with the namespaces of this process and of process 1."""
    for process, namespaces in (("self", ours), ("1", first)):
        directory = folder / process / "ns"
        directory.mkdir(parents=True)
        for kind, name in namespaces.items():
            (directory / name).touch()
            (directory / kind).symlink_to(name)
    return str(folder)


def owner(_fd: int, _request: int) -> int:
    return os.open(os.devnull, os.O_RDONLY)


def refusing(number: int) -> int:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("ours", "first", "owned"),
    [
        ({"net": "n1", "mnt": "m1"}, {"net": "n1", "mnt": "m1"}, True),  # the machine itself, or a container
        ({"net": "n2", "mnt": "m1"}, {"net": "n1", "mnt": "m1"}, False),  # unshare -n
        ({"net": "n2", "mnt": "m2"}, {"net": "n1", "mnt": "m1"}, True),  # ip netns exec
        ({"net": "n1", "mnt": "m2"}, {"net": "n1", "mnt": "m1"}, True),
        ({"net": "n2", "mnt": "m2"}, {}, True),  # process 1 is not ours to look at
    ],
)
def test_files_are_ours_unless_only_the_network_is(
    tmp_path: Path, ours: dict[str, str], first: dict[str, str], owned: bool
) -> None:
    assert owns_files(proc(tmp_path, ours, first), owner) is owned


def test_mounts_of_an_outer_user_namespace_are_not_ours(tmp_path: Path) -> None:
    names = {"net": "n1", "mnt": "m1"}
    folder = proc(tmp_path, names, names)
    assert not owns_files(folder, lambda _fd, _request: refusing(errno.EPERM))
    assert owns_files(folder, lambda _fd, _request: refusing(errno.ENOTTY))  # Linux before 4.9 cannot say


def test_here_they_are_or_are_not() -> None:
    assert owns_files() in (True, False)
