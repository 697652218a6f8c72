"""`%tele resolve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic import notes

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "look a name up as programs do, and say who answered"
DETAIL = """\
Asks telemagic's resolver, and this machine's getaddrinfo beside it; the column `system` says whether programs get the
same. An address is asked for its name. The column `note` says why there is no answer."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of resolve."""
    parser.add_argument("name", metavar="NAME", help="such as postgres.shop")
    parser.add_argument(
        "--type", default="A", dest="rtype", metavar="TYPE", help="A (default), AAAA, SRV, TXT, …"
    )
    parser.add_table_arguments()


def run(session: Session, args: Namespace) -> pd.DataFrame:
    """Return the answers."""
    return notes.shown(session.current(args.context).resolve(args.name, args.rtype), wide=args.wide)
