"""Bulk transfers by iperf3, where both ends have it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from telemagic.bench.dial import FarEnd

CONNECT: Final = 5.0  # seconds
OMIT: Final = 1  # seconds of warm-up that it cuts off by itself
_LATE: Final = 15.0  # seconds beyond what it was asked for; then it hangs


class Iperf3Error(Exception):
    """It did not measure; the message says why."""


def path() -> str | None:
    """Return where it is, if it is."""
    return shutil.which("iperf3")


def command(
    iperf3: str, far: FarEnd, port: int, *, up: bool, flows: int, seconds: float, omit: int
) -> list[str]:
    """Return the command line; iperf3 takes whole seconds."""
    whole = max(1, math.ceil(seconds))
    line = [
        iperf3,
        "-c",
        far.address,
        "-p",
        str(port),
        "-J",
        "-t",
        str(whole),
        "-O",
        str(omit),
        "-P",
        str(flows),
    ]
    line += ["--connect-timeout", str(int(CONNECT * 1000))]
    return line if up else [*line, "-R"]


def received(report: str) -> float:
    """Return the bits per second that arrived, from its JSON.

    Raises
    ------
    Iperf3Error
        It says that something went wrong, or nothing that can be understood.
    """
    try:
        found = json.loads(report)
        if said := found.get("error"):
            raise Iperf3Error(str(said))
        rate = float(found["end"]["sum_received"]["bits_per_second"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Iperf3Error("no result in its report") from error
    if not rate > 0:
        raise Iperf3Error("nothing arrived")
    return rate


def transfer(far: FarEnd, port: int, *, up: bool, flows: int, seconds: float, omit: int = OMIT) -> float:
    """Transfer over so many flows at once, and return the bits per second that arrived."""
    iperf3 = path()
    if iperf3 is None:
        raise Iperf3Error("not installed")
    line = command(iperf3, far, port, up=up, flows=flows, seconds=seconds, omit=omit)
    try:
        done = subprocess.run(  # noqa: S603  # no shell; the target is an address that was looked up
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + omit + _LATE,
        )
    except subprocess.TimeoutExpired as error:
        raise Iperf3Error("it did not end in time") from error
    return received(done.stdout)
