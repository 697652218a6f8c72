"""What the core asks its shell to do. Tuples, because a busy tunnel makes a hundred thousand a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from telehelper.core.flows import FiveTuple
    from telehelper.core.frames import Frame


class SendPacket(NamedTuple):
    """Write one packet to the TUN, as one ``writev``: first the virtio_net_hdr and all headers, then the text."""

    buffers: tuple[bytes | bytearray | memoryview, ...]


class SendFrame(NamedTuple):
    """Give a frame to the mux of the flow's carrier."""

    frame: Frame


class FlowOpened(NamedTuple):
    """A flow came to be; its OPEN frame follows in the same list. Choose a carrier for it now."""

    flow: int
    five_tuple: FiveTuple


class FlowClosed(NamedTuple):
    """A flow is over: no frame of it follows, and frames that come for it are ignored.

    What the mux still holds for it must go out all the same: near may have closed in order before its last DATA and FIN
    left. After a reset the RST frame, sent before this, has dropped them already.
    """

    flow: int
    reason: str


class Drop(NamedTuple):
    """Something was ignored. Counted in ``Stack.drops`` already; here for logs and tests."""

    reason: str


class LocalDatagram(NamedTuple):
    """A datagram for the resolver. Answer with ``Stack.send_datagram`` and the same five-tuple."""

    five_tuple: FiveTuple
    payload: bytes


Action = SendPacket | SendFrame | FlowOpened | FlowClosed | Drop | LocalDatagram
