"""Following a list of API objects: the list, then each change (Kubernetes API concepts, "Efficient detection of changes").

The server ends each watch after a minute, and it is resumed where it stopped; so a connection that has died silently
is found out soon, and a load balancer that cuts long ones does no harm. When the server has forgotten where that was
(410 Gone), the list comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import ApiServerUnavailable
from telehelper.kube.answers import Answer, ApiRejected, raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from telehelper.kube.client import ApiClient

WATCH_SECONDS: Final = 60  # how long the server keeps one watch open
IDLE_TIMEOUT: Final = WATCH_SECONDS + 15.0  # seconds without a byte; by then the server should have ended it
MAX_LINE: Final = 8 * 1024 * 1024  # bytes of one event; etcd takes objects of 1.5 MiB
SHORTEST: Final = (
    1.0  # seconds from one watch to the next, so that a server that ends each at once is not hammered
)
_GONE: Final = 410


class Lines:
    """Cuts bytes into lines, each the JSON of one event."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines completed by `data`. ApiServerUnavailable if one is too long."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._rest) + line
            self._rest.clear()
            if whole.strip():
                yield whole
        self._rest += rest
        if len(self._rest) > MAX_LINE:
            raise ApiServerUnavailable(f"the API server sent an event of more than {MAX_LINE} bytes")


class Watch:
    """One followed list. Iterate :meth:`events`."""

    def __init__(self, api: ApiClient, path: str, params: dict[str, str]) -> None:
        self._api = api
        self._path = path
        self._params = params
        self._version = ""  # resourceVersion from which to go on; empty if the list must come first

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield events for ever; see :meth:`ApiClient.watch`."""
        while True:
            began = monotonic()
            if not self._version:
                listed = await self._api.get(self._path, **self._params)
                self._version = _version_of(listed)
                yield {"type": "LIST", "object": listed}
            async with contextlib.aclosing(self._until_end()) as news:
                async for event in news:
                    yield event
            await asyncio.sleep(max(0.0, SHORTEST - (monotonic() - began)))

    async def _until_end(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of one watch."""
        params = {
            **self._params,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        lines = Lines()
        try:
            async with contextlib.aclosing(self._api.stream(self._path, params, IDLE_TIMEOUT)) as stream:
                async for data in stream:
                    for event in map(self._read, lines.feed(data)):
                        if event is not None:
                            yield event
        except ApiRejected as error:
            if error.data["status"] != str(_GONE):
                raise
            self._version = ""

    def _read(self, line: bytes) -> dict[str, Any] | None:
        """Take one event: note where to go on, and return it if it is news."""
        try:
            event = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                raise_for_status(
                    Answer(int(item.get("code") or 500), {}, json.dumps(item).encode()),
                    f"watching {self._path}",
                    self._api.access.server,
                )
            version = _version_of(item)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ApiServerUnavailable(
                f"the API server answered watching {self._path} with something that is no event"
            ) from error
        self._version = version or self._version
        return None if kind in ("BOOKMARK", "ERROR") else {"type": kind, "object": item}


def _version_of(item: dict[str, Any]) -> str:
    metadata = item.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""
