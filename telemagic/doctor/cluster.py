"""The doctor's checks of a cluster: made by a child process, because the kernel must not load what they need."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from telehelper.errors import KubeconfigError, TelemagicError

from telemagic import admin, kubeconfig
from telemagic.doctor.diagnosis import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telemagic.connection import Connection

PATIENCE: Final = 10.0  # seconds; the child's own limit is 7, and it starts in one


class Question(NamedTuple):
    """Which cluster to look at. ``search`` is a value of KUBECONFIG; what is empty is the kubeconfig's own."""

    search: str
    context: str
    namespace: str = ""
    manager_namespace: str = "telemagic"
    is_connected: bool = False

    @property
    def arguments(self) -> list[str]:
        """The child's arguments."""
        given = ["--kubeconfig", self.search, "--context", self.context, "--namespace", self.namespace]
        given += ["--manager-namespace", self.manager_namespace]
        return [*given, "--connected"] if self.is_connected else given


def choose(connection: Connection | None, path: str, context: str) -> Question | None:
    """Return the question: about the connection's cluster, else about the kubeconfig's; None if there is none."""
    target = connection.target if connection is not None else None
    if target is not None and not path and context in ("", target.context.name):
        options = target.options
        return Question(target.search, target.context.name, target.namespace, options.manager_namespace, True)
    try:
        found = kubeconfig.read(path)
        chosen = found.choose(context)
    except KubeconfigError:
        return None  # a check of its own says so
    is_connected = connection is not None and connection.context == chosen.name
    return Question(found.search, chosen.name, is_connected=is_connected)


class Checkup:
    """A look at a cluster that goes on while other checks are made."""

    def __init__(self, question: Question, run: Callable[..., dict[str, Any]] = admin.run) -> None:
        self._question = question
        self._run = run
        self._findings: list[Finding] = []
        # A thread, and not a process to be polled: the child's words are read as they come.
        self._thread = threading.Thread(target=self._look, name="telemagic checkup", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            rows = self._run("checkup", self._question.arguments)["findings"]
            self._findings = [
                Finding(check, Level(level), found, remedy) for check, level, found, remedy in rows
            ]
        except TelemagicError as error:
            self._findings = [Finding("cluster", Level.WARNING, f"not checked: {error.message}", error.hint)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._findings = [Finding("cluster", Level.WARNING, f"not checked: {error!r:.200}")]

    def wait(self, patience: float = PATIENCE) -> Sequence[Finding]:
        """Return what was found."""
        self._thread.join(patience)
        if self._thread.is_alive():
            return [Finding("cluster", Level.PROBLEM, f"could not be checked within {patience:.0f} s")]
        return self._findings
