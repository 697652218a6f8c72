"""The `%tele` magic: splits the line, runs the command, and leaves showing the result to IPython."""

from __future__ import annotations

from typing import Any, Final

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class, output_can_be_silenced
from IPython.utils.process import arg_split
from telehelper import errors

from telemagic.parser import Tree
from telemagic.results import Text
from telemagic.session import session

PROG: Final = "%tele"


@magics_class
class TeleMagics(Magics):  # type: ignore[misc]  # IPython is untyped
    """Holds the magic."""

    def __init__(self, shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
        super().__init__(shell)
        self._tree = Tree(PROG)

    @output_can_be_silenced  # type: ignore[untyped-decorator]  # IPython is untyped
    @line_magic  # type: ignore[untyped-decorator]  # IPython is untyped
    def tele(self, line: str) -> object:  # noqa: D102  # set below: `%tele?` shows it
        try:
            understood = self._tree.parse(_split(line))
            if isinstance(understood, Text):
                return understood
            if not understood.command:
                return self._overview()
            return self._tree.run(session(), understood)
        except errors.UsageError as error:
            # IPython shows this very class, no subclass, without a traceback (ipython#14024).
            raise UsageError("\n".join(_lines(error))) from None

    def _overview(self) -> Text:
        connection = session().connection
        if connection is None:
            state = "not connected"
        elif connection.lost:
            state = f"connection to {connection.context} lost: {connection.lost}"
        else:
            state = f"connected to {connection.context}, namespace {connection.namespace}"
        return Text(f"{state}\n\n{self._tree.help().text}")


# `%tele?` shows this; made from the same tree, so it cannot lie.
TeleMagics.tele.__doc__ = Tree(PROG).help().text


def _split(line: str) -> list[str]:
    try:
        # IPython leaves the semicolon that silences the output in the line.
        return list(arg_split(line.rstrip().removesuffix(";"), posix=True))
    except ValueError as error:  # an open quote
        raise errors.UsageError(f"cannot split the line: {error}", hint="close the quotes") from error


def _lines(error: errors.TelemagicError) -> list[str]:
    return [error.message, f"  try: {error.hint}"] if error.hint else [error.message]


def load(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Register the magic."""
    shell.register_magics(TeleMagics(shell))


def unload(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Take the magic away, and its object from the shell's configurables."""
    shell.magics_manager.magics["line"].pop("tele", None)
    shell.magics_manager.registry.pop(TeleMagics.__name__, None)
    shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, TeleMagics)]
