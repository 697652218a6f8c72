"""`%tele status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.parser import Parser
    from telemagic.results import Status
    from telemagic.session import Session

SUMMARY = "show what is connected to what"
DETAIL = "The CIDRs come with how each was found and how certain that is."


def add_arguments(parser: Parser) -> None:
    """Add the arguments of status."""
    parser.add_connection_argument()


def run(session: Session, args: Namespace) -> Status:
    """Return the status."""
    return session.current(args.context).status
