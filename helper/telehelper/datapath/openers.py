"""How a carrier is opened: by port-forward through the API server, or straight to a listener of the manager.

The control connection goes by port-forward in any case, so the right to forward ports stays the lock; the token that
it brings, and for TLS the fingerprint of the manager's certificate, make direct carriers possible at all.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from telehelper.endpoint import PORTFORWARD, Endpoint, parse_carrier
from telehelper.errors import ManagerUnavailable
from telehelper.tcp_stream import connect_tcp
from telehelper.tls_stream import connect_tls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telehelper.byte_stream import ByteStream
    from telehelper.core.frames import Address
    from telehelper.datapath.cluster import ManagerPod
    from telehelper.datapath.registration import Registration
    from telehelper.kube.client import ApiClient

CONNECT_TIMEOUT: Final = 5.0  # seconds for TCP and TLS to one address


class CarrierOpener(Protocol):
    """One way to open carriers."""

    @property
    def addresses(self) -> Sequence[Address]:
        """The addresses that it connects to itself: they must never be routed into the tunnel."""

    async def open(self, pod: ManagerPod, session: Registration) -> ByteStream:
        """Open a connection to the manager that is ready for HELLO; a ClusterError if that fails."""

    def hop(self, pod: ManagerPod) -> str:
        """Say in words what it leads to and over what, for who is told that it broke."""

    def __str__(self) -> str:
        """Return what ``--carrier`` calls it."""


class PortForwardOpener:
    """Opens a port-forward for each carrier."""

    addresses: Sequence[Address] = ()  # the API server's are kept out of the tunnel anyway

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def open(self, pod: ManagerPod, session: Registration) -> ByteStream:
        """See :class:`CarrierOpener`."""
        return await self._api.portforward(pod.namespace, pod.name, pod.carrier_port)

    def hop(self, pod: ManagerPod) -> str:
        """See :class:`CarrierOpener`."""
        return f"traffic manager {pod.namespace}/{pod.name}, through API server {self._api.access.host}"

    def __str__(self) -> str:
        return PORTFORWARD


class DirectOpener:
    """Connects to an endpoint, at the addresses that its name had when we connected.

    They stay the same for the connection's whole life, because the routes leave out just these.
    """

    def __init__(self, endpoint: Endpoint, addresses: Sequence[Address]) -> None:
        self.addresses = addresses
        self._endpoint = endpoint

    async def open(self, pod: ManagerPod, session: Registration) -> ByteStream:
        """See :class:`CarrierOpener`."""
        if self._endpoint.is_encrypted and not session.carrier_fingerprint:
            raise ManagerUnavailable(
                f"the traffic manager {pod.namespace}/{pod.name} has no TLS listener",
                hint="start it with --carrier-listen tls://HOST:PORT, or connect with --carrier portforward",
            )
        failures = []
        for address in self.addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    return await self._connect(str(address), session.carrier_fingerprint)
            except OSError as error:  # TimeoutError is one
                failures.append(error)
        raise ManagerUnavailable(
            f"{self._endpoint} does not take carriers: {', '.join(dict.fromkeys(map(_why, failures)))}",
            hint="check the address, and that the manager listens there (--carrier-listen); or --carrier portforward",
        ) from failures[-1]

    def hop(self, pod: ManagerPod) -> str:
        """See :class:`CarrierOpener`."""
        return f"traffic manager {pod.namespace}/{pod.name}, at {self._endpoint}"

    async def _connect(self, host: str, fingerprint: str) -> ByteStream:
        if self._endpoint.is_encrypted:
            return await connect_tls(host, self._endpoint.port, fingerprint)
        return await connect_tcp(host, self._endpoint.port)

    def __str__(self) -> str:
        return str(self._endpoint)


async def choose_opener(carrier: str, api: ApiClient) -> CarrierOpener:
    """Return the way that ``--carrier`` names.

    Raises
    ------
    UsageError
        It names none.
    ManagerUnavailable
        The endpoint's name does not resolve.
    """
    endpoint = parse_carrier(carrier)
    if endpoint is None:
        return PortForwardOpener(api)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port)
    except OSError as error:
        raise ManagerUnavailable(
            f"the name in {endpoint} does not resolve: {error.strerror}", hint="check --carrier"
        ) from error
    return DirectOpener(endpoint, tuple(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found)))


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS 1.3 there ({error.reason or error.strerror})"
    # Event loops put words of their own into strerror.
    return os.strerror(error.errno).lower() if error.errno else str(error) or "no answer in time"
