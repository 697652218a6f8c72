"""Real runs, small ones: whole and sane, not fast; and nothing is left of one, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bench.schema import check

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.netns

FULL = (sys.executable, "-m", "telemagic", "bench")
COMMAND = (*FULL, "--quick")
WITHIN = 110.0  # seconds; each takes about ten on a quiet machine


def bench(*options: str, quick: bool = True) -> dict[str, Any]:
    done = subprocess.run(
        [*(COMMAND if quick else FULL), "--json", *options],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress into a pipe
    body: dict[str, Any] = json.loads(done.stdout)
    check(body)
    return body


def values(body: dict[str, Any]) -> dict[tuple[str, str], float | None]:
    return {(row["path"], row["metric"]): row["value"] for row in body["results"]}


def test_our_ways() -> None:
    metrics = ["bulk_up_1", "rr_p50", "bytes_per_idle_flow", "idle_cpu", "recovery_s"]
    body = bench("--paths", "raw,rtt20", "--metrics", ",".join(metrics))
    found = values(body)
    notes = body["machine"]["notes"]
    assert list(found) == [(path, metric) for path in ("raw", "rtt20") for metric in metrics]
    assert [metric for metric in metrics if found["raw", metric] is None] == metrics[2:]
    assert [metric for metric in metrics if found["rtt20", metric] is None] == [], notes
    assert min(found[path, "bulk_up_1"] or 0 for path in ("raw", "rtt20")) > 1e6
    assert (found["rtt20", "rr_p50"] or 0) >= 0.020
    assert abs(found["rtt20", "bytes_per_idle_flow"] or 0) < 64 * 1024, notes
    assert 0 <= (found["rtt20", "idle_cpu"] or 0) < 0.5
    assert 0 < (found["rtt20", "recovery_s"] or 0) < 15
    ratios = {(row["path"], row["metric"]): row["ratio"] for row in body["results"]}
    assert ratios["raw", "bulk_up_1"] == 1.0
    assert ratios["rtt20", "rr_p50"] > 1.0
    assert ratios["rtt20", "idle_cpu"] is None


@pytest.mark.slow
def test_ten_thousand_idle_flows_on_two_ways() -> None:
    """Not quick. The second way gets a new manager, or the first one's memory would hide that of its flows."""
    body = bench("--paths", "tcp,portforward", "--metrics", "bytes_per_idle_flow", quick=False)
    for row in body["results"]:
        # Less than a few hundred bytes for a flow with its addresses, windows and tables would be no measurement.
        assert 500 < (row["value"] or 0) < 16 * 1024, body["machine"]["notes"]


def test_people_get_a_table_and_a_bar(tmp_path: Path) -> None:
    """In a terminal: the bar on standard error, gone at the end; the table on standard output. With the peers."""
    master, slave = os.openpty()
    options = ["--paths", "raw,sshuttle,ssh-L", "--metrics", "rr_p50"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=slave, text=True, env=environment
    ) as process:
        os.close(slave)
        out, _ = process.communicate(timeout=WITHIN)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert process.returncode == 0, shown
    assert list(tmp_path.iterdir()) == []  # no keys, no logs
    assert "0/4  demo cluster" in shown
    assert "4/4  ssh-L" in shown
    assert shown.endswith("\r\x1b[K")
    about, head, *rows = out.splitlines()
    assert "cores" in about
    assert head.split() == ["path", "metric", "value", "ratio", "target", "met"]
    first = rows[0].split()
    assert first[:2] == ["raw", "rr_p50"]
    assert first[3] in {"µs", "ms"}, out
    for path, program in (("sshuttle", "sshuttle"), ("ssh-L", "sshd")):
        measured = [row.split() for row in rows if row.split()[:2] == [path, "rr_p50"]]
        excuses = [row for row in rows if row.startswith(f"note: {path}: not measured: ")]
        # Not installed: a note and no row. Refused by the machine: a note and a row without a value. Else a value.
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            assert (len(measured), len(excuses)) == (0, 1), out
        else:
            assert (measured[0][2] == "-") is bool(excuses), out


def test_the_magic() -> None:
    """`%tele bench` in IPython: a result that shows itself and is data. Over the port-forward, with a cut."""
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'telemagic')\n"
        "line = 'bench --quick --paths portforward --metrics rr_p50,recovery_s'\n"
        "result = shell.run_line_magic('tele', line)\n"
        "data, _ = shell.display_formatter.format(result)\n"
        "assert sorted(data) == ['text/html', 'text/plain'], data\n"
        "assert all('recovery_s' in text for text in data.values()), data\n"
        "print(result.to_json())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    check(body)
    found = values(body)
    assert 0 < (found["portforward", "rr_p50"] or 0) < 1, body["machine"]["notes"]
    assert 0 < (found["portforward", "recovery_s"] or 0) < 15


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_is_broken_off(number: signal.Signals, tmp_path: Path) -> None:
    """The bench is ended amid its work; that everything else then ends, too, is seen by the guard of all tests."""
    master, slave = os.openpty()
    command: Sequence[str] = [*COMMAND, "--paths", "portforward", "--metrics", "bulk_up_1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        os.close(slave)
        shown = ""
        until = time.monotonic() + WITHIN
        while "1/2  portforward" not in shown and time.monotonic() < until:
            shown += os.read(master, 1 << 16).decode()
        while not _runs("telehelper.datapath") and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)
        out, _ = process.communicate(timeout=WITHIN)
    os.close(master)
    assert "1/2  portforward" in shown
    assert out == ""
    assert list(tmp_path.iterdir()) == []
    assert process.returncode == (130 if number is signal.SIGINT else -number)


def _runs(module: str) -> bool:
    """Tell whether a process of these tests runs a module."""
    mark = f"TELEMAGIC_TEST_RUN={os.environ['TELEMAGIC_TEST_RUN']}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if module.encode() in words.split(b"\0") and mark in environment.split(b"\0"):
            return True
    return False
