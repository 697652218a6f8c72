"""What a traffic manager said when it registered us."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from telehelper.rpc.manager_pb2 import Session


@dataclass(slots=True)
class Registration:
    """A session with a manager; unlike the message that brought it, it does not show its token to whoever prints it."""

    id: str = ""
    token: str = field(default="", repr=False)
    manager_version: str = ""
    carrier_port: int = 0
    expiry_seconds: float = 0.0
    carrier_fingerprint: str = ""

    @classmethod
    def of(cls, session: Session) -> Self:
        """Take it out of its message."""
        return cls(**{one.name: getattr(session, one.name) for one in fields(cls)})
