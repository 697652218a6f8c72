"""Start demo clusters, find them, hold them, and end them; all of it blocking."""

from __future__ import annotations

import os
import re
import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, Final, Self

from telehelper.errors import HelperError, HelperLost, UsageError

from telemagic.demo import control, launching, lock, namespaces
from telemagic.paths import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAMESPACE: Final = "shop"
_PREFIX: Final = "demo-"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_GONE_TIMEOUT: Final = 15.0  # seconds; PostgreSQL and the pods get two to end politely
_POLL: Final = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class DemoStatus:
    """One demo cluster, for display. The CIDRs of two families are separated by a comma, as in Kubernetes."""

    name: str
    kubeconfig: Path
    context: str
    owned: bool
    ready: str
    pod_cidr: str
    service_cidr: str
    uptime: float

    @property
    def is_ready(self) -> bool:
        """Whether all pods are."""
        up, _, wanted = self.ready.partition("/")
        return up == wanted

    @property
    def has_ipv6(self) -> bool:
        """Whether it has addresses of both families: unless told otherwise, or the machine's kernel has no IPv6."""
        return ":" in self.pod_cidr


class Demo:
    """A demo cluster that is up, held by this process as long as this object is open.

    Attributes
    ----------
    name
        Its name.
    kubeconfig, context, namespace
        How to reach it.
    viewer_kubeconfig
        The same for a user who may look but not forward ports.
    namespaced_kubeconfig
        The same for a user with rights in the shop's namespace alone, and to forward ports of the manager.
    token_file
        Has the first kubeconfig's token, also after :meth:`renew_token`.
    port
        Of 127.0.0.1, where the API server listens.
    """

    def __init__(self, name: str, directory: Path, connection: socket.socket, port: int) -> None:
        self.name = name
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.viewer_kubeconfig = directory / "viewer.kubeconfig"
        self.namespaced_kubeconfig = directory / "namespaced.kubeconfig"
        self.token_file = directory / "token"
        self.context = name
        self.namespace = NAMESPACE
        self._connection = connection
        self.port = port

    def attach(self) -> None:
        """Make the API server listen at the kubeconfig's address in the caller's network namespace as well.

        It does until this object is closed. Does nothing where it listens already.

        Raises
        ------
        HelperLost
            The demo has ended.
        HelperError
            The port is taken in this network namespace.
        """
        self._hold(owner=False, keep=False)

    def network_of(self, app: str) -> int:
        """Return a descriptor of the network namespace of an app's pod, to put something of one's own into it.

        Only a process above the cluster's user namespace may go there: one that started the demo, or real root.

        Raises
        ------
        HelperLost
            The demo has ended.
        UsageError
            It has no such app.
        """
        answer = self._ask("network", app=app)
        if "fd" not in answer:
            raise UsageError(f"the demo cluster has no app {app!r}")
        fd: int = answer["fd"]
        os.set_inheritable(fd, False)
        return fd

    def fault(self, name: str, **options: str | float) -> None:
        """Break something on purpose; :mod:`telemagic.demo.faults` has the names.

        Parameters
        ----------
        name
            Of the fault; `clear` ends all of them.
        options
            `seconds`, after which it ends by itself; `verb` and `resource` of `forbid`, `app` of `pod-deleted`.

        Raises
        ------
        HelperLost
            The demo has ended.
        UsageError
            There is no such fault, or it needs other options.
        """
        answer = self._ask("fault", name=name, options=options)
        if "error" in answer:
            raise UsageError(answer["error"], hint="telemagic help demo")

    def renew_token(self) -> str:
        """Let every user have a new token, write it into the kubeconfigs and `token_file`, and return the admin's."""
        self.fault("token-renewed")
        return self.token_file.read_text()

    def is_last_owner(self) -> bool:
        """Tell whether the demo ends when this object, made with `owned`, is closed."""
        try:
            answer = self._ask("status")
        except HelperLost:
            return True
        return bool(answer["owned"]) and answer["owners"] == 1

    def close(self) -> None:
        """Let go of the demo: an owned one ends with its last owner."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hold(self, *, owner: bool, keep: bool) -> None:
        network = namespaces.network_identity()
        answer = self._ask("attach", network=network, owner=owner, keep=keep)
        if answer["served"]:
            return
        namespaces.loopback_up()
        try:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        except OSError as error:
            raise HelperError(
                f"port {self.port} of 127.0.0.1 is taken here, so the demo's API server cannot listen",
                hint="take the demo down and connect again: telemagic demo down",
            ) from error
        with listener:
            self._ask("listen", listener.fileno(), network=network)

    def _ask(self, op: str, *fds: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        answer = control.ask(self._connection, op, *fds, **fields)
        if answer is None:
            raise HelperLost(
                f"the demo cluster {self.name} has ended", hint="start it again: telemagic demo up"
            )
        return answer


def ensure(
    *,
    name: str = "demo",
    owned: bool = False,
    ipv4_only: bool = False,
    like: str = "",
    no_manager: bool = False,
) -> Demo:
    """Make sure that a demo cluster is up, and that its API server is reachable from here.

    Parameters
    ----------
    name
        Of the demo; several can be up side by side.
    owned
        Start it so that it ends with the last owner, of whom the result is one. An unowned one stays until
        :func:`down`. Asking for an unowned one makes an owned one stay, too.
    ipv4_only
        Start it as a cluster without IPv6, as many are. One that is up stays as it is, here and below.
    like
        Let it show its networks as this kind of cluster does: one of :data:`telemagic.demo.likeness.KINDS`.
    no_manager
        Start it without a manager, and without the namespace for one.

    Raises
    ------
    HelperMissing
        The machine lacks something: user namespaces, PostgreSQL.
    UsageError
        The name cannot be one, or there is no such kind.
    """
    from telemagic.demo.likeness import KINDS

    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a demo's name", hint="use lower-case letters, digits and dashes"
        )
    if like and like not in KINDS:
        raise UsageError(f"no demo can be like {like!r}", hint=f"there are: {', '.join(KINDS)}")
    options = [*(["--owned"] if owned else []), *(["--ipv4-only"] if ipv4_only else [])]
    options += [*(["--like", like] if like else []), *(["--no-manager"] if no_manager else [])]
    return _hold_or_start(name, options, owned=owned)


def _hold_or_start(name: str, options: list[str], *, owned: bool) -> Demo:
    directory = runtime_dir() / f"{_PREFIX}{name}"
    for last in (False, True):
        with lock.held(directory.parent):
            connection = control.connect(directory, launching.ASK_TIMEOUT)
            if connection is None:
                used = [IPv4Network(found["slot"]) for found in _others(directory)]
                connection = launching.start(name, directory, options, used)
            answer = control.ask(connection, "status")
            if answer is not None:
                demo = Demo(name, directory, connection, answer["port"])
                try:
                    demo._hold(owner=owned, keep=not owned)
                except HelperLost:
                    if last:
                        raise
                else:
                    return demo
            connection.close()
        _wait_gone(directory)  # it was about to end
    raise HelperLost(f"the demo cluster {name} ends as soon as it has started")


def down(name: str = "demo") -> bool:
    """End a demo cluster, and wait until nothing is left of it.

    Returns
    -------
    bool
        False if it was not up.
    """
    directory = runtime_dir() / f"{_PREFIX}{name}"
    connection = control.connect(directory, launching.ASK_TIMEOUT)
    if connection is None:
        status()  # which removes what a dead one has left
        return False
    with connection:
        control.ask(connection, "stop")
    _wait_gone(directory)
    return True


def find(name: str = "demo") -> Demo:
    """Find a demo cluster that is up, without holding it.

    Raises
    ------
    HelperLost
        It is not up.
    """
    directory = runtime_dir() / f"{_PREFIX}{name}"
    connection = control.connect(directory, launching.ASK_TIMEOUT)
    answer = None if connection is None else control.ask(connection, "status")
    if connection is None or answer is None:
        if connection is not None:
            connection.close()
        raise HelperLost(f"the demo cluster {name} is not up", hint="start it: telemagic demo up")
    return Demo(name, directory, connection, answer["port"])


def status() -> list[DemoStatus]:
    """List the demo clusters of this runtime directory that are up, and remove what dead ones have left."""
    found = []
    for directory in sorted(runtime_dir().glob(f"{_PREFIX}*")):
        answer = _status_of(directory)
        if answer is None:
            _sweep(directory)
            continue
        name = directory.name.removeprefix(_PREFIX)
        pods = answer["pods"].values()
        found.append(
            DemoStatus(
                name=name,
                kubeconfig=directory / "kubeconfig",
                context=name,
                owned=answer["owned"],
                ready=f"{sum(pods)}/{len(pods)}",
                pod_cidr=answer["pod_cidr"],
                service_cidr=answer["service_cidr"],
                uptime=time.time() - answer["started"],
            )
        )
    return found


def wait_gone(demo: Demo) -> None:
    """Wait until nothing is left of a demo that was let go of.

    Raises
    ------
    HelperError
        It takes too long.
    """
    _wait_gone(demo.directory)


def _status_of(directory: Path) -> dict[str, Any] | None:
    connection = control.connect(directory, launching.ASK_TIMEOUT)
    if connection is None:
        return None
    with connection:
        return control.ask(connection, "status")


def _sweep(directory: Path) -> None:
    with lock.held(directory.parent, wait=False) as alone:
        # Whoever has the lock is starting or removing one: then it is not dead, or soon gone.
        inode = directory.stat().st_ino if alone and directory.exists() else 0
    if inode:
        lock.remove(directory, inode)


def _wait_gone(directory: Path) -> None:
    deadline = time.monotonic() + _GONE_TIMEOUT
    inode = directory.stat().st_ino if directory.exists() else 0
    while inode and directory.exists() and directory.stat().st_ino == inode:
        if time.monotonic() > deadline:
            raise HelperError(
                f"the demo cluster in {directory} does not end", hint=f"look into {directory}/daemon.log"
            )
        time.sleep(_POLL)


def _others(directory: Path) -> Iterable[dict[str, Any]]:
    for other in directory.parent.glob(f"{_PREFIX}*"):
        if other != directory and (answer := _status_of(other)) is not None:
            yield answer
