"""What connect must know of a kubeconfig before anything starts: the contexts, and the chosen one's server and user.

Only the YAML is read: no credentials are used and no plugin runs here, so a typo costs neither a password nor a wait.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telehelper.errors import BAD_YAML, KubeconfigError

from telemagic import late


@dataclass(frozen=True, slots=True)
class Context:
    """One context, looked up."""

    name: str
    cluster: str
    user: str
    namespace: str
    server: str


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One or several merged files. ``search`` is their value of KUBECONFIG, with absolute paths."""

    search: str
    contexts: dict[str, dict[str, Any]]
    servers: dict[str, str]
    current: str

    def choose(self, name: str = "") -> Context:
        """Return the context called `name`, or the current one.

        Raises
        ------
        KubeconfigError
            There is no such context, none is set, or it names a cluster that is not there.
        """
        chosen = name or self.current
        if not chosen:
            raise KubeconfigError(
                f"no context is set in {self.search}",
                hint=f"%tele connect --context {_one_of(self.contexts)}",
            )
        if chosen not in self.contexts:
            raise KubeconfigError(
                f"no context {chosen!r} in {self.search}",
                hint=_suggest(chosen, self.contexts),
                context=chosen,
            )
        entry = self.contexts[chosen]
        cluster, user = _text(entry, "cluster"), _text(entry, "user")
        server = self.servers.get(cluster, "")
        if not server:
            raise KubeconfigError(
                f"context {chosen!r} names the cluster {cluster!r}, which has no server in {self.search}",
                hint=f"kubectl config view --context {chosen}",
            )
        return Context(chosen, cluster, user, _text(entry, "namespace"), server)


def read(explicit: str = "") -> Kubeconfig:
    """Read the kubeconfig as kubectl would: `explicit`, else `$KUBECONFIG` (a colon list), else `~/.kube/config`.

    In a list the first file to set a value wins, and missing files are skipped.

    Raises
    ------
    KubeconfigError
        No file is there, or one cannot be read or understood.
    """
    paths = search_path(explicit)
    there = [path for path in paths if _is_there(path)]
    if not there:
        raise _missing(paths)
    contexts: dict[str, dict[str, Any]] = {}
    servers: dict[str, str] = {}
    current = ""
    for path in there:
        doc = _load(path)
        for name, entry in _named(doc, "contexts", "context", path).items():
            contexts.setdefault(name, entry)
        for name, entry in _named(doc, "clusters", "cluster", path).items():
            servers.setdefault(name, _text(entry, "server"))
        current = current or _text(doc, "current-context")
    return Kubeconfig(os.pathsep.join(map(str, there)), contexts, servers, current)


def search_path(explicit: str = "") -> list[Path]:
    """Return the files that :func:`read` looks for."""
    search = explicit or os.environ.get("KUBECONFIG", "") or str(Path("~/.kube/config").expanduser())
    return [Path(part).expanduser().absolute() for part in search.split(os.pathsep) if part]


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # in a directory that is closed to us: reading it says why
        return True
    return True


def _missing(paths: list[Path]) -> KubeconfigError:
    names = ", ".join(map(str, paths))
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return KubeconfigError(
            f"no kubeconfig at {names}, and this notebook already runs inside a cluster",
            hint="its services answer here by name as it is; for another cluster: %tele connect --kubeconfig FILE",
        )
    return KubeconfigError(
        f"no kubeconfig at {names}",
        hint="%tele connect --kubeconfig FILE, or without a cluster: %tele connect --demo",
    )


def _load(path: Path) -> dict[str, Any]:
    late.load("yaml")  # kept out of %load_ext
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = f"check that it is a file and yours: ls -l {path}"
        raise KubeconfigError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise KubeconfigError(f"{path} is not text", hint=_view(path)) from error
    try:
        doc = yaml.safe_load(text)
    except (yaml.YAMLError, *BAD_YAML) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise KubeconfigError(f"{path}{where}: {problem}", hint=_view(path)) from error
    if doc is None:
        return {}  # an empty file is an empty configuration, as for kubectl
    if not isinstance(doc, dict):
        raise KubeconfigError(f"{path} is no kubeconfig: it holds no mapping", hint=_view(path))
    return doc


def _named(doc: dict[str, Any], section: str, inner: str, path: Path) -> dict[str, dict[str, Any]]:
    rows = doc.get(section)
    if rows is None:
        rows = []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise KubeconfigError(
            f"{path} is no kubeconfig: {section} is not a list of mappings", hint=_view(path)
        )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = row.get(inner)
        found.setdefault(_text(row, "name"), entry if isinstance(entry, dict) else {})
    return found


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return "" if value is None else str(value)


def _view(path: Path) -> str:
    return f"kubectl config view --kubeconfig {path}"


def _one_of(names: dict[str, dict[str, Any]]) -> str:
    return " | ".join(sorted(names)[:5]) or "NAME"


def _suggest(wanted: str, names: dict[str, dict[str, Any]]) -> str:
    close = difflib.get_close_matches(wanted, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"one of: {', '.join(sorted(names)[:10])}" if names else "the file has no contexts"
