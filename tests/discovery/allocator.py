"""Service address allocators as API servers of several releases have them: what they answer to dry runs."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from telehelper.discovery.refused_service import NAME
from telehelper.errors import CredentialsRefused

from tests.discovery.sample import REVIEWS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

from telehelper.errors import ClusterError

NAMED = "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}"
NAMED_OF_OLD = "provided IP is not in the valid range. The range of valid IPs is {network}"
WORDLESS = "provided IP {ip} is not in the valid range"
MISMATCH = "the provided network does not match the current range"


class Rejected(ClusterError):
    """The client's 422."""

    slug = "api-rejected"


class Allocator:
    """Answers POSTs of reviews and services; `stored` gets what was not a dry run, which must be nothing."""

    def __init__(
        self,
        *networks: str,
        words: str = NAMED,
        allowed: bool = True,
        used: tuple[str, ...] = (),
        pick: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.networks = [ip_network(one) for one in networks]
        self.words = words
        self.allowed = allowed
        self.used = {ip_address(one) for one in used}
        self.pick = pick or (lambda several: several[0])
        self.wanted: list[str] = []

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path == REVIEWS:
            assert body["spec"]["resourceAttributes"]["verb"] == "create"
            return {"status": {"allowed": self.allowed}}
        if not self.allowed:
            raise CredentialsRefused("403", status="403")
        assert body["metadata"]["name"] == NAME
        return self._service(body["spec"])

    def _service(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        asked = spec.get("clusterIP", "")
        self.wanted.append(asked)
        (family,) = spec["ipFamilies"]
        own = [one for one in self.networks if f"IPv{one.version}" == family]
        if not own:
            raise self._invalid(
                f"spec.ipFamilies[0]: Invalid value: {family!r}: not configured on this cluster"
            )
        network = self.pick(own)
        address = ip_address(asked) if asked else network.network_address
        offset = int(address) - int(network.network_address)
        if asked and not 1 <= offset <= network.num_addresses - 2:
            raise self._invalid(
                f"spec.clusterIPs: Invalid value: [{asked!r}]: failed to allocate IP {asked}: "
                + self.words.format(ip=asked, network=network)
            )
        if address in self.used:
            raise self._invalid(f"failed to allocate IP {asked}: provided IP is already allocated")
        return {"kind": "Service", "spec": {"clusterIP": str(address), "clusterIPs": [str(address)]}}

    @staticmethod
    def _invalid(why: str) -> Rejected:
        told = f'Service "{NAME}" is invalid: {why}'
        return Rejected(f"rejects: {told}", status="422", told=told)


def at_random(seed: int) -> Callable[[list[Any]], Any]:
    return random.Random(seed).choice
