"""What was discovered as the message that the manager sends and the data plane works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telehelper.rpc import manager_pb2 as pb

if TYPE_CHECKING:
    from telehelper.discovery.conclusions import Discovered


def to_message(info: Discovered) -> pb.ClusterInfo:
    """Put what was discovered into its message."""
    return pb.ClusterInfo(
        cidrs=[
            pb.Cidr(cidr=c.cidr, kind=c.kind, source=c.source, confidence=c.confidence) for c in info.cidrs
        ],
        dns_server=info.dns_server,
        cluster_domain=info.cluster_domain,
        namespaces=info.namespaces,
        notices=info.notices,
    )
