"""Cluster addresses for services: given out, refused and pretended as the real API server does, by its version.

What it says about an address outside its range is how some tools find the range out, and that has changed:

===========  ==============================  ===================================================
release      asked in earnest                asked with `dryRun=All`
===========  ==============================  ===================================================
below 1.33   refused, with the range          refused, with the range
from 1.33    refused, without the range       refused, with the range
===========  ==============================  ===================================================

A dry run never looks for a free address: it answers the network's own, and takes any in the range for free
(kubernetes pkg/registry/core/service/ipallocator, `dryRunRange`). No I/O.
"""

from __future__ import annotations

import copy
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.kinds import KIND
from telemagic.demo.refusals import invalid, invalid_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telemagic.demo.plan import Address, Network

Json = dict[str, Any]
_WORDLESS: Final = (1, 33)  # the first release whose refusal in earnest does not tell the range
_FIRST_FREE: Final = 100  # below are the demo's own services; the real server keeps such a band as well
_SERVICES: Final = KIND["services"]
_DUAL: Final = ("PreferDualStack", "RequireDualStack")


class ServiceAddresses:
    """Gives services their addresses.

    Parameters
    ----------
    networks
        The service CIDRs, the cluster's first family first.
    version
        Kubernetes' major and minor one.
    """

    def __init__(self, networks: Sequence[Network], version: tuple[int, int]) -> None:
        self._networks = {f"IPv{network.version}": network for network in networks}
        self._version = version

    def assign(self, service: Json, others: Iterable[Json], *, dry_run: bool) -> Json:
        """Return the service with what a server fills in: families, and cluster addresses unless it has none.

        Raises
        ------
        Refused
            An address that it asks for is no address, out of range or in use, or it asks for a family that is not there.
        """
        found = copy.deepcopy(service)
        spec: Json = found["spec"]
        if spec.get("type") == "ExternalName":
            return found
        asked = [str(text) for text in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if text]
        name = found["metadata"]["name"]
        if asked == ["None"]:
            families = self._families(name, spec, [])
            return _fill(found, ["None"], families)
        wanted = [self._parse(name, asked, text) for text in asked]
        families = self._families(name, spec, wanted)
        used = {address for other in others for address in other["spec"].get("clusterIPs") or ()}
        addresses = []
        for family in families:
            own = next((one for one in wanted if f"IPv{one.version}" == family), None)
            if own is None:
                addresses.append(self._free(name, family, used, dry_run=dry_run))
            else:
                self._check(name, asked, own, used, dry_run=dry_run)
                addresses.append(own)
        return _fill(found, [str(address) for address in addresses], families)

    def _parse(self, name: str, asked: list[str], text: str) -> Address:
        try:
            return ip_address(text)
        except ValueError:
            field = f"spec.clusterIPs[{asked.index(text)}]"
            why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            raise invalid(_SERVICES, name, [(field, invalid_value(text), why)]) from None

    def _families(self, name: str, spec: Json, wanted: Sequence[Address]) -> list[str]:
        asked = list(spec.get("ipFamilies") or dict.fromkeys(f"IPv{one.version}" for one in wanted))
        for number, family in enumerate(asked):
            if family not in self._networks:
                why = "not configured on this cluster"
                raise invalid(_SERVICES, name, [(f"spec.ipFamilies[{number}]", invalid_value(family), why)])
        policy = spec.get("ipFamilyPolicy")
        if policy == "RequireDualStack" and len(self._networks) < 2:
            why = "this cluster is not configured for dual-stack services"
            raise invalid(_SERVICES, name, [("spec.ipFamilyPolicy", invalid_value(policy), why)])
        everything = [*dict.fromkeys([*asked, *self._networks])]
        if policy in _DUAL:
            return everything
        return asked or everything[:1]

    def _free(self, name: str, family: str, used: set[str], *, dry_run: bool) -> Address:
        network = self._networks[family]
        if dry_run:
            return network.network_address
        last = min(network.num_addresses - 2, 1 << 16)
        for number in range(min(_FIRST_FREE, last), last + 1):
            if str(network[number]) not in used:
                return network[number]
        why = "failed to allocate a serviceIP: range is full"
        raise invalid(_SERVICES, name, [("spec.clusterIPs", "Internal error", why)])

    def _check(self, name: str, asked: list[str], address: Address, used: set[str], *, dry_run: bool) -> None:
        network = self._networks[f"IPv{address.version}"]
        offset = int(address) - int(network.network_address)
        # Neither the network's own address nor, in IPv4, the broadcast address is one to have.
        last = network.num_addresses - (2 if address.version == 4 else 1)
        if not 1 <= offset <= last:
            why = (
                "the provided network does not match the current range"
                if self._version >= _WORDLESS and not dry_run
                else f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {network}"
            )
        elif str(address) in used and not dry_run:
            why = "provided IP is already allocated"
        else:
            return
        why = f"failed to allocate IP {address}: {why}"
        raise invalid(_SERVICES, name, [("spec.clusterIPs", invalid_value(asked), why)])


def _fill(service: Json, addresses: list[str], families: list[str]) -> Json:
    spec = service["spec"]
    spec["clusterIP"], spec["clusterIPs"], spec["ipFamilies"] = addresses[0], addresses, families
    single = "SingleStack" if len(families) == 1 else "RequireDualStack"
    spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or single
    return service
