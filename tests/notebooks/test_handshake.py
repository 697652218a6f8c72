"""notebooks/05-inside-a-handshake.ipynb: without root, network or time, it shows what its prose says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.notebooks.executed import execute, shown

if TYPE_CHECKING:
    from pathlib import Path


def test_the_handshake_goes_as_told(tmp_path: Path) -> None:
    cells, printed = execute("05-inside-a-handshake.ipynb", tmp_path / "executed.ipynb")
    said = {name: shown(cell) for name, cell in cells.items() if cell.cell_type == "code"}

    # The SYN is not answered until the manager has dialed.
    assert "OPEN  --> manager" in said["syn"]
    assert "SYN ACK" not in said["syn"]
    assert "dst=IPv4Address('198.18.0.9'), dport=5432" in said["open"]
    assert "SYN ACK  seq 7000  ack 101" in said["opened"]
    assert said["established"].endswith("'ESTABLISHED'")
    assert "DATA  b'select 1'  --> manager" in said["query"]

    # A lost segment: the same bytes again, after twice as long each time.
    sent = [float(line.split()[0]) for line in said["again"].splitlines() if "b'one row'" in line]
    assert len(sent) == 3
    assert sent[2] - sent[1] == 2 * (sent[1] - sent[0])

    assert "FIN  --> manager" in said["half"]
    assert "b'goodbye'" in said["still"]
    assert "over: closed" in said["close"]
    assert "ACK RST  seq 0  ack 501" in said["refused"]
    assert said["hole"].count("OPEN") == 1
    assert said["hole"].count("nothing") == 3
    assert "<--" not in said["silence"]
    assert "DIALING" in said["table"]
    assert [line.split()[2] for line in said["flows"].splitlines()[1:]] == ["CLOSED"] * 3
    assert "Dial first\n----------\n" in printed
