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

SUMMARY = "start, end, look at or break the embedded cluster"
DETAIL = """\
up      start it and keep it until `demo down`
down    end it
status  show which are there (default)
shell   (telemagic only) run a command, or a shell, in a sandbox beside it: telemagic demo shell -- COMMAND
break   make something fail, to see what happens: demo break FAULT, where FAULT is one of
        api-stop           the API server refuses connections, and those there are get cut
        api-html           it answers with a web page, as a login portal in the way does
        api-truncated      its answers end in their middle
        websocket-refused  it forwards no ports, as behind a proxy that knows no WebSockets
        token-expired      it does not know the tokens in the kubeconfigs any more
        token-renewed      the kubeconfigs get new ones
        forbid             nobody may do --verb VERB with --resource RESOURCE
        manager-killed     the manager's process is killed
        pod-deleted        the pods of --app APP are deleted, and new ones take their place
        manager-frozen     the manager's process stands still
        carriers-cut       all port-forwards are broken: control connection and carriers
        carriers-frozen    nothing passes through port-forwards any more, and nobody is told
        carriers-slow      1 KB/s passes through each port-forward
        carriers-corrupt   bytes are changed on their way
        carriers-dribble   bytes pass one by one
        clear              all of it is over"""
KINDS = "kubeadm, kubeadm-old, k3s, eks, gke, aks, calico, cilium, openshift, dual-stack"
_KIND = f"up: show its networks as this kind of cluster does: {KINDS}"


def add_arguments(parser: Parser) -> None:
    """Add the arguments of demo."""
    actions = ("up", "down", "status", "shell", "break")
    parser.add_argument("action", nargs="?", default="status", choices=actions, metavar="|".join(actions))
    parser.add_argument("--name", default="demo", help="of the demo cluster; default: demo")
    parser.add_argument("--ipv4-only", action="store_true", help="up: a cluster without IPv6")
    parser.add_argument("--like", default="", metavar="KIND", help=_KIND)
    parser.add_argument("--no-manager", action="store_true", help="up: without telemagic's manager in it")
    parser.add_argument("--no-cluster", action="store_true", help="shell: the sandbox alone")
    parser.add_argument("--seconds", type=float, help="break: until then; default: until `demo break clear`")
    parser.add_argument("--verb", help="break forbid: get, list, create, … or *")
    parser.add_argument("--resource", help="break forbid: nodes, pods/portforward, … or *")
    parser.add_argument("--app", help="break pod-deleted: postgres, catalog, coredns or traffic-manager")
    parser.add_argument(
        "argv", nargs="*", metavar="COMMAND|FAULT", help="shell: what to run; default: $SHELL"
    )


def run(session: Session, args: Namespace) -> object:
    """Carry out one action; `shell` returns an exit status."""
    if args.argv and args.action not in ("shell", "break"):
        raise UsageError(
            f"demo {args.action} takes no argument {args.argv[0]!r}", hint=f"{session.prog} help demo"
        )
    from telemagic import demo  # late: its packages are an extra

    if args.action == "shell":
        if session.prog != "telemagic":
            raise UsageError("demo shell needs a terminal", hint="in one: telemagic demo shell")
        return demo.shell(args.name, args.argv, cluster=not args.no_cluster)
    if args.action == "break":
        return _break(session, args)
    if args.action == "up":
        with demo.ensure(
            name=args.name,
            owned=False,
            ipv4_only=args.ipv4_only,
            like=args.like,
            no_manager=args.no_manager,
        ):
            (up,) = (one for one in demo.status() if one.name == args.name)
        return Text(f"demo cluster {up.name} is up: {_where(up)}")
    if args.action == "down":
        demo.down(args.name)
        return Text(f"demo cluster {args.name} is down")
    lines = [f"demo cluster {one.name}: {one.ready} pods ready\n  {_where(one)}" for one in demo.status()]
    return Text("\n".join(lines) or f"no demo cluster is up\n  try: {session.prog} demo up")


def _break(session: Session, args: Namespace) -> Text:
    from telemagic import demo

    if len(args.argv) != 1:
        raise UsageError("demo break needs one fault", hint=f"{session.prog} help demo")
    (fault,) = args.argv
    given = {name: getattr(args, name) for name in ("seconds", "verb", "resource", "app")}
    options = {name: value for name, value in given.items() if value is not None}
    with demo.find(args.name) as found:
        found.fault(fault, **options)
    if fault == "clear":
        return Text(f"demo cluster {args.name} works again")
    return Text(f"demo cluster {args.name}: {fault}")


def _where(demo: DemoStatus) -> str:
    return f"context {demo.context} in {demo.kubeconfig}{'' if demo.has_ipv6 else ', IPv4 only'}"
