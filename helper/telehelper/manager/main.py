"""The manager's process: settings, signals, and one line when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys

import uvloop

from telehelper.errors import HelperMissing, TelemagicError
from telehelper.kube.access import ApiAccess
from telehelper.kube.client import ApiClient
from telehelper.manager.audit import AuditLog
from telehelper.manager.config import ManagerConfig, parse_config
from telehelper.manager.manager import Manager

audit = AuditLog(2)  # standard error, where Kubernetes collects it


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as may be had: containers often begin with 1024, and a flow is one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # what there is must do, then
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _access(config: ManagerConfig) -> ApiAccess | None:
    if not config.api_host:
        return None
    try:
        return ApiAccess.in_cluster(config.service_account, config.api_host, config.api_port)
    except (OSError, TelemagicError) as error:
        audit(f"no access to the API server: {error}")
        return None


async def serve(config: ManagerConfig) -> None:
    """Run a manager until SIGTERM or SIGINT; OSError or HelperMissing if it cannot listen."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        access = _access(config)
        reader = None if access is None else await stack.enter_async_context(ApiClient(access))
        manager = Manager(config, audit, reader=reader)
        await manager.start()
        also = "".join(f" {endpoint}" for endpoint in manager.listening)
        sys.stdout.write(f"ready grpc={manager.grpc_port} carrier={manager.carrier_port}{also}\n")
        sys.stdout.flush()
        await stop.wait()
        audit("draining")
        await manager.drain()


def main() -> int:
    """Run the manager; return the process's exit status."""
    _raise_descriptor_limit()
    try:
        uvloop.run(serve(parse_config(sys.argv[1:], os.environ)))
    except (OSError, HelperMissing) as error:
        audit(f"cannot listen: {error}")
        return 1
    finally:
        audit.flush()
    return 0
