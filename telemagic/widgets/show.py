"""Chooses how a dashboard is shown: live in a notebook's kernel, else as a card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from telehelper.errors import UsageError

from telemagic import live
from telemagic.widgets.summary import summary

if TYPE_CHECKING:
    from telemagic.cards import Card
    from telemagic.connection import Connection
    from telemagic.widgets.dashboard import Dashboard


def dashboard(connection: Connection, *, hz: float, rows: int, height: int, static: bool) -> Dashboard | Card:
    """Return the live view, or the card."""
    _check("hz", hz, 0.1, 10)
    _check("rows", rows, 1, 100_000)
    _check("height", height, 100, 4000)
    if static or not live.is_kernel(live.current_shell()):
        return summary(json.loads(connection.feed.snapshot()))
    from telemagic.widgets.dashboard import Dashboard  # late: ipywidgets takes 0.1 s

    return Dashboard(connection, hz=hz, rows=rows, height=height)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UsageError(
            f"{name} must be from {least:g} to {most:g}, not {value:g}", hint=f"{name} {least:g}"
        )
