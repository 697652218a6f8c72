"""What a task tells the process that started it: one JSON object per line."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(line: dict[str, Any]) -> None:
    """Write one line, at once: somebody watches."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
