"""The `telemagic` command: the same subcommands as `%tele`, from a shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from telehelper.errors import TelemagicError, UsageError

from telemagic import config, showing
from telemagic.cards import printable
from telemagic.help_text import fold_lines
from telemagic.parser import Tree
from telemagic.results import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemagic.parser import Line
    from telemagic.session import Session

PROG: Final = "telemagic"
_MAGIC: Final = re.compile(r"(?<!%)%tele\b")  # in what is meant for notebooks as well
EX_FAILED: Final = 1
EX_USAGE: Final = 2  # as argparse, and as bash's built-ins
EX_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
WATCH_EVERY: Final = 0.5  # seconds between looks whether a foreground connection is still there


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status is 0, 1 for an error, 2 for a line that cannot be understood."""
    tree = Tree(PROG, config.current)
    try:
        understood = tree.parse(sys.argv[1:] if arguments is None else arguments)
        if isinstance(understood, Text):
            _say(understood)
            return 0
        if not understood.command:
            _say(tree.help())
            return 0
        return _run(tree, understood)
    except TelemagicError as error:
        sys.stderr.write(f"{PROG}: {_for_a_shell(printable(error.message))}\n")
        if error.hint:
            sys.stderr.write(f"  try: {_for_a_shell(printable(error.hint))}\n")
        return EX_USAGE if isinstance(error, UsageError) else EX_FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROG}: interrupted; everything begun was undone\n")
        return EX_INTERRUPTED


def _run(tree: Tree, line: Line) -> int:
    from telemagic.shell import ShellSession

    session = ShellSession()  # starts no thread before it must: `demo shell` needs a process of one thread
    try:
        result = tree.run(session, line)
        if isinstance(result, int):
            return result
        _say(result)
        if line.command == "connect":
            return _stay(session)
        status: int = getattr(result, "exit_status", 0)
        return status
    finally:
        session.close()


def _stay(session: Session) -> int:
    """Hold a connection until Ctrl-C or SIGTERM, or until the helper has gone."""
    connection = session.connection
    assert connection is not None  # noqa: S101  # connect has just returned it
    over = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    _say(Text("connected, Ctrl-C disconnects"))
    try:
        while not over.wait(WATCH_EVERY) and not connection.lost:
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if connection.lost:
        sys.stderr.write(f"{PROG}: {printable(connection.lost)}\n")
        return EX_FAILED
    _say(session.disconnect())
    return 0


def _say(result: object) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    text = _table(result, width) if hasattr(result, "to_string") else _prose(result, width)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prose(result: object, width: int) -> str:
    text = _for_a_shell(repr(result))
    return fold_lines(text, width) if width else text


def _for_a_shell(text: str) -> str:
    """Return text with commands as they are typed here."""
    return _MAGIC.sub(PROG, text)


def _table(frame: object, width: int) -> str:
    import pandas as pd

    assert isinstance(frame, pd.DataFrame)  # noqa: S101  # the only result with to_string
    return printable_lines(showing.lines(frame, width))


def printable_lines(text: str) -> str:
    """Return text of several lines that cannot steer a terminal."""
    return "\n".join(map(printable, text.split("\n")))


if __name__ == "__main__":
    sys.exit(main())
