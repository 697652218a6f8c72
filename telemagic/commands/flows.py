"""`%tele flows`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import frames, notes, schema
from telemagic.results import Text

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show who talked to what, and where the time went"
DETAIL = f"""\
One row per flow, newest last unless sorted: those that are open, and closed ones as long as they are kept. In order, the
time went to dns_ms; queue_ms, tunnel_ms and dial_ms, together about connect_ms; first_byte_ms, of which the service
itself took wait_ms; and transfer_ms.

{schema.describe(frames.FLOW_SCHEMA)}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of flows."""
    parser.add_argument(
        "--since", metavar="TIME", help="that were there since then: 90s, 5m, 1h30m ago, or 2026-01-31T09:00"
    )
    parser.add_argument(
        "--service", metavar="NAME", help="to postgres.shop, postgres:5432, a pod, an address, or *.shop"
    )
    parser.add_argument("--state", metavar="STATE", help="open, closed, or a state such as ESTABLISHED")
    parser.add_argument("--cell", metavar="N", help="of this cell, or of the last one that opened any")
    parser.add_argument(
        "--top", type=int, metavar="N", help="so many; those with the most bytes unless sorted"
    )
    parser.add_argument("--sort", metavar="COLUMN", help="largest and latest first, texts from A to Z")
    if parser.prog.startswith("telemagic"):
        parser.add_argument("--json", action="store_true", help="print a list of objects for machines")
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame | Text:
    """Return the table of flows."""
    frame = notes.shown(
        session.current(args.context).flows(
            args.since, args.service, args.state, args.cell, args.top, args.sort
        ),
        wide=args.wide,
    )
    if getattr(args, "json", False):
        return Text(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    return frame
