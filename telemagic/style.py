"""The cards' style sheet: a file of its own, `card.css`, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STYLE: Final = "<style>" + Path(__file__).with_name("card.css").read_text(encoding="utf-8") + "</style>"
