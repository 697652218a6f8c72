"""The manager's process: settings, signals, and one line when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import uvloop

from telehelper.errors import TelemagicError
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.manager.config import ManagerConfig, parse_config
from telehelper.manager.manager import Manager


def audit(line: str) -> None:
    """Write one line to standard error, where Kubernetes collects it."""
    with contextlib.suppress(OSError):  # nobody reads it: no reason to stop carrying
        sys.stderr.write(line + "\n")


def _access(config: ManagerConfig) -> ApiAccess | None:
    if not config.api_host:
        return None
    try:
        return ApiAccess.in_cluster(config.service_account, config.api_host, config.api_port)
    except (OSError, TelemagicError) as error:
        audit(f"no access to the API server: {error}")
        return None


async def serve(config: ManagerConfig) -> None:
    """Run a manager until SIGTERM or SIGINT; OSError if a port is taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        access = _access(config)
        reader = None if access is None else await stack.enter_async_context(ApiClient(access))
        manager = Manager(config, audit, reader=reader)
        await manager.start()
        sys.stdout.write(f"ready grpc={manager.grpc_port} carrier={manager.carrier_port}\n")
        sys.stdout.flush()
        await stop.wait()
        audit("draining")
        await manager.drain()


def main() -> int:
    """Run the manager; return the process's exit status."""
    try:
        uvloop.run(serve(parse_config(sys.argv[1:], os.environ)))
    except OSError as error:
        audit(f"cannot listen: {error}")
        return 1
    return 0
