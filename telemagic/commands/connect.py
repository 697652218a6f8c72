"""`%tele connect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemagic.config import DNS_MECHANISMS, ON_CONFLICT, WAYS
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.connection import Connection
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "connect to a cluster"
DETAIL = """\
Afterwards postgres.shop, or postgres in the connected namespace, is a name like any other. Asks for your login
password if sudo needs it; an empty line cancels. Shows each phase, and leaves nothing behind when it fails."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of connect."""
    parser.add_argument(
        "--context", default="", metavar="NAME", help="context of the kubeconfig; its own by default"
    )
    parser.add_argument(
        "-n", "--namespace", default="", metavar="NAME", help="namespace whose short names resolve"
    )
    parser.add_argument(
        "--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config"
    )
    parser.add_argument("--demo", action="store_true", help="start an embedded cluster and connect to that")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="default: 30")
    for flag, what in (
        ("--also-proxy", "send this to the cluster too"),
        ("--never-proxy", "keep this from the cluster"),
        ("--cidr", "the cluster's networks are these, look for no others"),
    ):
        parser.add_argument(flag, action="append", default=[], metavar="CIDR", help=f"{what}; repeatable")
    parser.add_argument(
        "--allow-wide", action="store_true", help="let --cidr and --also-proxy be wider than /8 (IPv6: /16)"
    )
    parser.add_argument(
        "--on-conflict",
        choices=ON_CONFLICT,
        default="refuse",
        help="a network of the cluster is this machine's already: refuse (default), take it, exclude it, or map it",
    )
    _add_way_in(parser)


def _add_way_in(parser: Parser) -> None:
    parser.add_argument(
        "--via",
        choices=WAYS,
        default="auto",
        help="how to get in; default: a traffic manager, else agentless",
    )
    parser.add_argument(
        "--manager-namespace", default="telemagic", metavar="NAME", help="where the traffic manager is"
    )
    parser.add_argument(
        "--dns", choices=DNS_MECHANISMS, default="auto", help="how names resolve; default: auto"
    )
    parser.add_argument(
        "--carrier",
        default="portforward",
        metavar="WAY",
        help="how data travels: portforward (default), or tls://HOST:PORT or tcp://HOST:PORT of the manager's own",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="let other users of this machine, and its containers, use the connection too",
    )


def run(session: Session, args: Namespace) -> Connection:
    """Connect."""
    options = ConnectOptions(
        args.context,
        args.namespace,
        args.kubeconfig,
        args.timeout,
        tuple(args.also_proxy),
        tuple(args.never_proxy),
        args.dns,
        carrier=args.carrier,
        cidrs=tuple(args.cidr),
        on_conflict=args.on_conflict,
        via=args.via,
        manager_namespace=args.manager_namespace,
        share=args.share,
        allow_wide=args.allow_wide,
    )
    return session.connect(options, demo=args.demo)
