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
``….svc.<domain>``, pod    itself                             that is the answer
``….cluster.local``        itself                             that is the answer
PTR of a cluster address   itself                             that is the answer
everything else            nothing                            the machine's own DNS
=========================  =================================  ===========================

``ns`` must be a namespace that exists. A namespace may be called like a top-level domain (``dev``, ``app``, ``io``):
the public ``foo.dev`` stays reachable because the cluster's NXDOMAIN sends the question on. A cluster that does not
answer does *not* send it on: a stranger's ``postgres.dev`` must never get the password meant for ours.
Names are compared by labels: ``mycluster.local`` is not under ``cluster.local``.

The domain is what the cluster says. Kubernetes has names below ``svc`` and ``pod`` there and no others, so of a domain that
others may have too (``corp.example``, and a hostile cluster's ``mybank.com``) nothing else is the cluster's.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core import cidr
from telehelper.core.dns_message import MAX_NAME, Name, from_text, to_text, wire_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from telehelper.core.cidr import Network

_SVC: Final = b"svc"
_POD: Final = b"pod"
_NOBODYS: Final = (b"cluster", b"local")  # the default domain, which nobody has outside of clusters
_TRANSPORTS: Final = (b"_tcp", b"_udp", b"_sctp")  # the protocols of a Kubernetes service port


class Decision(NamedTuple):
    """Whom to ask, in order: the cluster for each of these names, then, if `upstream`, the machine's own DNS."""

    cluster: tuple[Name, ...]
    upstream: bool


def search_list(namespace: str, domain: str) -> tuple[str, ...]:
    """Return the search list of a pod, for the host's ``resolv.conf``; use it with ``ndots:1``."""
    base = domain.strip(".").lower()
    return f"{namespace}.svc.{base}", f"svc.{base}", base


def link_domains(
    namespace: str, domain: str, namespaces: Iterable[str], networks: Iterable[Network]
) -> tuple[str, ...]:
    """Return what systemd-resolved is to send to us: the search list, and with ``~`` domains that are only routed.

    Namespaces that are public top-level domains too are among those: the resolver sends on what the cluster denies.
    """
    search = search_list(namespace, domain)
    base = [name if "." in name else f"~{name}" for name in search]
    routed = ["svc", namespace, *sorted(namespaces)]
    reverse = [name for network in networks for name in reverse_domains(network)]
    return tuple(dict.fromkeys([*base, *(f"~{name}" for name in (*routed, *reverse))]))


def reverse_domains(network: Network) -> tuple[str, ...]:
    """Return the domains with a network's reverse names; none if there are more than sixteen, or it is a single host."""
    step = 8 if network.version == 4 else 4  # bits of a label
    length = -(-network.prefixlen // step) * step
    if length in (0, network.max_prefixlen) or length - network.prefixlen > 4:
        return ()
    parts = network.subnets(new_prefix=length)
    labels = length // step
    total = network.max_prefixlen // step
    return tuple(part.network_address.reverse_pointer.split(".", total - labels)[-1] for part in parts)


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
            is_ours = domain == _NOBODYS or name[: -len(domain)][-1:] in ((_SVC,), (_POD,))
            return Decision((name,), upstream=False) if is_ours else Decision((), upstream=True)
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

    def names_service(self, name: Name) -> bool:
        """Whether a full name (lower case) is one that a service would have, in a namespace that there is.

        What a search list makes of a name that failed is not, mostly: postgres.shop.default.svc.cluster.local.
        """
        ending = (_SVC, *from_text(self.domain))
        if len(name) != 2 + len(ending) or name[2:] != ending:
            return False
        namespace = name[1].decode("ascii", "replace")
        return namespace == self.namespace or namespace in self.namespaces

    def display(self, name: Name) -> str:
        """Return the short form people know a full cluster name by: ``postgres.shop``; other names as they are."""
        ending = (_SVC, *from_text(self.domain))
        cut = name[: -len(ending)] if name[-len(ending) :] == ending else name
        return to_text(cut or name)
