"""`%tele disconnect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.cards import Card
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "leave the cluster and undo everything"
DETAIL = "When the last notebook leaves, device, routes and names are as before."


def add_arguments(parser: Parser) -> None:
    """Add the arguments of disconnect."""
    parser.add_connection_argument()


def run(session: Session, args: Namespace) -> Card:
    """Leave."""
    return session.disconnect(args.context)
