"""The names policy: which names are the cluster's, and under what full names to ask for them.

Theory of operation
-------------------
The resolver (:mod:`telehelper.core.dns_resolver`) is the only nameserver that programs on this machine see, or one
of several by suffix. It must answer the short forms that work inside a pod, because not every libc walks the search
list for a name with a dot (musl never does, nss-resolve does not, platform DNS comes first otherwise):

=========================  =================================  ===========================
asked                      the cluster is asked for           and on NXDOMAIN
=========================  =================================  ===========================
``svc``                    ``svc.<namespace>.svc.<domain>``   that is the answer
``_port._proto.svc``       the same way                       that is the answer
``svc.ns``, ``pod.svc.ns``  ``….svc.<domain>``                 the machine's own DNS, if any
``_port._proto.svc.ns``    the same way                       the same
``….svc``, ``….pod``       ``….<domain>``                     that is the answer
``….<domain>``             itself                             that is the answer
PTR of a cluster address   itself                             that is the answer
everything else            nothing                            the machine's own DNS
=========================  =================================  ===========================

``ns`` must be a namespace that exists. A namespace may be called like a top-level domain (``dev``, ``app``, ``io``):
the public ``foo.dev`` stays reachable because the cluster's NXDOMAIN sends the question on. A cluster that does not
answer does *not* send it on: a stranger's ``postgres.dev`` must never get the password meant for ours.
Names are compared by labels: ``mycluster.local`` is not under ``cluster.local``.

Of the cluster's answers, an IPv6 address that is in no network routed to the cluster is left out (`reachable`).
Programs try IPv6 first, and would wait for an address that the cluster meant for its own pods, or that went another way
to a stranger. IPv4 addresses stay as they are: there is nothing to try after them. So an ``ExternalName`` outside has
its IPv4 addresses only.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import cidr
from telehelper.core.dns_message import AAAA, MAX_NAME, Name, from_text, to_text, wire_length

if TYPE_CHECKING:
    from telehelper.core.cidr import Network
    from telehelper.core.dns_message import Record, Response

_SVC: Final = b"svc"
_POD: Final = b"pod"
_TRANSPORTS: Final = (b"_tcp", b"_udp", b"_sctp")  # the protocols of a Kubernetes service port


class Decision(NamedTuple):
    """Whom to ask, in order: the cluster for each of these names, then, if `upstream`, the machine's own DNS."""

    cluster: tuple[Name, ...]
    upstream: bool


def search_list(namespace: str, domain: str) -> tuple[str, ...]:
    """Return the search list of a pod, for the host's ``resolv.conf``; use it with ``ndots:1``."""
    base = domain.strip(".").lower()
    return f"{namespace}.svc.{base}", f"svc.{base}", base


def _reverse_v4(labels: Name) -> Network | None:
    """Return the network of the labels before ``in-addr.arpa`` (RFC 1035 §3.5), None if they name none."""
    texts = [label.decode("ascii", "replace") for label in reversed(labels)]
    if not 0 < len(texts) <= 4 or not all(t.isascii() and t.isdigit() and len(t) <= 3 for t in texts):
        return None
    octets = [int(text) for text in texts]
    if max(octets) > 255:
        return None
    packed = bytes(octets) + bytes(4 - len(octets))
    return IPv4Network((packed, 8 * len(octets)))


def _reverse_v6(labels: Name) -> Network | None:
    """Return the network of the labels before ``ip6.arpa`` (RFC 3596 §2.5), None if they name none."""
    digits = b"".join(reversed(labels))
    if not 0 < len(labels) <= 32 or len(digits) != len(labels) or digits.strip(b"0123456789abcdef"):
        return None
    return IPv6Network((int(digits.ljust(32, b"0"), 16), 4 * len(labels)))


def reverse_network(name: Name) -> Network | None:
    """Return the network whose reverse name this is (lower case), a single address mostly; None for other names."""
    if name[-2:] == (b"in-addr", b"arpa"):
        return _reverse_v4(name[:-2])
    if name[-2:] == (b"ip6", b"arpa"):
        return _reverse_v6(name[:-2])
    return None


@dataclass(frozen=True, slots=True)
class DnsPolicy:
    """Decides whose a name is.

    ``namespace`` is the connected one, where a name without a dot is looked up; ``namespaces`` are all that exist as
    far as we may know (the connected one counts always); ``cluster_cidrs`` are routed to the cluster, which has their
    reverse names.
    """

    domain: str
    namespace: str
    namespaces: frozenset[str] = frozenset()
    cluster_cidrs: tuple[Network, ...] = ()

    def decide(self, name: Name) -> Decision:
        """Decide on a name in lower case."""
        domain = from_text(self.domain)
        if not name:
            return Decision((), upstream=True)
        if name[-len(domain) :] == domain:
            return Decision((name,), upstream=False)
        network = reverse_network(name)
        if network is not None:
            ours = any(cidr.contains(cluster, network) for cluster in self.cluster_cidrs)
            return Decision((name,), upstream=False) if ours else Decision((), upstream=True)
        return self._decide_short(name, domain)

    def _decide_short(self, name: Name, domain: Name) -> Decision:
        service = (_SVC, *domain)
        last = name[-1]
        if len(name) == 1 or (len(name) == 3 and name[0][:1] == b"_" and name[1] in _TRANSPORTS):
            return self._fitting([(*name, *from_text(self.namespace), *service)], upstream=False)
        names: list[Name] = []
        if last in (_SVC, _POD):
            names.append((*name, *domain))
        if last.decode("ascii", "replace") in self.namespaces or last == self.namespace.encode():
            names.append((*name, *service))
        return self._fitting(names, upstream=last not in (_SVC, _POD))

    @staticmethod
    def _fitting(names: list[Name], *, upstream: bool) -> Decision:
        # A name too long to exist under the cluster's domain is not asked for there.
        return Decision(tuple(n for n in names if wire_length(n) <= MAX_NAME), upstream)

    def reachable(self, response: Response) -> Response:
        """Return an answer of the cluster without the IPv6 addresses that are not routed to it."""
        return response._replace(
            answers=tuple(filter(self._is_reachable, response.answers)),
            additionals=tuple(filter(self._is_reachable, response.additionals)),
        )

    def _is_reachable(self, record: Record) -> bool:
        if record.rtype != AAAA:
            return True
        data = record.data[0]
        if not isinstance(data, bytes) or len(data) != 16:
            return False
        return any(cidr.contains(cluster, IPv6Network(data)) for cluster in self.cluster_cidrs)

    def display(self, name: Name) -> str:
        """Return the short form people know a full cluster name by: ``postgres.shop``; other names as they are."""
        ending = (_SVC, *from_text(self.domain))
        cut = name[: -len(ending)] if name[-len(ending) :] == ending else name
        return to_text(cut or name)
