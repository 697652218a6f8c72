"""`%tele dashboard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "show flows, latency, throughput and events live"
DETAIL = """\
A view that follows the connection. The filter takes words and field:value, such as state:failed or cell:3; arrow keys
move, Enter shows where a flow's time went. The latency chart has the medians (p50) and the 99th percentiles (p99) of
connect and first byte over a quarter of an hour, of all services or of the one that is chosen, clicked or filtered by;
pointer or arrow keys tell the numbers. Where there are no widgets it is a summary of now."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of dashboard."""
    parser.add_connection_argument()
    parser.add_argument(
        "--hz", type=float, default=2.0, metavar="N", help="how often a second it changes; default 2"
    )
    parser.add_argument(
        "--rows", type=int, default=5000, metavar="N", help="how many flows it keeps; default 5000"
    )
    parser.add_argument(
        "--height", type=int, default=290, metavar="PX", help="of the flow table; default 290"
    )
    parser.add_argument("--static", action="store_true", help="only a summary of now, without anything live")


def run(session: Session, args: Namespace) -> object:
    """Return the view."""
    connection = session.current(args.context)
    return connection.dashboard(hz=args.hz, rows=args.rows, height=args.height, static=args.static)
