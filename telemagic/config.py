"""Defaults: from `%config TeleMagics`, from `[tool.telemagic]` of a pyproject.toml, and from a file of the user's own.

What wins, in this order: a flag of the line, `%config`, the nearest pyproject.toml upwards from the current directory,
`telemagic/config.toml` below `$XDG_CONFIG_HOME` (else `~/.config`), what is built in. The files are looked at again
before each line that uses them, so an edit counts at once. A file that cannot be understood is an error naming file and
key, not something to guess about.

A pyproject.toml may have come with somebody else's repository, or lie in a directory above that others write to, so it
is not trusted like the user's own file. `PERSONAL` has what it cannot choose, and why; it can add patterns of production
but not take any away; and one that belongs to another user is refused.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import TelemagicError

from telemagic import production

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DNS_MECHANISMS: Final = ("auto", "resolved", "resolvconf", "kernel", "none")
ON_CONFLICT: Final = ("refuse", "take", "exclude", "map")
WAYS: Final = ("auto", "manager", "agentless")


class ConfigError(TelemagicError):
    """A file with defaults cannot be used; the message names it and the key."""

    slug = "config"


@dataclass(frozen=True, slots=True)
class Settings:
    """Every default, as built in. Times in seconds; empty texts mean the kubeconfig's own."""

    context: str = ""
    namespace: str = ""
    kubeconfig: str = ""
    timeout: float = 30.0
    via: str = "auto"
    dns: str = "auto"
    on_conflict: str = "refuse"
    manager_namespace: str = "telemagic"
    short_errors: bool = True
    production: tuple[str, ...] = production.DEFAULT
    progress_after: float = 0.3


HELP: Final = {
    "context": "Context of the kubeconfig that connect uses. Empty: its current one.",
    "namespace": "Namespace whose short names resolve. Empty: the context's own.",
    "kubeconfig": "The kubeconfig file. Empty: $KUBECONFIG, else ~/.kube/config.",
    "timeout": "Seconds that a connect may take, not counting the typing of a password.",
    "via": f"How to get into a cluster: {', '.join(WAYS)}.",
    "dns": f"How names resolve: {', '.join(DNS_MECHANISMS)}.",
    "on_conflict": f"A network of the cluster is this machine's already: {', '.join(ON_CONFLICT)}.",
    "manager_namespace": "Namespace of the cluster's traffic manager.",
    "short_errors": "Show errors as two lines. False: the whole traceback with all causes.",
    "production": "Patterns of contexts that are production, and get a loud banner.",
    "progress_after": "Seconds until a connect shows its progress.",
}
CHOICES: Final = {"via": WAYS, "dns": DNS_MECHANISMS, "on_conflict": ON_CONFLICT}
WHERE: Final = frozenset({"context", "namespace", "kubeconfig"})  # those that say which cluster
NOT_DEMO: Final = WHERE | {"manager_namespace"}  # those that the demo, a cluster of its own, knows better
# Which of them are defaults of a subcommand's arguments of the same name.
OF_COMMANDS: Final = {
    "connect": (
        "context",
        "namespace",
        "kubeconfig",
        "timeout",
        "via",
        "dns",
        "on_conflict",
        "manager_namespace",
    ),
    "doctor": ("context", "kubeconfig", "manager_namespace"),
    "install": ("context", "kubeconfig"),
}

# What is not a project's to choose, and why; of some keys a value only.
PERSONAL: Final = {
    "kubeconfig": "it may name programs to run",
    "manager_namespace": "whoever runs the traffic manager sees what goes to the cluster, and answers for its names",
    "on_conflict": "take gives the cluster networks that are another's on this machine",
}
_HARMLESS: Final = {"on_conflict": ("refuse", "exclude", "map")}

MAX_FOREIGN: Final = 1 << 20  # bytes of another user's file that are looked at
_OURS: Final = b"tool.telemagic"  # what is in a pyproject.toml that says something to us

BUILT_IN: Final = Settings()


def of_command(settings: Settings, command: str) -> dict[str, object]:
    """Return the defaults for a subcommand's arguments that are not the built-in ones."""
    found = {name: getattr(settings, name) for name in OF_COMMANDS.get(command, ())}
    return {name: value for name, value in found.items() if value != getattr(BUILT_IN, name)}


# --- files -------------------------------------------------------------------------------------------------------


def from_files(directory: Path | None = None) -> Settings:
    """Return the defaults that the files give; read again only where a file has changed.

    Parameters
    ----------
    directory
        Where a notebook is, whose pyproject.toml counts; the current one unless given.

    Raises
    ------
    ConfigError
        A file cannot be read or understood, or has a key or a value that makes no sense.
    """
    settings = BUILT_IN
    for path, table in _files(directory):
        said = _read(path, table)
        if table and "production" in said:
            said = {**said, "production": tuple(dict.fromkeys((*settings.production, *said["production"])))}
        settings = replace(settings, **said)
    return settings


