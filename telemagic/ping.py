"""TCP connects to a service, by ordinary sockets of this process: through the kernel, the TUN and the tunnel."""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from telehelper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_COUNT: Final = 1000
MAX_TIMEOUT: Final = 60.0  # seconds for one try
FIRST_BYTE: Final = (
    0.25  # seconds that a server gets to speak first, as SSH, MySQL and SMTP do; most never do
)
PAUSE: Final = 0.2  # seconds between two tries
UNKNOWN: Final = -1.0
_SAID: Final = {
    errno.ECONNREFUSED: "refused: nothing listens on this port",
    errno.EHOSTUNREACH: "unreachable: no such host, or a firewall in the cluster refuses",
    errno.ENETUNREACH: "unreachable: no route to it",
    errno.ECONNRESET: "reset by the other side",
    errno.EACCES: "forbidden by a firewall",
    errno.EPERM: "forbidden by a firewall",
}


@dataclass(frozen=True, slots=True)
class Try:
    """One connect. Durations are seconds, -1 for "not there". ``state``: connected, or in one word why not."""

    number: int
    address: str
    port: int
    state: str
    connect: float
    first_byte: float
    tunnel: float
    cluster: float
    reason: str = ""


def check(count: int, timeout: float) -> None:
    """Refuse a number of tries or a time that makes no sense.

    Raises
    ------
    UsageError
        It does not.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"{count} tries make no sense", hint=f"--count 1 to {MAX_COUNT}")
    if not 0 < timeout <= MAX_TIMEOUT:
        raise UsageError(
            f"a timeout of {timeout:g} s makes no sense", hint=f"--timeout up to {MAX_TIMEOUT:g}"
        )


def ping(
    address: str,
    port: int,
    *,
    count: int,
    timeout: float,
    rtt: Callable[[], float],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Try]:
    """Connect again and again; ends by itself, each try after at most `timeout` seconds.

    Parameters
    ----------
    rtt
        Returns the tunnel's round trip in seconds, -1 if unknown. What a connect takes longer is the cluster's part.
        It was measured up to three seconds before; a connect that is quicker than it says nothing about the cluster.
    """
    for number in range(1, count + 1):
        if number > 1:
            sleep(PAUSE)
        yield _try(number, address, port, timeout, rtt())


def _try(number: int, address: str, port: int, timeout: float, tunnel: float) -> Try:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    first_byte = cluster = UNKNOWN
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        begun = time.perf_counter()
        try:
            sock.connect((address, port))
        except TimeoutError:
            reason = f"no answer within {timeout:g} s"
            return Try(number, address, port, "timeout", UNKNOWN, UNKNOWN, tunnel, UNKNOWN, reason)
        except OSError as error:
            state, reason = explain(error)
            return Try(number, address, port, state, UNKNOWN, UNKNOWN, tunnel, UNKNOWN, reason)
        connect = time.perf_counter() - begun
        if (
            0 <= tunnel <= connect
        ):  # else the round trip is an older one, of a slower moment: not known beats zero
            cluster = connect - tunnel
        sock.settimeout(min(FIRST_BYTE, timeout))
        begun = time.perf_counter()
        reason = ""
        try:
            if sock.recv(1):
                first_byte = time.perf_counter() - begun
            else:
                reason = "the other side closed at once"
        except TimeoutError:
            pass  # it waits for us to speak, as most do
        except OSError as error:
            reason = explain(error)[1]
    return Try(number, address, port, "connected", connect, first_byte, tunnel, cluster, reason)


def explain(error: OSError) -> tuple[str, str]:
    """Return one word and one line on why a connect failed."""
    number = error.errno or 0
    said = _SAID.get(number)
    if said is None:
        return "failed", os.strerror(number) if number else str(error)
    return said.partition(":")[0].partition(" ")[0], said
