"""The licences of all that we need, as the distributions themselves tell; docs/licences.md is made from this."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Final, cast

from tests.supply.closure import by_part

if TYPE_CHECKING:
    from email.message import Message

# What an Apache-2.0 project may depend on: permissive ones, and weak copyleft that stays in its own files. In the form that
# :func:`licence_of` gives; an expression's parts are looked up one by one.
ALLOWED: Final = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0",
        "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "PostgreSQL", "Unlicense", "Zlib",
    }
)  # fmt: skip
# Distributions of which we use no more than the API, under licences that are not in general allowed, and why that is well.
EXCEPTED: Final = {
    "psycopg": "LGPL-3.0-only: imported by the demo and by users' own code, not part of the product, not changed",
    "psycopg-binary": "as psycopg",
    "pyroute2": "GPL-2.0-or-later OR Apache-2.0: used under the second",
}
_NAMES: Final = (
    (r"apache", "Apache-2.0"),
    (r"3-clause|bsd[ -]3|new bsd|modified bsd", "BSD-3-Clause"),
    (r"2-clause|bsd[ -]2|simplified bsd", "BSD-2-Clause"),
    (r"bsd", "BSD"),
    (r"\bmit\b|mit license", "MIT"),
    (r"mozilla|mpl", "MPL-2.0"),
    (r"python software foundation|psf", "PSF-2.0"),
    (r"\bisc\b", "ISC"),
    (r"lesser general public|lgpl", "LGPL"),
    (r"general public|\bgpl", "GPL"),
    (r"unlicense", "Unlicense"),
    (r"postgresql", "PostgreSQL"),
)


_JUDGEMENT: Final = "License :: DFSG approved"  # what Debian thinks of it names no licence


def licence_of(name: str) -> str:
    """Return a distribution's licence: its SPDX expression, else what its classifiers or its licence field say."""
    told = cast("Message", metadata.metadata(name))  # which it is; the protocol lacks get()
    if expression := told.get("License-Expression"):
        return str(expression)
    classifiers = [each for each in told.get_all("Classifier") or () if each.startswith("License ::")]
    texts = [each.rpartition(" :: ")[2] for each in classifiers if each != _JUDGEMENT] or [
        str(told.get("License") or "").strip().split("\n")[0]
    ]
    return " OR ".join(dict.fromkeys(_short(text) for text in texts if text)) or "unknown"


def _short(text: str) -> str:
    return next((short for pattern, short in _NAMES if re.search(pattern, text.lower())), text)


def is_allowed(expression: str) -> bool:
    """Whether an expression of SPDX's AND, OR, WITH and brackets can be kept by licences that are allowed."""
    words = re.findall(r"[()]|[^\s()]+", re.sub(r"\bWITH\s+[^\s()]+", "", expression))
    told = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    try:
        return bool(
            eval(" ".join(told.get(word) or str(word in ALLOWED) for word in words), {"__builtins__": {}})
        )
    except SyntaxError:  # empty, or words for people
        return False


def markdown() -> str:
    """Write docs/licences.md."""
    lines = [
        "# Licences of what telemagic needs",
        "",
        "Made by `python -m tests.supply --licences` from the metadata of the installed distributions, and checked against the",
        "list in `tests/supply/licences.py` by a test. *For*: what needs it; the product, or only the demo, the manager's TLS",
        "listener, or the tests.",
        "",
        "| distribution | for | licence | note |",
        "|---|---|---|---|",
        *(
            f"| {name} | {part} | {licence_of(name)} | {EXCEPTED.get(name, '')} |"
            for name, part in by_part().items()
        ),
    ]
    return "\n".join(lines) + "\n"
