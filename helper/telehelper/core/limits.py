"""The bounds of the stack, and how long it waits; all ours, none from a specification."""

from __future__ import annotations

from typing import NamedTuple

from telehelper.core.credit import INITIAL_WINDOW, MAX_WINDOW, POOL_SIZE, CreditPool
from telehelper.core.flows import CLOSED_KEPT


class Limits(NamedTuple):
    """What a stack may hold and how long; seconds and bytes."""

    flows: int = 20_000  # open at once; beyond it a SYN or a first datagram is dropped and counted
    closed_kept: int = CLOSED_KEPT  # records of closed flows
    tombstones: int = 4096  # black holes remembered; the oldest is forgotten
    dial_timeout: float = 30.0  # the manager's time to dial; longer than Linux takes for four SYNs (15 s)
    dial_grace: float = 5.0  # after that for its answer to arrive, else the tunnel is at fault
    tombstone: float = (
        130.0  # a black hole stays silent until the near kernel's SYNs end: 127 s (tcp_syn_retries 6)
    )
    time_wait: float = (
        2.0  # a FIN lost on the way out of our own machine's TUN is repeated after 0.2, 0.4, 0.8 s
    )
    udp_idle: float = 60.0
    dns_idle: float = 5.0  # one question, one answer
    initial_credit: int = INITIAL_WINDOW
    maximum_credit: int = MAX_WINDOW
    pool: int = POOL_SIZE  # of all flows' windows together; see CreditPool


class Terms(NamedTuple):
    """What holds for all TCP flows of a stack."""

    limits: Limits
    pool: CreditPool
    mtu: int  # of the TUN, in bytes
    gso: bool  # the TUN takes offloaded packets
