"""Sequence numbers that cannot be compared wrongly.

A number on the wire has 32 bits and wraps (RFC 9293 §3.4). Inside, a :class:`Seq` is the *unwrapped* number: it starts
at the initial sequence number and only grows, so that ``<``, ``max`` and ``-`` mean what they say. :func:`unwrap` is
the only way from the wire in, :func:`to_wire` the only way out; RFC 9000 §A.3 does the same with packet numbers.
"""

from __future__ import annotations

from typing import Final, NewType

Seq = NewType("Seq", int)

_MASK: Final = 0xFFFF_FFFF
_HALF: Final = 0x8000_0000


def unwrap(wire: int, near: Seq) -> Seq:
    """Return the number nearest to `near` whose lowest 32 bits are `wire`.

    Right as long as the two are less than 2**31 apart, which the largest TCP window (2**30) guarantees.
    """
    return Seq(near + ((wire - near + _HALF) & _MASK) - _HALF)


def to_wire(seq: Seq) -> int:
    """Return the 32 bits that go into a header."""
    return seq & _MASK
