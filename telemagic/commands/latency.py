"""`%tele latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import frames, notes, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show how long each service takes to answer"
DETAIL = f"""\
One row per service over the flows that are kept, the tunnel itself first: what is slow, the way there or the service.

{schema.describe(frames.LATENCY_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of latency."""
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of latencies."""
    return notes.shown(session.current(args.context).latency(), wide=args.wide)
