"""`%%tele`: one cell that runs connected, and afterwards shows where its flows went.

The cell's first line is rewritten into a line magic before IPython compiles the cell, and what follows the cell hangs on
the event of its end. Running the cell from within a cell magic would be simpler, and would break `await`, the display of
the last value, and tracebacks.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import TelemagicError

from telemagic import attribution, cell_report
from telemagic.commands import connect
from telemagic.session import session

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.attribution import Running
    from telemagic.connection import Connection

MAGIC: Final = "_tele_cell"  # the line magic that the first line becomes
_FIRST: Final = re.compile(r"%%tele(?=\s|$)(?P<rest>[^\n]*)")


def transform(lines: list[str]) -> list[str]:
    """Rewrite a cell that begins with `%%tele`; IPython calls this with each cell's lines, before anything else of ours.

    A cell whose first line ends with `?` asks for help, and one without a body is left for the cell magic to refuse.
    """
    found = _FIRST.match(lines[0]) if lines else None
    body = lines[1:]
    if found is None or found["rest"].rstrip().endswith("?"):
        return lines
    first = f"get_ipython().run_line_magic({MAGIC!r}, {found['rest'].strip()!r})\n"
    if {"-h", "--help"} & set(found["rest"].split()):
        return [first]
    if not "".join(body).strip():
        return lines
    start = next(index for index, line in enumerate(body) if line.strip())
    if body[start].startswith("%%"):
        from IPython.core.inputtransformer2 import cell_magic

        return [first, *body[:start], *cell_magic(body[start:])]
    return [first, *body]


_running: list[ConnectedCell] = []  # those under way; a cell may run another


def is_running() -> bool:
    """Whether such a cell is under way."""
    return bool(_running)


class ConnectedCell:
    """One such cell, from its first line on."""

    def __init__(self, shell: Any, args: Namespace) -> None:  # noqa: ANN401  # IPython is untyped
        self._shell = shell
        self._args = args
        self._cell: Running | None = attribution.watch(shell).innermost
        self._began = time.time()
        self._clock = time.monotonic()
        self._ours = False  # whether the connection ends with the cell
        self._connection: Connection | None = None

    def begin(self, *, plain: bool) -> None:
        """Connect, if need be; whatever happens then, the end of the cell is watched for.

        Parameters
        ----------
        plain
            Whether the line has no flags of connect: then any connection will do.
        """
        current = session().connection
        if current is not None and current.is_open and plain:
            self._connection = current
        else:
            self._connection = connect.run(session(), self._args)
            self._ours = self._connection is not current and not self._args.keep
            self._connection.shown_in = None
        # A silent cell has no other event for its end.
        self._event = "post_run_cell" if self._cell is not None else "post_execute"
        self._callback = self._ended if self._cell is not None else self._end
        self._shell.events.register(self._event, self._callback)
        _running.append(self)

    def _ended(self, result: Any) -> None:  # noqa: ANN401  # IPython is untyped
        assert self._cell is not None  # noqa: S101  # see begin
        if result is None or result.info is self._cell.info:  # not that of a cell within
            self._end()

    def _end(self) -> None:
        self._shell.events.unregister(self._event, self._callback)
        _running.remove(self)
        assert self._connection is not None  # noqa: S101  # begin made it
        report = self._report(self._connection)
        if self._ours and session().connection is self._connection:
            try:
                session().disconnect()
            except TelemagicError as error:  # the cell itself has ended as it did
                report.note = error.message
        if self._args.output:
            self._shell.user_ns[self._args.output] = report
            return
        from IPython.display import display

        display(report)

    def _report(self, connection: Connection) -> cell_report.CellReport:
        number = self._cell.number if self._cell is not None else 0
        seconds = time.monotonic() - self._clock
        try:
            rows = connection.flow_rows()
        except TelemagicError as error:  # it was lost, or the cell has disconnected
            return cell_report.CellReport(
                number, seconds, (), connection.context, f"no flows: {error.message}"
            )
        name = attribution.notebook_name(self._shell)
        ours, by_time = cell_report.of_cell(rows, number, name, self._began)
        note = cell_report.remark(by_time, kept=not self._ours)
        return cell_report.CellReport(number, seconds, tuple(ours), connection.context, note)
