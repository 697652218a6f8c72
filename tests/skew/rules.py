"""What happens when two parts are of different versions; the tests and docs/versions.md are made from this."""

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """One pair: what they compare, who does, what happens if it differs, and what the user reads and does."""

    parts: str
    compared: str
    by: str
    then: str
    error: str
    remedy: str


RULES: Final = {
    "kernel": Rule(
        "kernel, data plane",
        "`messages.PROTOCOL_VERSION`, in Hello and Welcome",
        "the data plane, then the kernel",
        "refused; a data plane that runs for other notebooks goes on for them",
        "ControlError",
        "disconnect all notebooks, then connect again",
    ),
    "netd": Rule(
        "data plane, netd",
        "`messages.PROTOCOL_VERSION`, in NetdReady, before it is asked anything",
        "the data plane; netd, in OpenVif",
        "refused before anything is changed",
        "HelperLost",
        "telemagic helper install, if there is a root-owned copy; else install one version of telemagic only, then restart the kernel",
    ),
    "manager": Rule(
        "data plane, traffic manager",
        "the version of the mux, in OpenSession and HELLO",
        "the manager",
        "refused, unless both know an older one (`core.frames`)",
        "ManagerTooOld",
        "%tele install brings the manager to this version; is it the newer one: pip install --upgrade telemagic",
    ),
    "distribution": Rule(
        "any two",
        "the distribution's version, in OpenSession and its answer",
        "nobody",
        "they go on; `%tele status` shows the manager's, `%tele doctor` tells if it differs",
        "none",
        "none is needed",
    ),
}


def markdown() -> str:
    """Write docs/versions.md."""
    lines = [
        "# Parts of different versions",
        "",
        "Made by `python -m tests.skew.rules` from `tests/skew/rules.py`; tested with real processes in `tests/skew`. A part",
        "that is older or newer is told so before anything is changed. The first messages of each pair (Hello, Welcome, Failed,",
        "NetdReady; OpenSession; the HELLO and GOAWAY frames) keep their form for ever, so that it can be told.",
        "",
        "| parts | compared | by | if it differs | error | remedy |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(rule)} |" for rule in RULES.values()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[2] / "docs" / "versions.md").write_text(markdown())
