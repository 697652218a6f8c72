"""The product's bill of materials, as CycloneDX 1.6: what is installed with it, in the versions and with the hashes of the lock."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.supply.closure import OURS, by_part
from tests.supply.licences import licence_of

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "tests" / "requirements.txt"
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+))?")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Pin(NamedTuple):
    """One line of the lock. ``marker``: on which machines, empty for all."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def pins(lock: Path = LOCK) -> list[Pin]:
    """Read the lock; a name may have several versions, for different Pythons."""
    found: list[Pin] = []
    for line in lock.read_text().splitlines():
        if match := _PIN.match(line):
            found.append(Pin(match[1].lower(), match[2], (match[3] or "").strip(), ()))
        elif (one := _HASH.search(line)) and found:
            found[-1] = found[-1]._replace(hashes=(*found[-1].hashes, one[1]))
    return found


def _component(pin: Pin, part: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{pin.name}@{pin.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": pin.name,
        "version": pin.version,
        "purl": purl,
        "scope": "required" if part == "product" else "optional",
        "licenses": [{"license": {"name": licence_of(pin.name)}}],
        "properties": [
            {"name": "telemagic:part", "value": part},
            {"name": "telemagic:marker", "value": pin.marker},
            # Of each file that the version has: which one is installed depends on the machine.
            *({"name": "telemagic:sha256", "value": each} for each in pin.hashes),
        ],
    }


def bill(version: str) -> dict[str, Any]:
    """Return the document. The same lock gives the same bytes: its serial number is made from what it says."""
    parts = {name: part for name, part in by_part().items() if part != "test"}
    components = [_component(pin, parts[pin.name]) for pin in pins() if pin.name in parts]
    told = "\n".join(f"{each['purl']} {each['scope']}" for each in components)
    ref = f"pkg:pypi/{OURS}@{version}"
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{ref} {told}")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": ref,
                "name": OURS,
                "version": version,
                "purl": ref,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": sorted({each["bom-ref"] for each in components})}],
    }
