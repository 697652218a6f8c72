"""`%tele services`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import cluster_frames, notes, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show the services there are and how to reach them"
DETAIL = f"""\
One row per service: the name to type, a URL where its ports say what they speak, and how many endpoints are ready.
Shows what your rights allow, and says what they do not.

{schema.describe(cluster_frames.SERVICE_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of services."""
    parser.add_namespace_arguments()
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of services."""
    services = session.current(args.context).services(args.namespace, everywhere=args.everywhere)
    return notes.shown(services, wide=args.wide)
