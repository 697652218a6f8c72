"""Where the services of the bench's far end listen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from telehelper.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per service; below 32768, where Linux takes no ephemeral port from."""

    sink: int = 17009
    """TCP: takes what comes and tells at the end when it came."""
    source: int = 17019
    """TCP: sends for as many seconds as it is asked to."""
    echo: int = 17007
    """TCP: answers each small request with itself."""
    udp: int = 17010
    """UDP: counts datagrams by their first eight bytes. TCP, same number: tells the counts."""
    iperf3: int | None = 17201
    """TCP: an iperf3 server; None where there is no iperf3."""

    def to_json(self) -> str:
        """Return what `--ports` takes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Ports:
        """Take what the server said.

        Raises
        ------
        UsageError
            Not an object of exactly these ports, each from 1 to 65535; `iperf3` may be null.
        """
        names = [field.name for field in fields(cls)]
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"--ports is not JSON: {error}", hint="pass what the server printed") from error
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            raise UsageError(
                f"--ports must be an object of {', '.join(names)}", hint="pass what the server printed"
            )
        for name, port in found.items():
            if port is None and name == "iperf3":
                continue
            if type(port) is not int or not 0 < port < 1 << 16:
                raise UsageError(f"--ports: {name} is {port!r}", hint="a port is a number from 1 to 65535")
        return cls(**found)
