"""`%tele doctor`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from telehelper.errors import TelemagicError

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.connection import Connection
    from telemagic.doctor.diagnosis import Diagnosis
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "check this machine, the cluster and the connection"
DETAIL = """\
Changes nothing, and ends within ten seconds. An interface is made, tried and gone again in namespaces of its own; sudo is
asked whether it needs a password; the API server is asked what you may do. The result's `frame` is a DataFrame. From a
shell the exit status is 1 if there is a problem."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of doctor."""
    parser.add_argument(
        "--context", default="", metavar="NAME", help="context to look up, and connection to look at"
    )
    parser.add_argument(
        "--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config"
    )
    parser.add_argument(
        "--manager-namespace", default="", metavar="NAME", help="where the traffic manager is"
    )


def run(session: Session, args: Namespace) -> Diagnosis:
    """Examine the machine, the cluster, and the connection if there is one."""
    from telemagic.doctor import cluster
    from telemagic.doctor.checks import examine_machine
    from telemagic.doctor.connected import examine_connection
    from telemagic.doctor.diagnosis import Diagnosis
    from telemagic.doctor.machine import Machine

    connection = None
    with contextlib.suppress(TelemagicError):  # none, several, or gone: the checks say so
        connection = session.current(args.context)
    ours = {_device_of(one) for one in (connection, session.connection) if one is not None}
    question = cluster.choose(connection, args.kubeconfig, args.context)
    if question is not None and args.manager_namespace:
        question = question._replace(manager_namespace=args.manager_namespace)
    checkup = cluster.Checkup(question) if question is not None else None
    machine = examine_machine(Machine(), ours, kubeconfig_path=args.kubeconfig, context=args.context)
    connected = examine_connection(connection)
    there = checkup.wait() if checkup is not None else ()
    cluster_name = f"Cluster {question.context}" if question is not None else "Cluster"
    return Diagnosis.of({"This machine": machine, cluster_name: there, "Connection": connected})


def _device_of(connection: Connection) -> str:
    with contextlib.suppress(TelemagicError):  # it is lost: its device has gone
        device: str = connection.status.device
        return device
    return ""
