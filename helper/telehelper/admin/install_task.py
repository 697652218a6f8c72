"""`python -m telehelper.admin install`: the command line of :mod:`telehelper.admin.install`."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict

from telehelper.admin import manifests
from telehelper.admin.install import ROLLOUT_TIMEOUT, Step, install, uninstall
from telehelper.admin.lines import say
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m telehelper.admin install", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="one path, or several separated by colons")
    parser.add_argument("--context", default="", help="the kubeconfig's own by default")
    parser.add_argument("--namespace", default=manifests.NAMESPACE)
    parser.add_argument("--image", default=manifests.IMAGE)
    parser.add_argument("--timeout", type=float, default=ROLLOUT_TIMEOUT, help="seconds for the rollout")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--uninstall", action="store_true")
    return parser.parse_args(arguments)


def _tell(step: Step) -> None:
    say(asdict(step))


async def _run(options: argparse.Namespace) -> None:
    access = await asyncio.to_thread(ApiAccess.from_kubeconfig, options.kubeconfig, options.context)
    async with ApiClient(access) as api:
        if options.uninstall:
            await uninstall(api, _tell, namespace=options.namespace, dry_run=options.dry_run)
        else:
            await install(
                api,
                _tell,
                namespace=options.namespace,
                image=options.image,
                dry_run=options.dry_run,
                patience=options.timeout,
            )


def main(arguments: list[str]) -> dict[str, object]:
    """Install or uninstall; tells each step. Returns the objects as YAML."""
    options = _arguments(arguments)
    wanted = manifests.manifests(options.namespace, options.image)
    asyncio.run(_run(options))
    return {"yaml": manifests.to_yaml(wanted)}
