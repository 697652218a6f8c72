"""Cells of a real kernel and the flows they cause, on a real cluster: `%%tele`, and whose a flow is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e.inside import Untouched, inside
from tests.e2e.test_ipykernel import ANSI, QUERY, notebook


def reports(outputs: list[dict[str, Any]]) -> list[str]:
    """Return the reports of connected cells among a cell's outputs."""
    shown = [one["data"]["text/plain"] for one in outputs if one["type"] == "display_data"]
    return [text for text in shown if text.startswith("Cell [")]


@inside()
def test_a_connected_cell_shows_its_flows_and_leaves_nothing() -> None:
    untouched = Untouched()
    with notebook() as found:
        found.run_well("%load_ext telemagic")
        outputs = found.run(f"%%tele{QUERY}\nimport asyncio; await asyncio.sleep(0)\n6 * 7")
        assert [one["data"]["text/plain"] for one in outputs if one["type"] == "execute_result"] == ["42"]
        (report,) = reports(outputs)
        assert re.match(r"Cell \[2\]: 1 flow in \d", report), report
        (line,) = [line for line in report.splitlines() if "postgres.shop:5432" in line]
        assert line.count(" ms") == 3, report  # DNS, connect, first byte
        assert "disconnected again" in report
        untouched.check()
        assert found.error("%tele status")[0] == "NotConnected"


@inside()
def test_flows_belong_to_their_cells() -> None:
    with notebook() as found:
        found.connect()  # cells 1 to 3, of which the last one queries
        found.run_well("x = 1")
        found.run_well(QUERY)
        thread = f"import threading\ndef query():\n{QUERY.replace(chr(10), chr(10) + '    ')}\n"
        found.run_well(f"{thread}t = threading.Thread(target=query); t.start(); t.join()")
        found.run_well(
            f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', '''{QUERY}'''], check=True)"
        )
        code = "from telemagic.session import session\nrows = session().connection.flow_rows()\n"
        code += (
            "print(sorted(row.cell for row in rows if row.dport == 5432))"  # those that close last come last
        )
        cells = found.run_well(code)
        assert cells == "[3, 5, 6, 7]\n", cells
        names = found.run_well("print({row.notebook for row in rows if row.dport == 5432})")
        assert names == f"{{'kernel {found.pid}'}}\n"  # nobody has told what this notebook is called
        outputs = found.run(f"%%tele{QUERY}")
        (report,) = reports(outputs)
        assert "1 flow in" in report  # not the four before
        assert "time alone" not in report  # it is known, not guessed
        assert "disconnected" not in report


@inside()
def test_an_error_in_a_connected_cell_is_one_traceback() -> None:
    untouched = Untouched()
    with notebook() as found:
        found.run_well("%load_ext telemagic")
        kind, lines = found.error(f"%%tele{QUERY}\n1 / 0")
        assert kind == "ZeroDivisionError"
        assert "\n".join(lines).count("ZeroDivisionError: division by zero") == 1
        assert not [line for line in lines if ANSI.sub("", line).startswith("File ")]
        untouched.check()


pytestmark = pytest.mark.timeout(90)
