"""`%tele pods`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import cluster_frames, notes, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show the pods there are"
DETAIL = f"""\
One row per pod. Shows what your rights allow, and says what they do not; times are UTC.

{schema.describe(cluster_frames.POD_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of pods."""
    parser.add_namespace_arguments()
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the table of pods."""
    pods = session.current(args.context).pods(args.namespace, everywhere=args.everywhere)
    return notes.shown(pods, wide=args.wide)
