"""`%tele help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.parser import Parser
    from telemagic.results import Text
    from telemagic.session import Session

SUMMARY = "show help, also on one command"
DETAIL = ""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of help."""
    parser.add_argument("topic", nargs="?", default="", metavar="COMMAND")


def run(session: Session, args: Namespace) -> Text:
    """Return the help."""
    from telemagic.parser import Tree  # late: the tree is made of this file too

    return Tree(session.prog).help(args.topic)
