"""Reading kubeconfigs: several files are one, and each name means what the first of them says (client-go's rules).

Ours and not the official client's: that one runs login plugins while it reads, without a time limit, writes private keys to
/tmp, and drops fields that it does not know (platform notes, section "Python Kubernetes clients").
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from telehelper.errors import BAD_YAML, KubeconfigError

FIX_FILE: Final = "check it with: kubectl config view"
MAX_FILE: Final = 16 * 1024 * 1024  # bytes; a kubeconfig of a thousand clusters is 5 MiB


@dataclass(frozen=True, slots=True)
class Entry:
    """What a kubeconfig says under a name, and the folder of the file that says so."""

    name: str
    fields: dict[str, Any] = field(repr=False)  # tokens and passwords among them
    folder: Path

    def text(self, key: str) -> str:
        """Return a field; empty if it is missing. KubeconfigError if it is no text."""
        value = self.fields.get(key)
        if value is not None and not (isinstance(value, str) and _is_clean(value)):
            raise KubeconfigError(
                f"the kubeconfig's {key} of {self.name!r} cannot be used: it is no text", hint=FIX_FILE
            )
        return value or ""

    def path(self, key: str) -> Path | None:
        """Return the file that a field names, relative to the kubeconfig; None if it is missing."""
        value = self.text(key)
        return self.folder / value if value else None

    def data(self, key: str) -> bytes:
        """Return the content of ``KEY-data`` or, without it, of the file ``KEY``; empty without both.

        Raises
        ------
        KubeconfigError
            It is no base64, or the file cannot be read.
        """
        try:
            if inline := self.text(f"{key}-data"):
                return base64.b64decode(inline, validate=True)
        except ValueError as error:  # binascii.Error is one; what is not even ASCII is no such
            raise KubeconfigError(f"the kubeconfig's {key}-data is no base64", hint=FIX_FILE) from error
        try:
            path = self.path(key)
            return path.read_bytes() if path is not None else b""
        except OSError as error:
            raise KubeconfigError(
                f"the kubeconfig's {key} cannot be read: {error.filename}: {error.strerror}", hint=FIX_FILE
            ) from error


def _is_clean(text: str) -> bool:
    """Whether a text can be a file's name or go over a network; YAML can write half a character."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


@dataclass(frozen=True, slots=True)
class Context:
    """A context, its cluster, and its user (without fields if it names none)."""

    name: str
    namespace: str
    cluster: Entry
    user: Entry


def read_context(kubeconfig: str, name: str = "") -> Context:
    """Read one context of a kubeconfig.

    Parameters
    ----------
    kubeconfig
        One path, or several separated by colons as in ``KUBECONFIG``. Those that are not there are passed over.
    name
        Of the context; empty for the current one.

    Raises
    ------
    KubeconfigError
        A file cannot be read or is none, all are missing, or the context or what it names is.
    """
    files = [found for path in kubeconfig.split(":") if path and (found := _read(Path(path))) is not None]
    if not any(doc for _, doc in files):
        raise KubeconfigError(f"kubeconfig {kubeconfig} is missing or empty", hint=FIX_FILE)
    chosen = name or next((str(doc["current-context"]) for _, doc in files if doc.get("current-context")), "")
    context = _find(files, "contexts", "context", chosen)
    user = context.text("user")
    return Context(
        name=chosen,
        namespace=context.text("namespace") or "default",
        cluster=_find(files, "clusters", "cluster", context.text("cluster")),
        user=_find(files, "users", "user", user) if user else Entry("", {}, context.folder),
    )


def _read(path: Path) -> tuple[Path, dict[str, Any]] | None:
    try:
        with path.open(encoding="utf-8") as file:
            doc = yaml.safe_load(file.read(MAX_FILE))
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError, *BAD_YAML) as error:
        why = " ".join(str(error).split())  # YAML's errors are several lines
        raise KubeconfigError(f"cannot read kubeconfig {path}: {why}", hint=FIX_FILE) from error
    if doc is None:
        doc = {}
    if not isinstance(doc, dict) or not all(
        isinstance(doc.get(key) or [], list) for key in ("contexts", "clusters", "users")
    ):
        raise KubeconfigError(f"kubeconfig {path} is no kubeconfig", hint=FIX_FILE)
    return path.absolute().parent, doc


def _find(files: list[tuple[Path, dict[str, Any]]], plural: str, singular: str, name: str) -> Entry:
    for folder, doc in files:
        for entry in doc.get(plural) or ():
            if isinstance(entry, dict) and name and entry.get("name") == name:
                body = entry.get(singular) or {}
                if isinstance(body, dict):
                    return Entry(name, body, folder)
    what = f"{singular} {name!r}" if name else f"current {singular}"
    raise KubeconfigError(f"the kubeconfig has no {what}", hint="kubectl config get-contexts lists them")
