"""`%tele routes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import frames, notes, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show what is routed to the cluster"
DETAIL = f"""\
One row per network, with where it comes from and its state: applied, skipped (left out, or left to whoever has it),
conflict, mapped (names get other addresses); and one per address that is routed because a name led there (resolved).

{schema.describe(frames.ROUTE_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of routes."""
    parser.add_argument("--conflicts", action="store_true", help="only networks that this machine has too")
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of routes."""
    return notes.shown(session.current(args.context).routes(conflicts=args.conflicts), wide=args.wide)
