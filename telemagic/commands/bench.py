"""`%tele bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.errors import UsageError

from telemagic.bench.metrics import METRICS, PATHS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from telemagic.bench.table import Result
    from telemagic.parser import Parser
    from telemagic.results import Text
    from telemagic.session import Session

SUMMARY = "measure the tunnel beside the bare link, ssh -L and sshuttle"
DETAIL = f"""\
Makes a network and a cluster of its own for it, touches nothing else, needs no root, and stops by itself, within
six minutes. Connections that you have are not measured and not disturbed, but they and everything else that runs
meanwhile take part in the figures. sshuttle and ssh -L are measured where they are installed.

paths    {" ".join(PATHS)}
metrics  {" ".join(METRICS)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of bench."""
    parser.add_argument(
        "--quick", action="store_true", help="within a minute, and rough; idle costs on one path only"
    )
    parser.add_argument("--json", action="store_true", help="print an object for machines, nothing else")
    parser.add_argument("--paths", default="", metavar="PATH,…", help="only these; default: all")
    parser.add_argument("--metrics", default="", metavar="METRIC,…", help="only these; default: all")


def run(session: Session, args: Namespace) -> Result | Text:
    """Measure."""
    from telemagic.bench import bar, child, table
    from telemagic.results import Text

    report = child.run(options(args), bar.choose())
    return Text(report.to_json()) if args.json else table.Result(report)


def options(args: Namespace) -> list[str]:
    """Return the options of the run.

    Raises
    ------
    UsageError
        A path or a metric is named that there is not.
    """
    wanted = [
        "--paths",
        *_chosen("path", args.paths, PATHS),
        "--metrics",
        *_chosen("metric", args.metrics, METRICS),
    ]
    return [*wanted, "--quick"] if args.quick else wanted


def _chosen(what: str, text: str, known: Sequence[str]) -> list[str]:
    """Take a list with commas; in our order, so that the bare link comes first."""
    from telemagic.parser import did_you_mean

    wanted = [word.strip() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in known:
            raise UsageError(
                f"there is no {what} {word!r}{did_you_mean(word, known)}", hint=f"one of: {', '.join(known)}"
            )
    return [name for name in known if name in wanted or not wanted]
