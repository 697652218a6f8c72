"""`%tele ping`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import notes

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "connect to a service by TCP and show how long it takes"
DETAIL = """\
Makes ordinary connections from this machine through the tunnel: what a program would wait for. tunnel_ms is the round
trip to the traffic manager, cluster_ms what the connect took longer, first_byte_ms is there if the server speaks first."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ping."""
    parser.add_argument(
        "target",
        metavar="SERVICE[:PORT]",
        help="such as postgres.shop, catalog.shop:http or a pod's name; the only port unless given",
    )
    parser.add_argument("--count", type=int, default=4, metavar="N", help="how often; default: 4")
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="for each connect; default: 5"
    )
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the tries."""
    connection = session.current(args.context)
    tries = connection.ping(args.target, count=args.count, timeout=args.timeout)
    return notes.shown(tries, wide=args.wide)
