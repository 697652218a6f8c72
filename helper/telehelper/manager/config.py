"""The manager's settings, and its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from telehelper.endpoint import Endpoint, parse_endpoint
from telehelper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from telehelper.core.frames import Address

GRPC_PORT: Final = 8081
CARRIER_PORT: Final = 8082
EXPIRY: Final = 60.0  # seconds a session outlives its last stream or carrier: a reconnect with back-off fits
GRACE: Final = 5.0  # seconds between GOAWAY and the end; within the 30 s that Kubernetes gives a pod
POLL_INTERVAL: Final = 10.0  # seconds between two looks at what may not be watched
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes mounts it


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """Everything the manager is told; times are seconds, port 0 means any."""

    grpc_port: int = GRPC_PORT
    carrier_port: int = CARRIER_PORT
    carrier_listen: tuple[Endpoint, ...] = ()  # besides the loopback
    resolv_conf: Path = Path("/etc/resolv.conf")
    service_account: Path = SERVICE_ACCOUNT
    api_host: str = ""  # empty: there is no API server to ask
    api_port: int = 443
    expiry: float = EXPIRY
    grace: float = GRACE
    poll_interval: float = POLL_INTERVAL
    allow_loopback: bool = False
    node_addresses: tuple[Address, ...] = ()  # not to be dialed


def parse_config(argv: Sequence[str], environ: Mapping[str, str]) -> ManagerConfig:
    """Read the command line; where the API server is comes from the environment, as in every pod."""
    parser = argparse.ArgumentParser(
        prog="python -m telehelper.manager", description="telemagic's traffic manager"
    )
    parser.add_argument(
        "--grpc-port", type=int, default=GRPC_PORT, help="control, on 127.0.0.1 (default %(default)s)"
    )
    parser.add_argument(
        "--carrier-port", type=int, default=CARRIER_PORT, help="carriers, on 127.0.0.1 (%(default)s)"
    )
    parser.add_argument(
        "--carrier-listen",
        type=_endpoint,
        action="append",
        default=[],
        metavar="tcp://HOST:PORT|tls://HOST:PORT",
        help="carriers here too, from whoever has a session's token; repeatable",
    )
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="the pod's own")
    parser.add_argument(
        "--service-account", type=Path, default=SERVICE_ACCOUNT, help="directory: token, ca.crt, namespace"
    )
    parser.add_argument(
        "--expiry", type=float, default=EXPIRY, help="seconds an unused session lives (%(default)s)"
    )
    parser.add_argument(
        "--grace", type=float, default=GRACE, help="seconds from SIGTERM to the end (%(default)s)"
    )
    parser.add_argument(
        "--poll-interval",
        type=float,
        default=POLL_INTERVAL,
        help="seconds between two looks at what may not be watched",
    )
    parser.add_argument(
        "--allow-loopback", action="store_true", help="for tests: dial this pod's own loopback too"
    )
    parser.add_argument(
        "--allow-node", action="store_true", help="dial the node's own addresses ($NODE_IPS) too"
    )
    args = parser.parse_args(argv)
    args.carrier_listen = tuple(args.carrier_listen)
    node = "" if vars(args).pop("allow_node") else environ.get("NODE_IPS", "")
    return ManagerConfig(
        **vars(args),
        node_addresses=tuple(ip_address(text) for text in node.split(",") if text),
        api_host=environ.get("KUBERNETES_SERVICE_HOST", ""),
        api_port=int(environ.get("KUBERNETES_SERVICE_PORT", "443")),
    )


def _endpoint(text: str) -> Endpoint:
    try:
        return parse_endpoint(text, lowest_port=0)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.message}; {error.hint}") from error
