"""`%tele fault`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from telehelper.errors import HelperLost, NotConnected

from telemagic import notes, promises, schema

if TYPE_CHECKING:
    from argparse import Namespace

    import pandas as pd

    from telemagic.outcome import Rehearsal
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "break something on purpose, and see whether what is promised then is kept"
DETAIL = f"""\
Without a name it shows what can be broken, and what is promised, as a DataFrame. With a name it happens to the connection
that there is, is mended again as soon as it was seen, and the result says what happened, in how long, and what remained.
What is broken is your own data plane, on any cluster; on a demo cluster the cluster as well, and all that `demo break` has
broken is mended with it. Nothing of others is touched.
From a shell the exit status is 1 unless the promise was kept.

{textwrap.indent(schema.describe(promises.SCHEMA), "  ")}"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of fault."""
    parser.add_argument(
        "name", nargs="?", choices=tuple(promises.BY_NAME), metavar="FAULT", help="what to break"
    )
    parser.add_argument(
        "--service",
        default="",
        metavar="SERVICE[:PORT]",
        help="data-plane-killed: have a connection to it open meanwhile; a demo cluster has its own",
    )
    parser.add_argument("--force", action="store_true", help="also where it is production")
    parser.add_connection_argument()


def run(session: Session, args: Namespace) -> Rehearsal | pd.DataFrame:
    """Return the table, or what came of one fault."""
    if args.name is not None:
        connection = session.current(args.context)
        return connection.fault(args.name, service=args.service, force=args.force, say=notes.say)
    try:
        possible = session.current(args.context).faults()
    except (NotConnected, HelperLost):
        possible = None
    return promises.table(possible)
