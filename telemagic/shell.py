"""The session of the `telemagic` command: connections that live in other processes of this user."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from telehelper import messages
from telehelper.errors import HelperLost, NotConnected, TelemagicError, UndoIncomplete

from telemagic import cards, live, paths
from telemagic.connection import Connection
from telemagic.control import ControlClient
from telemagic.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from telemagic.connecting import Launch

UNDO_PATIENCE: Final = 5.0  # seconds for a data plane to undo everything after SIGTERM
ATTACH_PATIENCE: Final = 3.0  # seconds for a data plane to say who it is
POLL: Final = 0.05  # seconds between looks for the socket to go


class ShellSession(Session):
    """Shows connects as lines, and finds running data planes by their sockets."""

    prog = "telemagic"

    def __init__(self, launch: Launch | None = None) -> None:
        super().__init__(launch)
        self._attached: list[Connection] = []

    def close(self) -> None:
        """Let go of the connections that were only asked, and end one of our own."""
        for one in self._attached:
            one.leave()
        super().close()

    def viewer(self) -> live.Viewer:
        """One line per phase."""
        return live.Lines()

    def current(self, context: str = "") -> Connection:
        """Attach to the running data plane, or to that of `context` when there are several.

        Raises
        ------
        NotConnected
            There is none, or more than one and no context given.
        """
        if self.connection is not None:
            return super().current(context)
        found = self._running(context)
        if not found:
            which = f" to {context}" if context else ""
            raise NotConnected(f"nothing is connected{which}", hint="telemagic connect")
        if len(found) > 1:
            names = ", ".join(one.context for one in found)
            raise NotConnected(f"several are connected: {names}", hint="say which with --context NAME")
        return found[0]

    def disconnect(self, context: str = "") -> cards.Card:
        """End the data plane itself, whichever notebooks use it; they see that their helper has gone."""
        if self.connection is not None:
            return super().disconnect(context)
        connection = self.current(context)
        pid, socket = connection.datapath_pid, connection.socket_path
        card = cards.farewell(connection.context, connection.namespace, f"ended the helper (pid {pid})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        connection.leave()
        until = time.monotonic() + UNDO_PATIENCE
        while socket.exists():
            if time.monotonic() > until:
                raise UndoIncomplete(
                    f"the helper (pid {pid}) is still there", hint=f"ps -fp {pid}", left=str(pid)
                )
            time.sleep(POLL)
        return card

    def _running(self, context: str) -> list[Connection]:
        found = []
        for path in sorted(paths.runtime_dir().glob("*.sock")):
            connection = self._attach(path)
            if connection is not None and (not context or connection.context == context):
                found.append(connection)
        return found

    def _attach(self, path: Path) -> Connection | None:
        attached: list[Connection] = []  # one, when the data plane has said how it stands

        def heard(event: messages.Message) -> None:
            for one in attached:
                one.feed.dispatch(event)

        def lost(reason: str) -> None:
            for one in attached:
                one.lost = reason
                one.feed.lost(reason)

        try:
            client = self._loop.run(ControlClient.open(path, on_event=heard, on_lost=lost), ATTACH_PATIENCE)
        except (OSError, HelperLost):  # left by a killed one; the next connect removes it
            return None
        try:
            status = self._loop.run(client.request(messages.GetStatus(), messages.Status), ATTACH_PATIENCE)
        except (TelemagicError, TimeoutError):
            self._loop.run(client.close())
            return None
        attached.append(Connection(self._loop, client, status))
        self._attached += attached
        return attached[0]