def _files(directory: Path | None) -> list[tuple[Path, str]]:
    """Return the files that may say something, the weakest first, each with the name of its table."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if base.startswith("/") else Path("~/.config").expanduser()  # relative ones are ignored
    found = [(home / "telemagic" / "config.toml", "")]
    try:
        start = directory or Path.cwd()
    except FileNotFoundError:  # the directory was removed
        return found
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return [*found, (folder / "pyproject.toml", "tool.telemagic")]
    return found


_known: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}  # what a file said, and when


def _read(path: Path, table: str) -> dict[str, Any]:
    try:
        state = path.stat()
    except OSError:  # not there, or out of reach: nothing said
        return {}
    if table and state.st_uid not in (os.geteuid(), 0):
        return _foreign(path, state.st_uid)
    stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
    known = _known.get(path)
    if known is None or known[0] != stamp:
        known = _known[path] = stamp, _understand(path, table)
    return known[1]


def _foreign(path: Path, uid: int) -> dict[str, Any]:
    """Refuse another user's file, if there is anything for us in it."""
    try:
        with path.open("rb") as file:
            return _nothing_for_us(path, uid, file.read(MAX_FOREIGN))
    except OSError:
        return {}


def _nothing_for_us(path: Path, uid: int, data: bytes) -> dict[str, Any]:
    if _OURS in data:
        raise ConfigError(
            f"{path} has defaults for telemagic but belongs to another user (uid {uid})",
            hint="make it yours, work in another directory, or remove its [tool.telemagic]",
        )
    return {}


def _understand(path: Path, table: str) -> dict[str, Any]:
    data = b""
    try:
        with path.open("rb") as file:
            uid = os.fstat(
                file.fileno()
            ).st_uid  # once more: whose directory it is may have put another there
            data = file.read()
        if table and uid not in (os.geteuid(), 0):
            return _nothing_for_us(path, uid, data)
        document: Any = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint=f"check that it is yours: ls -l {path}"
        ) from error
    except ValueError as error:  # TOML's own error, and that of text that is none, are ValueErrors
        if table and _OURS not in data:
            return {}  # another tool's file, in which nothing is for us
        raise ConfigError(f"{path} is not TOML: {error}", hint="correct the line") from error
    for name in table.split(".") if table else ():
        document = document.get(name, {}) if isinstance(document, dict) else document
    where = f"{path}, [{table}]" if table else str(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{where} must be a table", hint='write it like context = "demo"')
    found = validated(document, where)
    for name in sorted(PERSONAL.keys() & found.keys() if table else ()):
        if found[name] not in _HARMLESS.get(name, ()):
            raise ConfigError(
                f"{where}: {name} is not a project's to choose: {PERSONAL[name]}",
                hint=f"say it by --{name.replace('_', '-')}, %config TeleMagics.{name} or ~/.config/telemagic/config.toml",
            )
    return found


def validated(table: Mapping[str, object], where: str) -> dict[str, Any]:
    """Return the values of a table, as Settings has them.

    Raises
    ------
    ConfigError
        A key is unknown or a value makes no sense; the message begins with `where`.
    """
    known = {each.name for each in fields(Settings)}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            from telemagic.parser import did_you_mean  # late: it needs this module

            raise ConfigError(
                f"{where}: unknown key {key!r}{did_you_mean(name, known)}",
                hint=f"known are {', '.join(sorted(known))}",
            )
        try:
            found[name] = check(name, value)
        except ValueError as error:
            raise ConfigError(f"{where}: {key} {error}, not {value!r}", hint=HELP[name]) from None
    return found


def check(name: str, value: object) -> object:
    """Return a value as Settings has it; ValueError with what it must be, as in "must be a text"."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ValueError(f"must be one of {', '.join(CHOICES[name])}")
        return value
    return _KINDS[type(getattr(BUILT_IN, name))](value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError("must be a number of seconds")
    return float(value)


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


_KINDS: Final[dict[type, Callable[[object], object]]] = {
    str: _text,
    bool: _flag,
    float: _seconds,
    tuple: _patterns,
}


# --- those in force ----------------------------------------------------------------------------------------------

_source: list[Callable[[], Settings]] = []


def current() -> Settings:
    """Return the defaults in force in this process; errors as in :func:`from_files`."""
    return _source[-1]() if _source else from_files()


def use(source: Callable[[], Settings] | None) -> None:
    """Have :func:`current` ask `source`, as the magics do for `%config`; None: the files alone."""
    _source[:] = [source] if source is not None else []
