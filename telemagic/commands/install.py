"""`%tele install`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.errors import TelemagicError

from telemagic import admin, kubeconfig
from telemagic.installed import Installed, Step

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "put a traffic manager into a cluster, or take it out"
DETAIL = """\
Applies a handful of small objects: a namespace, a Deployment that needs no privilege, a ClusterRole that may only read
networks, and a Role with just what users need to connect. What your rights do not suffice for, and can be done
without, is skipped and named. Running it again changes only what differs. Without a manager, connect still works
where you may port-forward to pods (--via agentless), more slowly and for TCP only."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of install."""
    parser.add_argument(
        "--context", default="", metavar="NAME", help="context of the kubeconfig; its own by default"
    )
    parser.add_argument(
        "--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config"
    )
    parser.add_argument(
        "-n", "--namespace", default="telemagic", metavar="NAME", help="where it runs; default: telemagic"
    )
    parser.add_argument("--image", default="", metavar="IMAGE", help="the manager's image, if it is your own")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="default: 120")
    parser.add_argument(
        "--dry-run", action="store_true", help="have the API server check it, change nothing, show the YAML"
    )
    parser.add_argument("--uninstall", action="store_true", help="take out what was put in")


def run(session: Session, args: Namespace) -> Installed:
    """Install or uninstall."""
    found = kubeconfig.read(args.kubeconfig)
    context = found.choose(args.context)
    arguments = ["--kubeconfig", found.search, "--context", context.name, "--namespace", args.namespace]
    arguments += ["--timeout", str(args.timeout)]
    arguments += ["--image", args.image] if args.image else []
    arguments += ["--dry-run"] if args.dry_run else []
    arguments += ["--uninstall"] if args.uninstall else []
    steps: list[Step] = []
    try:
        done = admin.run("install", arguments, lambda step: steps.append(Step(**step)))
    except TelemagicError as error:
        if made := [step.object for step in steps if step.state in ("created", "configured")]:
            error.hint += f"; {', '.join(made)} is there now: install --uninstall takes out what is"
        raise
    what = "Uninstalled from" if args.uninstall else "Installed into"
    if args.dry_run:
        what = f"Dry run, nothing was changed; would be {what.lower()}"
    title = f"{what} {context.name}, namespace {args.namespace}"
    return Installed(title, steps, done["yaml"], show_yaml=args.dry_run)
