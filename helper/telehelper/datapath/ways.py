"""The ways into a cluster, behind one interface: which there are, and which one to take.

Through our manager, or without one: each TCP connection a port-forward of its own, names from the API. ``--via auto``
takes the manager if there is a ready one that we may forward a port to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from telehelper.datapath.agentless.uplink import open_agentless
from telehelper.datapath.cluster import find_manager
from telehelper.datapath.host_dns import read_host_dns
from telehelper.datapath.openers import choose_opener
from telehelper.datapath.tunnel import Uplink
from telehelper.datapath.uplink import open_uplink
from telehelper.endpoint import PORTFORWARD
from telehelper.errors import ClusterError, CredentialsRefused, ManagerUnavailable, UsageError
from telehelper.kube.client import ApiNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from telehelper.core.frames import Address
    from telehelper.datapath.openers import CarrierOpener
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.kube.client import ApiClient
    from telehelper.messages import Connect
    from telehelper.rpc.manager_pb2 import ClusterInfo

LIMITS: Final = (
    "agentless: TCP to services and pods only; no UDP, no ping, nothing outside the cluster's pods",
    "agentless: names come from the Kubernetes API; ExternalName and other outside names are this machine's own",
    "agentless: each connection is a port-forward, and closing only one direction (half-close) is not passed on",
)


class ClusterUplink(Uplink, Protocol):
    """An uplink that knows what it leads to."""

    @property
    def manager(self) -> str:
        """The traffic manager at its end, NAMESPACE/POD; empty if there is none."""

    @property
    def manager_version(self) -> str:
        """Its version; empty if there is none."""

    async def wait_info(self) -> ClusterInfo:
        """Wait for the first word on the cluster's networks and names."""


class WayIn(Protocol):
    """One way into a cluster; each use opens an uplink."""

    @property
    def via(self) -> str:
        """What ``--via`` calls it."""

    @property
    def carrier(self) -> str:
        """What ``--carrier`` calls how its carriers are opened."""

    @property
    def addresses(self) -> Sequence[Address]:
        """The addresses that it connects to itself, besides the API server: they must never be routed."""

    @property
    def detail(self) -> str:
        """What it has led to, in a few words; complete once an uplink is open."""

    @property
    def notices(self) -> Sequence[str]:
        """What the user should know of its limits, one line each."""

    async def open(self, tunnel: Tunnel) -> ClusterUplink:
        """Open an uplink that reports to `tunnel`; a ClusterError if that fails."""


class ManagerWay:
    """Through a traffic manager in the cluster."""

    via = "manager"
    notices: Sequence[str] = ()

    def __init__(self, api: ApiClient, namespace: str, relay_path: Path, opener: CarrierOpener) -> None:
        self._api = api
        self._namespace = namespace
        self._relay_path = relay_path
        self._opener = opener
        self._manager = ""

    @property
    def carrier(self) -> str:
        """See :class:`WayIn`."""
        return str(self._opener)

    @property
    def addresses(self) -> Sequence[Address]:
        """See :class:`WayIn`."""
        return self._opener.addresses

    @property
    def detail(self) -> str:
        """See :class:`WayIn`."""
        return f"{self.via} {self._manager}, carriers by {self.carrier}"

    async def open(self, tunnel: Tunnel) -> ClusterUplink:
        """See :class:`WayIn`."""
        uplink = await open_uplink(tunnel, self._api, self._namespace, self._relay_path, self._opener)
        self._manager = uplink.manager
        return uplink


class AgentlessWay:
    """Without a traffic manager: a port-forward for each connection, by the user's own rights.

    Parameters
    ----------
    api
        With the user's own rights.
    namespace
        Where to look if not everywhere may be.
    why
        Why there is no manager to go through; empty if none was wanted.
    nameservers
        The machine's own, as they are before us.
    """

    via = "agentless"
    carrier = PORTFORWARD
    addresses: Sequence[Address] = ()

    def __init__(self, api: ApiClient, namespace: str, why: str, nameservers: Sequence[str]) -> None:
        self._api = api
        self._namespace = namespace
        self._why = why
        self._nameservers = nameservers
        self._scope = ""

    @property
    def detail(self) -> str:
        """See :class:`WayIn`."""
        because = f": {self._why}" if self._why else ""
        return f"{self.via}, {self._scope}{because}"

    @property
    def notices(self) -> Sequence[str]:
        """See :class:`WayIn`."""
        why = (f"agentless, because {self._why}",) if self._why else ()
        return (*why, *LIMITS, f"agentless: what is visible is {self._scope}")

    async def open(self, tunnel: Tunnel) -> ClusterUplink:
        """See :class:`WayIn`."""
        uplink = await open_agentless(tunnel, self._api, self._namespace, self._nameservers)
        self._scope = uplink.scope
        return uplink


async def choose_way(request: Connect, api: ApiClient, relay_path: Path) -> WayIn:
    """Return the way that ``--via`` names, or the best there is.

    Raises
    ------
    UsageError
        ``--carrier`` does not fit.
    ManagerUnavailable
        ``--carrier`` names an endpoint whose name does not resolve.
    CredentialsRefused
        Ports may be forwarded to no pod of the namespace, so nothing could be reached.
    """
    if request.via == "agentless":
        if request.carrier != PORTFORWARD:
            raise UsageError(
                f"--carrier {request.carrier} leads to a traffic manager, and --via agentless is without one",
                hint="leave out --carrier, or use --via manager",
            )
        return await _agentless(request, api, "")
    opener = await choose_opener(request.carrier, api)
    manager = ManagerWay(api, request.manager_namespace, relay_path, opener)
    if request.via == "manager" or request.carrier != PORTFORWARD:
        return manager
    why = await _why_no_manager(api, request.manager_namespace)
    return await _agentless(request, api, why) if why else manager


async def _why_no_manager(api: ApiClient, namespace: str) -> str:
    """Return why there is no manager to go through; empty if there is one.

    An error that another way would meet too is raised later, by what opens the manager's.
    """
    try:
        pod = await find_manager(api, namespace)
    except ManagerUnavailable as error:
        return error.message
    except CredentialsRefused as error:
        is_forbidden = error.data.get("status") == "403"
        return f"you may not look for a traffic manager in namespace {namespace!r}" if is_forbidden else ""
    except ClusterError:
        return ""
    try:
        stream = await api.portforward(pod.namespace, pod.name, pod.grpc_port)
    except ApiNotFound:
        return f"the traffic manager {pod.namespace}/{pod.name} has just gone"
    except CredentialsRefused as error:
        is_forbidden = error.data.get("status") == "403"
        return (
            f"you may not forward ports to the traffic manager {pod.namespace}/{pod.name}"
            if is_forbidden
            else ""
        )
    except ClusterError:
        return ""
    await stream.close()
    return ""


async def _agentless(request: Connect, api: ApiClient, why: str) -> AgentlessWay:
    namespace = request.namespace or api.access.namespace
    missing = await api.missing_verbs(namespace, "pods", "portforward", ("get", "create"))
    if "get" in missing:  # before Kubernetes 1.35 a WebSocket takes only that
        raise CredentialsRefused(
            f"you may not forward ports to the pods of namespace {namespace!r}"
            + (f", and {why}" if why else ""),
            hint=f"ask for a Role in {namespace!r} with get and create on pods/portforward, or for telemagic's own",
        )
    return AgentlessWay(api, namespace, why, read_host_dns().nameservers)
