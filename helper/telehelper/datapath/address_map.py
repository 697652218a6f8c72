"""Between engine and tunnel: what is opened to a mapped address goes to the real one (`telehelper.core.address_map`)."""

from __future__ import annotations

import asyncio
import errno
from time import monotonic
from typing import TYPE_CHECKING

from telehelper.core.frames import Frame, FrameType, decode_open, encode_coded, encode_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telehelper.core.address_map import AddressMap
    from telehelper.datapath.engine import FrameSink


class AddressMapper:
    """A :class:`~telehelper.datapath.engine.FrameSink` that rewrites OPEN frames.

    Parameters
    ----------
    tunnel
        Where frames go.
    maps
        Of each family; entries may be added any time.
    answer
        Takes frames for the engine, as if they had come from the tunnel.
    """

    def __init__(
        self, tunnel: FrameSink, maps: Sequence[AddressMap], answer: Callable[[list[Frame]], None]
    ) -> None:
        self._tunnel = tunnel
        self._maps = maps
        self._answer = answer

    def send(self, frame: Frame) -> None:
        """Send a flow's frame."""
        if frame.type is FrameType.OPEN:
            what = decode_open(frame)
            for addresses in self._maps:
                if what.dst.version == addresses.pool.version and what.dst in addresses.pool:
                    real = addresses.flow_opened(frame.flow, what.dst)
                    if real is None:
                        self._refuse(frame.flow)
                        return
                    frame = encode_open(frame.flow, what._replace(dst=real))
        self._tunnel.send(frame)

    def forget(self, flow: int) -> None:
        """Drop a flow that is over."""
        for addresses in self._maps:
            addresses.flow_closed(flow, monotonic())
        self._tunnel.forget(flow)

    def _refuse(self, flow: int) -> None:
        reason = "no name of the cluster was answered with this address lately"
        rejected = encode_coded(FrameType.REJECTED, flow, errno.EHOSTUNREACH, reason)
        # Not from inside send(): the engine is in the middle of something.
        asyncio.get_running_loop().call_soon(self._answer, [rejected])
