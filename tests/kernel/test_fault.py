"""`%tele fault`: what is promised, what is refused, what it says before, and what it does to processes; on no cluster yet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import UsageError

from telemagic import connected_cell, production, promises, rehearsal, surgery
from telemagic.__main__ import main
from telemagic.demo import breaking, faults
from telemagic.outcome import Rehearsal
from telemagic.promises import BY_NAME, CONNECTION, OPTIONS, PROMISES, Outcome, Promise
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from telemagic.connection import Connection
    from telemagic.control_fake import FakeLauncher
    from telemagic.session import Session


@pytest.fixture
def connection(make_session: Callable[[FakeLauncher], Session], launcher: FakeLauncher) -> Connection:
    return make_session(launcher).connect(ConnectOptions())


@pytest.fixture(autouse=True)
def _as_before() -> Generator[None, None, None]:
    yield
    production.use(production.DEFAULT)


# --- promises ----------------------------------------------------------------------------------------------------


def test_the_demo_knows_all_of_its_faults_and_how_long_they_last() -> None:
    of_demo = {one.fault: one for one in PROMISES if one.of_demo}
    assert of_demo.keys() == set(faults.NAMES) - {"clear", "token-renewed"}  # which break nothing
    for name, promise in of_demo.items():
        breaking.check(name, OPTIONS.get(name, {}))
        assert promise.is_lasting == (name in faults.LASTING), name
    assert len(BY_NAME) == len(PROMISES)


def test_what_ends_the_connection_leaves_nothing_and_all_else_leaves_it() -> None:
    for promise in PROMISES:
        assert promise.remains == ("nothing" if promise.outcome is Outcome.LOST else CONNECTION), (
            promise.fault
        )


def test_the_table() -> None:
    frame = promises.table(None)
    assert list(frame.fault) == list(BY_NAME)
    assert frame.possible.isna().all()
    assert frame.attrs["telemagic"]["units"] == {"within": "s"}
    frame = promises.table(frozenset({"carriers-cut"}))
    assert list(frame[frame.possible].fault) == ["carriers-cut"]
    assert not promises.table(frozenset()).possible.any()
    assert dict(frame.dtypes.astype(str)) == dict.fromkeys(frame, "str") | {
        "within": "float64",
        "possible": "boolean",
    }


# --- what came of it ---------------------------------------------------------------------------------------------

CUT = BY_NAME["carriers-cut"]  # within 10 s


@pytest.mark.parametrize(
    ("seconds", "missed", "remains", "verdict", "status"),
    [
        (1.0, "", CONNECTION, "kept", 0),
        (10.0, "", CONNECTION, "kept", 0),
        (10.1, "", CONNECTION, "late", 1),
        (1.0, "not within 30 s: connected", CONNECTION, "not kept", 1),
        (1.0, "", "tele0", "not kept", 1),
    ],
)
def test_a_verdict(seconds: float, missed: str, remains: str, verdict: str, status: int) -> None:
    came = Rehearsal(CUT, "demo", seconds=seconds, missed=missed, remains=remains)
    assert (came.verdict, came.exit_status, came.is_kept) == (verdict, status, status == 0)
    assert f"carriers-cut: {verdict}, {seconds:.2f} s of 10 s" in repr(came)


def test_how_it_shows_itself() -> None:
    came = Rehearsal(CUT, "de<mo", steps=[(0.5, "it\x1b <ended>")], missed="the end", remains=CONNECTION)
    assert repr(came).splitlines() == [
        "carriers-cut: not kept, 0.00 s of 10 s",
        f"  promised  {CUT.sees}",
        "  0.50 s    it\\x1b <ended>",
        "  missed    the end",
        "  remains   the connection",
    ]
    html = came._repr_mimebundle_()["text/html"]
    assert "&lt;ended&gt;" in html
    assert "de&lt;mo" in html
    assert "tm-bad" in html
    assert "<b>Production</b>" not in html
    lost = Rehearsal(BY_NAME["data-plane-killed"], "prod", remains="nothing")
    assert "try: %tele connect" in repr(lost)
    assert "<b>Production</b>" in lost._repr_mimebundle_()["text/html"]


# --- refused, and said before ------------------------------------------------------------------------------------


def refusal(connection: Connection, name: str, **options: bool) -> str:
    with pytest.raises(UsageError) as caught:
        connection.fault(name, say=pytest.fail, **options)
    assert caught.value.hint
    return caught.value.message


def test_what_is_refused(connection: Connection) -> None:
    assert connection.faults() == frozenset()  # the fake data plane is a part of this very process
    assert refusal(connection, "carrier-cut") == "there is no fault 'carrier-cut'"
    assert "demo is none with a traffic manager" in refusal(connection, "carriers-cut")
    for name in ("data-plane-killed", "data-plane-frozen"):
        assert f"(pid {os.getpid()}) is no process that can be signalled" in refusal(connection, name)


def test_production_is_refused_unless_forced(connection: Connection) -> None:
    production.use(["demo"])
    assert "demo matches demo, so it is production" in refusal(connection, "data-plane-killed")
    assert "can be signalled" in refusal(connection, "data-plane-killed", force=True)


def test_who_else_uses_the_connection_is_said(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rehearsal.warnings(connection) == []
    with contextlib.ExitStack() as stack:
        for expected in ("shared with 1 other kernel, whose", "shared with 2 other kernels, whose"):
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.connect(str(connection.socket_path))
            until = time.monotonic() + 5.0  # it counts from when it was accepted
            while not (lines := rehearsal.warnings(connection)) or not lines[0].startswith(expected):
                assert time.monotonic() < until, lines
    monkeypatch.setattr(connected_cell, "_running", ["a cell"])
    assert rehearsal.warnings(connection)[-1].startswith("a %%tele cell is under way")


def test_the_command(connection: Connection, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fault"]) == 0  # attaches to the connection
    said = capsys.readouterr().out
    assert all(name in said for name in BY_NAME)
    assert main(["fault", "carriers-cut"]) == 2
    assert "is none with a traffic manager\n  try: telemagic connect --demo" in capsys.readouterr().err
    assert main(["fault", "carriers-cot"]) == 2
    assert "did you mean 'carriers-cut'?" in capsys.readouterr().err
    connection.disconnect()
    assert main(["fault"]) == 0
    assert main(["fault", "carriers-cut"]) == 1
    assert "nothing is connected" in capsys.readouterr().err


# --- processes ---------------------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(pid: int, *states: str) -> None:
    until = time.monotonic() + 5.0
    while state_of(pid) not in states:
        assert time.monotonic() < until, state_of(pid)
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Generator[int, None, None]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_process_stands_still_for_as_long_as_the_block(sleeper: int) -> None:
    with surgery.stopped(sleeper):
        wait_for(sleeper, "T")
    wait_for(sleeper, "S", "R")
    with contextlib.suppress(KeyboardInterrupt), surgery.stopped(sleeper):
        wait_for(sleeper, "T")
        raise KeyboardInterrupt
    wait_for(sleeper, "S", "R")


def test_a_process_goes_on_when_who_has_stopped_it_is_killed(sleeper: int) -> None:
    code = f"import time\nfrom telemagic import surgery\nwith surgery.stopped({sleeper}):\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as kernel:
        wait_for(sleeper, "T")
        kernel.send_signal(signal.SIGKILL)
    wait_for(sleeper, "S", "R")


def test_what_has_gone_can_be_stopped_and_killed(sleeper: int) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        surgery.kill(process.pid)
        with surgery.stopped(process.pid):
            pass
    surgery.kill(sleeper)
    wait_for(sleeper, "Z")


def test_which_pids_are_within_reach() -> None:
    assert surgery.is_within_reach(os.getppid())
    assert not surgery.is_within_reach(os.getpid())
    assert not surgery.is_within_reach(0)  # kill(2) would take it for our process group


def test_only_connected_sockets_of_that_path_count() -> None:
    table = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/x.sock
0000000000000000: 00000003 00000000 00000000 0001 03 12 /run/x.sock
0000000000000000: 00000003 00000000 00000000 0001 03 13
0000000000000000: 00000003 00000000 00000000 0001 03 14 /run/x.sock.other
0000000000000000: 00000003 00000000 00000000 0001 03 15 /run/x.sock
"""
    assert surgery.kernels_at(Path("/run/x.sock"), table) == 2
    assert surgery.kernels_at(Path("/run/y.sock"), table) == 0


# --- waiting -----------------------------------------------------------------------------------------------------


def test_what_does_not_come_is_told_as_missed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Promise("f", "happens", "sees", 0.05, Outcome.RESET)
    report = Rehearsal(soon, "demo")
    near, far = socket.socketpair()
    with near, far:
        play = rehearsal._Play(connection, report, near, None)
        monkeypatch.setattr(play, "_broken", contextlib.nullcontext)
        play.run()
        assert report.missed == "the open connection did not end within 0.15 s"
        with pytest.raises(rehearsal.Missed, match=r"not within 0\.15 s: rain"):
            play._wait(lambda: False, "rain")
        far.close()
        play._flow_ended()
    assert report.steps[-1][1] == "the open connection ended: its end"
    assert report.remains == CONNECTION
