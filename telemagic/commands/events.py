"""`%tele events`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import frames, notes, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show what was lost, refused or not found"
DETAIL = f"""\
One row per event, newest last; the same about the same within ten seconds is one row.

{schema.describe(frames.EVENT_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of events."""
    parser.add_argument("--since", metavar="TIME", help="since then: 90s, 5m, 1h30m ago, or 2026-01-31T09:00")
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of events."""
    return notes.shown(session.current(args.context).events(args.since), wide=args.wide)
