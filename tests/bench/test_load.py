"""The load generator on loopback: sane figures, honest gaps, nothing left."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from telemagic.bench import connects, dial, load, udp_rate
from telemagic.bench.bulk import transfer
from telemagic.bench.dial import FarEnd
from telemagic.bench.load import GROUPS, Load, metric_groups
from telemagic.bench.ports import Ports
from tests.bench import far

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = FarEnd.find(far.LOOPBACK)


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with far.running("--no-iperf3") as ports:
        yield ports


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other tests have left in TIME_WAIT on this machine's loopback."""
    monkeypatch.setattr(load.timewait, "count", lambda: 0)


def of(ports: Ports, **options: object) -> Load:
    return Load(HERE, ports, **{"seconds": 0.1, "quick": True, "udp": True, "sender": "auto", **options})


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, error = process.communicate(timeout=far.WITHIN)
    return process.returncode, out.splitlines(), error


@pytest.fixture
def nobody() -> Iterator[Ports]:
    """Ports that refuse: bound, and nobody listens."""
    with socket.socket() as unused:
        unused.bind((far.LOOPBACK, 0))
        port = unused.getsockname()[1]
        yield Ports(port, port, port, port, None)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    """Ports that accept and never say a word, and a generator that does not wait long."""
    for module in (dial, connects):
        monkeypatch.setattr(module, "PATIENCE", 0.05)
    with socket.create_server((far.LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        yield Ports(port, port, port, port, None)


@pytest.fixture
def closing() -> Iterator[Ports]:
    """Ports that accept, say nothing and close: the server of another program."""
    script = (
        "import socket,sys\ns=socket.create_server(('127.0.0.1',0))\nprint(s.getsockname()[1],flush=True)\n"
    )
    script += "while True:\n c,_=s.accept()\n c.recv(1)\n c.close()\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        yield Ports(port, port, port, port, None)
        process.kill()


# --- figures -----------------------------------------------------------------------------------------------------


def test_a_run_measures_all_and_tells_how_far_it_is(ports: Ports) -> None:
    wanted = [group for group in GROUPS if group != "udp"]
    status, lines, error = finish(
        far.load(
            *("--host", far.LOOPBACK, "--ports", ports.to_json(), "--metrics", ",".join(wanted)),
            *("--seconds", "0.25", "--quick"),
        )
    )
    assert (status, error) == (0, "")
    *progress, last = map(json.loads, lines)
    assert progress == [{"done": group} for group in wanted]
    assert last.keys() == {"results", "notes", "sender"}
    assert last["sender"] == "own"
    assert [note for note in last["notes"] if "not " in note] == []
    assert len([note for note in last["notes"] if note.startswith("rr_under_bulk: beside a download")]) == 1
    results = last["results"]
    assert set(results) == {metric for group in wanted for metric in GROUPS[group]}
    for metric in ("bulk_up_1", "bulk_down_1", "bulk_up_4", "bulk_down_4"):
        assert 1e7 < results[metric] < 1e12  # bit/s
    for p50, p99 in (
        ("rr_p50", "rr_p99"),
        ("connect_p50", "connect_p99"),
        ("rr_p50_under_bulk", "rr_p99_under_bulk"),
    ):
        assert 1e-6 < results[p50] <= results[p99] < 10  # s
    assert 10 < results["connects_per_s"] < 1e6


def test_datagrams(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROUND", "LAST_ROUND"):
        monkeypatch.setattr(udp_rate, name, 0.02)
    run = of(ports)
    run.measure("udp")
    assert 100 < run.results["udp_pps"] < 1e8
    assert 0 <= run.results["udp_loss"] < 1


def test_connections_are_closed_and_no_more_are_made_than_allowed(ports: Ports) -> None:
    found = connects.connects_per_second(HERE, ports.echo, seconds=far.WITHIN, most=300)
    assert found.count >= 300 - connects.AT_ONCE
    assert found.per_second > 0
    assert 0 < found.cpu <= 1.1


def test_ports_that_are_not_free_again_are_noted(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.timewait, "count", lambda: 9_999)
    monkeypatch.setattr(connects, "MOST", 500)
    run = of(ports)
    run.measure("connects_per_s")
    assert run.results["connects_per_s"]
    assert "connects_per_s: 9999 ports in TIME_WAIT from before make it slower" in run.notes


def test_a_time_limit_ends_it_as_well(ports: Ports) -> None:
    found = connects.connects_per_second(HERE, ports.echo, seconds=0.02, most=10**9)
    assert 0 < found.count < 10**6


# --- gaps --------------------------------------------------------------------------------------------------------


def test_udp_that_is_off_is_null_with_a_note(ports: Ports) -> None:
    run = of(ports, udp=False)
    run.measure("udp")
    assert run.results == {"udp_pps": None, "udp_loss": None}
    assert run.notes == ["udp: not measured: this path carries no UDP"]


def test_udp_that_does_not_arrive_is_null_with_a_note(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_rate, "ROUND", 0.01)
    # The TCP port of the counter, but a UDP port of nobody's: what an unreachable UDP is like.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as swallows:
        swallows.bind((far.LOOPBACK, 0))
        monkeypatch.setattr(FarEnd, "at", lambda far_end, _: swallows.getsockname())
        monkeypatch.setattr(
            FarEnd, "dial", lambda _, port: socket.create_connection((far.LOOPBACK, port), far.WITHIN)
        )
        run = of(ports)
        run.measure("udp")
    assert run.results == {"udp_pps": None, "udp_loss": None}
    assert run.notes == ["udp: not measured: no datagram arrived"]


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "rr_under_bulk"])
def test_a_far_end_that_refuses_is_null_with_a_note(nobody: Ports, group: str) -> None:
    run = of(nobody)
    run.measure(group)
    assert run.results == dict.fromkeys(GROUPS[group])
    assert run.notes == [f"{group}: not measured: Connection refused"]


@pytest.mark.parametrize(
    "group", ["bulk_up_1", "bulk_down_1", "bulk_down_4", "rr", "connect", "connects_per_s"]
)
def test_a_far_end_that_is_silent_is_null_with_a_note(silent: Ports, group: str) -> None:
    run = of(silent)
    run.measure(group)
    assert run.results == dict.fromkeys(GROUPS[group])
    assert [note.partition(": not measured: ")[2][:9] for note in run.notes] == ["no answer"]


@pytest.mark.parametrize("group", ["bulk_up_1", "bulk_down_1", "rr", "connect", "connects_per_s", "udp"])
def test_a_far_end_that_is_something_else_is_null_with_a_note(closing: Ports, group: str) -> None:
    run = of(closing)
    run.measure(group)
    assert run.results == dict.fromkeys(GROUPS[group])
    assert len(run.notes) == 1
    assert run.notes[0].startswith(f"{group}: not measured: ")


def test_unless_quick_rr_is_measured_beside_an_upload_as_well(ports: Ports) -> None:
    load = of(ports, quick=False)
    load.measure("rr_under_bulk")
    assert [note.split(" of ")[0] for note in load.notes] == [
        "rr_under_bulk: beside a download",
        "rr_under_bulk: beside an upload",
    ]


def test_rr_under_bulk_without_its_bulk_is_null_with_a_note(nobody: Ports) -> None:
    status, lines, error = finish(
        far.load("--host", far.LOOPBACK, "--ports", nobody.to_json(), "--metrics", "rr_under_bulk")
    )
    assert (status, error) == (0, "")
    found = json.loads(lines[-1])
    assert found["results"] == dict.fromkeys(GROUPS["rr_under_bulk"])
    assert found["notes"] == ["rr_under_bulk: not measured: the bulk flow beside it: Connection refused"]


def test_what_answers_like_no_sink_is_an_error() -> None:
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[1, 2]", b'{"a": 1}', b"x" * (2 << 20)):
        with far_end_that_says(said) as ports, pytest.raises(OSError, match=r"no sink|reset|pipe"):
            transfer(HERE, ports, up=True, flows=1, seconds=0.01)


@contextlib.contextmanager
def far_end_that_says(said: bytes) -> Iterator[Ports]:
    with socket.create_server((far.LOOPBACK, 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while connection.recv(1 << 20):
                    pass
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        yield Ports(port, port, port, port, None)
        thread.join()


def test_iperf3_that_fails_is_replaced_and_said(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.iperf3, "path", lambda: "/bin/false")
    with_iperf3 = Ports(ports.sink, ports.source, ports.echo, ports.udp, 1)
    run = of(with_iperf3)
    assert run.sender == "iperf3"
    run.measure("bulk_up_1")
    assert run.sender == "own"
    assert run.results["bulk_up_1"]
    assert run.notes == [
        "bulk_up_1: iperf3 failed (no result in its report); from here on with our own sender"
    ]


# --- holding -----------------------------------------------------------------------------------------------------


def test_connections_are_held_until_the_end_of_input(ports: Ports) -> None:
    count = 300
    holder = far.load(
        "--host", far.LOOPBACK, "--ports", ports.to_json(), "--hold", str(count), stdin=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == f"holding {count}\n"
    established = [line for line in tcp_sockets() if line == (ports.echo, "01")]
    assert len(established) >= count
    assert finish(holder) == (0, [], "")


def tcp_sockets() -> list[tuple[int, str]]:
    """Return the remote port and the state of each TCP socket; 01 is established."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return [(int(row[2].partition(":")[2], 16), row[3]) for row in rows]


def test_more_than_there_are_descriptors_for_is_refused(ports: Ports) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource, sys; from telemagic.bench.load import main; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--host", far.LOOPBACK, "--ports", ports.to_json(), "--hold", "200"],
        capture_output=True,
        text=True,
        check=False,
        timeout=far.WITHIN,
        stdin=subprocess.DEVNULL,
    )
    assert hard > 100
    assert (done.returncode, done.stdout) == (1, "")
    assert "200 connections cannot be held: Too many open files" in done.stderr
    assert "Traceback" not in done.stderr


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "speed"], "no metric 'speed'"),
        (["--metrics", ""], "no metric ''"),
        (["--metrics", "rr", "--seconds", "0"], "not above 0"),
        (["--metrics", "rr", "--seconds", "61"], "up to 60"),
        (["--metrics", "rr", "--seconds", "nan"], "not above 0"),
        (["--metrics", "rr", "--seconds", "soon"], "no number"),
        (["--metrics", "rr", "--hold", "1"], "not allowed with"),
        (["--hold", "0"], "not above 0"),
        (["--hold", "1000000"], "up to 20000"),
        ([], "is required"),
    ],
)
def test_nonsense_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load.main(["--host", far.LOOPBACK, "--ports", Ports().to_json(), *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no host at all", "--ports", Ports().to_json()], "--host no host at all"),
        (["--host", far.LOOPBACK, "--ports", "{}"], "--ports must be an object"),
        (
            ["--host", far.LOOPBACK, "--ports", Ports(iperf3=None).to_json(), "--sender", "iperf3"],
            "not on both ends",
        ),
    ],
)
def test_what_cannot_work_is_said_with_a_remedy(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.main([*arguments, "--metrics", "rr"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "\n  try: " in error


def test_metrics_and_groups_mean_the_same() -> None:
    assert metric_groups("udp_loss, rr_p99,rr,udp_pps,bulk_up_1") == ["bulk_up_1", "rr", "udp"]
    assert metric_groups(",".join(GROUPS)) == list(GROUPS)


def test_the_metrics_are_those_of_the_table() -> None:
    from telemagic.bench import metrics

    given = [metric for group in GROUPS.values() for metric in group]
    assert sorted([*given, *metrics.RUNNERS]) == sorted(metrics.METRICS)


def test_names_and_both_families_are_looked_up_once() -> None:
    assert FarEnd.find("::1").family is socket.AF_INET6
    assert FarEnd.find("localhost").address in {"127.0.0.1", "::1"}
