"""`%tele demo`: the embedded cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.errors import UsageError

from telemagic.results import Text

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.demo import DemoStatus
    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "start, end or look at the embedded cluster"
DETAIL = """\
up      start it and keep it until `demo down`
down    end it
status  show which are there
shell   (telemagic only) run a command, or a shell, in a sandbox beside it: telemagic demo shell -- COMMAND"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of demo."""
    parser.add_argument("action", choices=("up", "down", "status", "shell"), metavar="up|down|status|shell")
    parser.add_argument("--name", default="demo", help="of the demo cluster; default: demo")
    parser.add_argument("--ipv4-only", action="store_true", help="up: a cluster without IPv6")
    parser.add_argument("--no-cluster", action="store_true", help="shell: the sandbox alone")
    parser.add_argument("argv", nargs="*", metavar="COMMAND", help="shell: what to run; default: $SHELL")


def run(session: Session, args: Namespace) -> object:
    """Carry out one action; `shell` returns an exit status."""
    if args.argv and args.action != "shell":
        raise UsageError(
            f"demo {args.action} takes no argument {args.argv[0]!r}", hint=f"{session.prog} help demo"
        )
    from telemagic import demo  # late: its packages are an extra

    if args.action == "shell":
        if session.prog != "telemagic":
            raise UsageError("demo shell needs a terminal", hint="in one: telemagic demo shell")
        return demo.shell(args.name, args.argv, cluster=not args.no_cluster)
    if args.action == "up":
        with demo.ensure(name=args.name, owned=False, ipv4_only=args.ipv4_only):
            (up,) = (one for one in demo.status() if one.name == args.name)
        return Text(f"demo cluster {up.name} is up: {_where(up)}")
    if args.action == "down":
        demo.down(args.name)
        return Text(f"demo cluster {args.name} is down")
    lines = [f"{one.name}: {one.ready}, {_where(one)}" for one in demo.status()]
    return Text("\n".join(lines) or "no demo cluster is up")


def _where(demo: DemoStatus) -> str:
    return f"context {demo.context} in {demo.kubeconfig}{'' if demo.has_ipv6 else ', IPv4 only'}"
