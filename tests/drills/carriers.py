"""A bad way to the cluster: what a cable does to the connections that go through it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from tests.drills.stage import FACTOR, PATIENCE, Stage, timed
from tests.e2e import cable
from tests.e2e.cable import _Plain
from tests.e2e.kernels import kubeconfig_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drills.table import Drill
    from tests.e2e.cable import Cable, Far

SLOW: Final = 1000  # bytes in a second, each way
HEALTH: Final = """
def health():
    import urllib.request
    with urllib.request.urlopen("http://catalog.shop:8000/health", timeout=60) as answer:
        return answer.read()
"""


class Rough:
    """A far end to and from which bytes are slowed, changed or handed on one at a time; ``mode`` says which."""

    mode = ""  # slow, dribble, corrupt; for all of them

    def __init__(self, far: Far) -> None:
        self._far = far
        self._rest = b""

    async def receive(self) -> bytes | memoryview:
        """Return the next bytes, empty at the end."""
        if not self._rest:
            self._rest = await self._treat(bytes(await self._far.receive()))
        size = 1 if self.mode == "dribble" else len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        data = await self._treat(data)
        size = 1 if self.mode == "dribble" else max(len(data), 1)
        for at in range(0, len(data), size):
            await self._far.send(data[at : at + size])

    async def close(self) -> None:
        """Close."""
        await self._far.close()

    async def _treat(self, data: bytes) -> bytes:
        if self.mode == "slow":
            await asyncio.sleep(len(data) / SLOW)
        if self.mode == "corrupt" and data:
            middle = len(data) // 2
            return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        return data


@contextlib.contextmanager
def connected(stage: Stage) -> Iterator[Cable]:
    """Connect through a cable."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    (cluster,) = (each["cluster"] for each in config["clusters"])
    host, port = cluster["server"].removeprefix("https://").split(":")

    async def dial() -> Far:
        return Rough(_Plain(*await asyncio.open_connection(host, int(port))))

    with cable.laid(dial) as line, tempfile.TemporaryDirectory() as folder:
        path = kubeconfig_for(f"https://127.0.0.1:{line.port}", Path(folder) / "kubeconfig")
        stage.connect(options=f"kubeconfig={str(path)!r}")
        try:
            yield line
        finally:
            Rough.mode = ""


def _reset_and_back(drill: Drill, stage: Stage, fault: Callable[[Cable], None]) -> None:
    with connected(stage) as line:
        stage.kernel.start("hang()")
        assert stage.kernel.line() == "open"
        with timed(drill.within):
            fault(line)
            answer = stage.kernel.answer(PATIENCE)
        assert answer.value == "'ConnectionResetError'", answer
        Rough.mode = ""
        stage.works(drill.within * FACTOR)
        stage.disconnect()
    stage.clean(5.0)


def cut(drill: Drill, stage: Stage) -> None:
    """As a load balancer that forgets connections."""
    _reset_and_back(drill, stage, _cut)


def frozen(drill: Drill, stage: Stage) -> None:
    """As a cable that is pulled out."""
    _reset_and_back(drill, stage, _freeze)


def _cut(line: Cable) -> None:
    for each in list(line.lines):
        each.cut()


def _freeze(line: Cable) -> None:
    for each in list(line.lines):
        each.freeze()


def _corrupt(_: Cable) -> None:
    Rough.mode = "corrupt"


def corrupted(drill: Drill, stage: Stage) -> None:
    """As a network card that is about to die."""
    _reset_and_back(drill, stage, _corrupt)


def _answers(drill: Drill, stage: Stage, mode: str) -> None:
    with connected(stage):
        Rough.mode = mode
        with timed(drill.within):
            answer = stage.kernel.run(HEALTH, "health()", seconds=drill.within * FACTOR)
        assert "ok" in (answer.value or ""), answer
        answer = stage.kernel.run("tele.status.to_dict()")
        assert "'state': 'connected'" in (answer.value or ""), answer
        assert "'last_error': ''" in (answer.value or ""), answer
        Rough.mode = ""
        stage.disconnect()
    stage.clean(5.0)


def slow(drill: Drill, stage: Stage) -> None:
    """As a train's network."""
    _answers(drill, stage, "slow")


def dribbled(drill: Drill, stage: Stage) -> None:
    """As a proxy that hands on what it has."""
    _answers(drill, stage, "dribble")


BODIES: Final[dict[str, Callable[[Drill, Stage], None]]] = {
    "carriers cut": cut,
    "carriers frozen": frozen,
    "carriers at 1 KB/s": slow,
    "carriers one byte at a time": dribbled,
    "carriers corrupted": corrupted,
}
