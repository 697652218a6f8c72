"""What is measured, in which unit, on which paths, and what it ought to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RAW: Final = "raw"
PATHS: Final = (RAW, "tcp", "portforward", "rtt20", "sshuttle", "ssh-L")
OURS: Final = ("tcp", "portforward", "rtt20")
PEERS: Final = ("sshuttle", "ssh-L")

UNITS: Final = {
    "bulk_up_1": "bit/s",
    "bulk_down_1": "bit/s",
    "bulk_up_4": "bit/s",
    "bulk_down_4": "bit/s",
    "rr_p50": "s",
    "rr_p99": "s",
    "connect_p50": "s",
    "connect_p99": "s",
    "rr_p50_under_bulk": "s",
    "rr_p99_under_bulk": "s",
    "connects_per_s": "1/s",
    "udp_pps": "1/s",
    "udp_loss": "fraction",
    "bytes_per_idle_flow": "B",
    "idle_cpu": "fraction of a core",
    "recovery_s": "s",
}
METRICS: Final = tuple(UNITS)
UDP: Final = ("udp_pps", "udp_loss")
# What the runner measures itself, on our paths only; all else is the load generator's.
FOOTPRINT: Final = ("bytes_per_idle_flow", "idle_cpu")
RUNNERS: Final = (*FOOTPRINT, "recovery_s")


@dataclass(frozen=True, slots=True)
class Target:
    """What a metric ought to be on some paths: a bound of the value, or of its ratio to the raw row's."""

    paths: tuple[str, ...]
    bound: float
    at_least: bool
    is_ratio: bool = False


_DIRECT: Final = ("tcp",)
_FORWARDED: Final = ("portforward",)
_NEAR: Final = ("tcp", "portforward")


def _ratio_at_least(paths: tuple[str, ...], bound: float) -> Target:
    return Target(paths, bound, at_least=True, is_ratio=True)


def _ratio_at_most(paths: tuple[str, ...], bound: float) -> Target:
    return Target(paths, bound, at_least=False, is_ratio=True)


# A target that names no carrier holds for both that add no delay of their own.
TARGETS: Final = {
    "bulk_up_1": (
        _ratio_at_least(_DIRECT, 0.30),
        _ratio_at_least(_FORWARDED, 0.12),
        Target(("rtt20",), 1e9, at_least=True),
    ),
    "bulk_down_1": (
        _ratio_at_least(_DIRECT, 0.33),
        _ratio_at_least(_FORWARDED, 0.12),
        Target(("rtt20",), 1e9, at_least=True),
    ),
    "rr_p50": (_ratio_at_most(_NEAR, 1.5),),
    "rr_p99": (_ratio_at_most(_NEAR, 3.0),),
    "connect_p50": (_ratio_at_most(_NEAR, 3.5),),
    "rr_p50_under_bulk": (Target(_NEAR, 1e-3, at_least=False),),
    "rr_p99_under_bulk": (Target(_NEAR, 2.5e-3, at_least=False),),
    "connects_per_s": (Target(_NEAR, 3000.0, at_least=True),),
    "bytes_per_idle_flow": (Target(OURS, 16 * 1024.0, at_least=False),),
    "idle_cpu": (Target(OURS, 0.02, at_least=False),),
    "recovery_s": (Target(OURS, 10.0, at_least=False),),
}
# Beside these, one flow of bulk through our tunnel is to be this many times as fast as sshuttle's.
TIMES_SSHUTTLE: Final = 10.0


def target_of(path: str, metric: str) -> Target | None:
    """Return what is wanted of a metric on a path, if anything."""
    return next((target for target in TARGETS.get(metric, ()) if path in target.paths), None)


def is_possible(path: str, metric: str) -> bool:
    """Tell whether a path can have this metric at all; else its row says null."""
    if metric in UDP:
        return path not in PEERS
    return metric not in RUNNERS or path in OURS
