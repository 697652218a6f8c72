"""`%tele doctor`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.doctor.diagnosis import Diagnosis
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "look at this machine: what is there, what it means, what to do"
DETAIL = """\
Changes nothing and asks nobody but a running data plane. An interface is made, tried and gone again in namespaces
of its own; sudo is asked whether it needs a password. The result's `frame` is a DataFrame."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of doctor."""
    parser.add_argument(
        "--context", default="", metavar="NAME", help="context to look up, and connection to look at"
    )
    parser.add_argument(
        "--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config"
    )


def run(session: Session, args: Namespace) -> Diagnosis:
    """Examine the machine, and the connection if there is one."""
    from telemagic.doctor.checks import examine_machine
    from telemagic.doctor.connected import examine_connection
    from telemagic.doctor.diagnosis import Diagnosis
    from telemagic.doctor.machine import Machine

    connection, device = None, ""
    with contextlib.suppress(TelemagicError):  # none, several, or gone: the checks say so
        connection = session.current(args.context)
        device = connection.status.device
    machine = examine_machine(Machine(), {device}, kubeconfig_path=args.kubeconfig, context=args.context)
    return Diagnosis([*machine, *examine_connection(connection)])
