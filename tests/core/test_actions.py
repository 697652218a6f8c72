from __future__ import annotations

from telehelper.core import actions
from telehelper.core.frames import Frame, FrameType


def test_actions_are_plain_tuples_that_compare_by_value() -> None:
    frame = Frame(FrameType.FIN, 3)
    assert actions.SendFrame(frame) == actions.SendFrame(Frame(FrameType.FIN, 3))
    assert actions.SendPacket((b"a", b"b")).buffers == (b"a", b"b")
    assert actions.Drop("echo").reason == "echo"
