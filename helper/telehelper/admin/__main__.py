"""`python -m telehelper.admin TASK …`: one JSON object per line on standard output, the last one with "done" or "error".

Runs as the user, in a process of its own, because a notebook's kernel must not load what talks to an API server.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

from telehelper.admin.lines import say
from telehelper.errors import TelemagicError
from telehelper.messages import Failed

# Task → the module that has `main(arguments: list[str]) -> dict[str, object]`: what is "done".
TASKS: Final = {"install": "telehelper.admin.install_task", "checkup": "telehelper.admin.checkup"}


def main(arguments: list[str]) -> int:
    """Carry out one task; the exit status says whether it was done."""
    try:
        done = import_module(TASKS[arguments[0]]).main(arguments[1:])
    except TelemagicError as error:
        failed = Failed.of(error)
        say(
            {
                "error": {
                    "slug": failed.slug,
                    "message": failed.message,
                    "hint": failed.hint,
                    "data": failed.data,
                }
            }
        )
        return 1
    say({"done": done})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
