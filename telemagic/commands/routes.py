"""`%tele routes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show what is routed to the cluster, as a DataFrame"
DETAIL = "One row per route, with where it comes from and whether it is in force."


def add_arguments(parser: Parser) -> None:
    """Add the arguments of routes."""
    parser.add_connection_argument()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of routes."""
    return session.current(args.context).routes()
