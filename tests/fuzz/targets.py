"""All fuzz targets: what goes in, what must hold whatever goes in, and how an input is kept in the corpus."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz import objects, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """One target; its invariant is the first sentence of what checks it."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]

    @property
    def invariant(self) -> str:
        """What must hold."""
        return (self.check.__doc__ or "").strip()

    def corpus(self) -> Iterator[Any]:
        """Give the inputs that were a finding once, or are worth trying first."""
        for path in sorted((CORPUS / self.name).glob("*.txt")):
            yield eval(path.read_text(), {"__builtins__": {}, "inf": math.inf})  # ours, in git

    def keep(self, found: object) -> Path:
        """Add an input to the corpus, as Python writes it: bytes, texts and objects alike."""
        text = ascii(found) + "\n"
        path = CORPUS / self.name / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path


TARGETS: Final = {
    target.name: target
    for target in (
        Target("packet", wire.packets, wire.check_packet),
        Target("tcp-options", wire.options, wire.check_tcp_options),
        Target("frames", wire.frames, wire.check_frames),
        Target("control", wire.control, wire.check_control),
        Target("dns", wire.dns, wire.check_dns),
        Target("netd", objects.requests, objects.check_netd),
        Target("api-objects", objects.api_objects, objects.check_api_objects),
        Target("discovery", objects.discovery, objects.check_discovery),
        Target("answers", objects.answers, objects.check_answer),
        Target("kubeconfig", objects.kubeconfigs, objects.check_kubeconfig),
    )
}
