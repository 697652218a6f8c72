"""`%tele flows`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show who talked to what, as a DataFrame"
DETAIL = "One row per flow, newest last; times are UTC, durations in ms."


def add_arguments(parser: Parser) -> None:
    """Add the arguments of flows."""
    parser.add_connection_argument()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of flows."""
    return session.current(args.context).flows()
