"""Lets only our own user's flows into the tunnel: on a shared host, others may not borrow the cluster.

Theory of operation
-------------------
A route serves everybody on the machine, so other local users' packets come out of the TUN as ours do. No rule in the
kernel's tables keeps them away, none can be left behind: this stands between the stack and the tunnel, and what it
refuses is answered as a closed port is (RST, or ICMP "port unreachable"), so that their programs hear at once. Root
passes, because root can become us anyway. ``--share`` lets everybody pass.

*Whose it is* is asked of the kernel when the flow is opened. If there is no such socket, its program has closed it already,
or the packet comes from a container's network by way of forwarding, and whose it is nobody can tell. TCP and echoes are
refused then, which harms no program that still is there. A UDP datagram may have been all that its program wanted to send
(a metric, a line of a log): it passes if it comes from the interface's own address, and nobody but us, root and system
accounts runs anything on this machine; a moment after another person has come, it does not.

*UDP and ICMP.* A socket may be closed, and another user's take its port while the flow still is remembered. So the owner
of a flow that sends is looked at again, once in `RECHECK` seconds. Of a raw socket, such as ping's where there are no ping
sockets, only the user who made it is known, and not which of several sent a packet: one of ours or root's suffices.

*Names* are answered to everybody: on most machines one resolver asks us for all users, and without an answer all of
them would be without names. What others learn by that is which services there are, and their addresses.
"""

from __future__ import annotations

import asyncio
import errno
import os
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from telehelper.core.flows import FiveTuple
from telehelper.core.frames import Frame, FrameType, Open, Proto, decode_open, encode_coded
from telehelper.datapath.cluster_dns import OWN_FLOWS
from telehelper.datapath.owners import ROOT
from telehelper.datapath.report import NOT_YOURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.core.frames import Address
    from telehelper.datapath.engine import FrameSink
    from telehelper.datapath.owners import Owners

RECHECK: Final = 1.0  # seconds; a look-up takes some µs
UNKNOWN: Final = -1
_OPEN, _DATAGRAM = FrameType.OPEN, FrameType.DATAGRAM


class Refused(NamedTuple):
    """A flow that was kept out; `uid` is -1 if its owner is not known."""

    uid: int
    five_tuple: FiveTuple


class _Datagrams:
    """A flow without a connection, and when its owner was last looked at."""

    __slots__ = ("checked_at", "five_tuple")

    def __init__(self, five_tuple: FiveTuple, now: float) -> None:
        self.five_tuple = five_tuple
        self.checked_at = now


class Gate:
    """A :class:`~telehelper.datapath.engine.FrameSink` before the tunnel.

    Parameters
    ----------
    tunnel
        Where frames of permitted flows go.
    owners
        Knows whose a flow is when its OPEN comes.
    is_own
        Whether an address is the interface's own.
    keep_out
        Takes the frame that refuses a flow, for the engine.
    on_refused
        Hears of each flow that is kept out.
    """

    def __init__(
        self,
        tunnel: FrameSink,
        owners: Owners,
        is_own: Callable[[Address], bool],
        keep_out: Callable[[Frame], None],
        on_refused: Callable[[Refused], None],
    ) -> None:
        self._tunnel = tunnel
        self._owners = owners
        self._is_own = is_own
        self._keep_out = keep_out
        self._on_refused = on_refused
        self._permitted = frozenset((os.geteuid(), ROOT))
        self._refused: set[int] = set()  # until the stack, which has not heard yet, forgets them
        self._datagrams: dict[int, _Datagrams] = {}

    def send(self, frame: Frame) -> None:
        """Send a flow's frame, or keep it out."""
        kind, flow, _ = frame
        if kind is _OPEN and flow < OWN_FLOWS:
            if not self._admits(flow, decode_open(frame)):
                return
        elif kind is _DATAGRAM and flow in self._datagrams:
            if not self._still_admits(flow):
                return
        elif flow in self._refused:
            return
        self._tunnel.send(frame)

    def forget(self, flow: int) -> None:
        """Drop a flow that is over."""
        self._datagrams.pop(flow, None)
        if flow in self._refused:
            self._refused.discard(flow)
        else:
            self._tunnel.forget(flow)

    def _admits(self, flow: int, what: Open) -> bool:
        uid = self._owners.uid_of(flow)
        five_tuple = FiveTuple(*what[:5])
        if uid not in self._permitted and not (uid == UNKNOWN and self._may_be_ours(five_tuple)):
            self._refuse(flow, uid, five_tuple, FrameType.REJECTED)
            return False
        if what.protocol is not Proto.TCP:
            self._datagrams[flow] = _Datagrams(five_tuple, monotonic())
        return True

    def _still_admits(self, flow: int) -> bool:
        kept, now = self._datagrams[flow], monotonic()
        if now - kept.checked_at < RECHECK:
            return True
        kept.checked_at = now
        found = self._owners.find_socket(kept.five_tuple)
        if found is None:  # whoever sent this one has closed its socket since; the flow ends by itself
            return self._may_be_ours(kept.five_tuple)
        if found.uid in self._permitted:
            return True
        del self._datagrams[flow]
        self._tunnel.send(encode_coded(FrameType.RST, flow, errno.ECONNREFUSED, "another user's"))
        self._tunnel.forget(flow)
        self._refuse(flow, found.uid, kept.five_tuple, FrameType.RST)
        return False

    def _may_be_ours(self, five_tuple: FiveTuple) -> bool:
        """Whether a flow of nobody known may pass."""
        if five_tuple.protocol is not Proto.UDP or not self._is_own(five_tuple.src):
            return False
        return not self._owners.has_neighbours

    def _refuse(self, flow: int, uid: int, five_tuple: FiveTuple, kind: FrameType) -> None:
        self._refused.add(flow)
        whose = f"uid {uid}'s" if uid != UNKNOWN else "nobody's who is known"
        said = encode_coded(kind, flow, errno.ECONNREFUSED, f"{NOT_YOURS}: {whose}")
        # Not from inside send(): the engine is in the middle of something.
        asyncio.get_running_loop().call_soon(self._keep_out, said)
        self._on_refused(Refused(uid, five_tuple))
