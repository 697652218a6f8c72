"""How a connection stands: from what it consists of to the status that kernels are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.core.frames import UNKNOWN
from telehelper.datapath.report import cidr_rows
from telehelper.messages import Status

if TYPE_CHECKING:
    from telehelper.datapath.tunnel import Tunnel
    from telehelper.datapath.vif import Vif
    from telehelper.datapath.ways import ClusterUplink, WayIn
    from telehelper.kube.access import ApiAccess
    from telehelper.rpc.manager_pb2 import ClusterInfo


def describe(
    vif: Vif,
    tunnel: Tunnel,
    access: ApiAccess | None,
    way: WayIn | None,
    uplink: ClusterUplink | None,
    info: ClusterInfo | None,
) -> Status:
    """Describe what there is of a connection; what only the data plane itself knows (its state, notices) is left empty.

    Parameters
    ----------
    vif, tunnel
        Its two ends.
    access, way, uplink, info
        The API server, the way in, what it led to, and what is known of the cluster; None as long as there is none.
    """
    totals, router, rtt = vif.totals, vif.router, tunnel.rtt
    return Status(
        state="",
        context=access.context if access else "",
        namespace="",
        server=access.server if access else "",
        via=way.via if way else "",
        manager=uplink.manager if uplink else "",
        manager_version=uplink.manager_version if uplink else "",
        device=vif.name,
        address=str(router.address or ""),
        address_v6=str(router.address_v6 or ""),
        dns=vif.namer.mechanism,
        dns_server=str(router.resolver or ""),
        domains=vif.namer.domains,
        cluster_domain=info.cluster_domain if info else "",
        connected_at=0.0,
        rtt=UNKNOWN if rtt is None else rtt,
        carriers=tunnel.carriers,
        flows_open=vif.open_flows,
        flows_total=totals.flows,
        bytes_up=totals.bytes_up,
        bytes_down=totals.bytes_down,
        cidrs=cidr_rows(info) if info else (),
        offload=vif.offload,
        carrier=way.carrier if way else "",
    )
