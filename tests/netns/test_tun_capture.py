"""A session on a real TUN as `tshark` sees it: nothing is sent twice, nothing comes out of order, no window closes."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.netns.near_side import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        shutil.which("tshark") is None, reason="tshark is not installed (sudo apt-get install tshark)"
    ),
]

# A retransmission time-out is 0.2 s on both sides: a machine that stands still for longer makes one, rightly.
ATTEMPTS: Final = 3
SESSION: Final = """
s = connect(ECHO)
for size in (1, 100, 10_000):
    s.sendall(BLOCK[:size]); got = b""
    while len(got) < size: got += s.recv(size)
    assert got == BLOCK[:size]
s.shutdown(socket.SHUT_WR); assert read_all(s) == b""; s.close()
assert upload(SINK, 20_000_123)
assert download(18)
s = connect(15)
while s.recv(1 << 16): pass
s.sendall(b"after the other side's end"); s.close()
"""
VERIFY: Final = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
FAULTS: Final = (
    "_ws.malformed",
    "ip.checksum.status != 1",  # unless verified and good
    "tcp.checksum.status != 1",
    "tcp.connection.rst",
    *(
        f"tcp.analysis.{flag}"
        for flag in (
            "retransmission",
            "fast_retransmission",
            "spurious_retransmission",
            "out_of_order",
            "lost_segment",
            "ack_lost_segment",
            "duplicate_ack",
            "zero_window",
            "zero_window_probe",
            "keep_alive",
            "reused_ports",
        )
    ),
)


def frames(capture: Path, wanted: str) -> list[str]:
    """Return tshark's lines for the frames that match a display filter."""
    done = subprocess.run(
        ["tshark", "-n", "-r", str(capture), *VERIFY, "-Y", wanted],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def faults(capture: Path) -> list[str]:
    return frames(capture, " || ".join(FAULTS))


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_session_is_flawless(family: int, tmp_path: Path) -> None:
    found: list[str] = []
    for attempt in range(ATTEMPTS):
        capture = tmp_path / f"session-{attempt}.pcap"
        _, facts = run(SESSION, "--capture", str(capture), family=family)
        assert facts["drops"] == {}
        assert len(frames(capture, "tcp.connection.syn")) == 4
        assert len(frames(capture, "tcp.flags.fin == 1")) == 8
        assert len(frames(capture, "tcp.len > 30000")) > 300  # offloaded: seen as they crossed the TUN
        assert frames(capture, "!tcp") == []
        found = faults(capture)
        if not found:
            return
    pytest.fail(f"in each of {ATTEMPTS} sessions; the last:\n" + "\n".join(found[:40]))


def test_a_session_without_offload_has_good_checksums(tmp_path: Path) -> None:
    capture = tmp_path / "session.pcap"
    run("print(upload(SINK, 500_123), download(15))", "--no-offload", "--capture", str(capture))
    assert frames(capture, "ip.checksum.status != 1 || tcp.checksum.status != 1 || _ws.malformed") == []
    assert frames(capture, "frame.len > 1500") == []


def test_the_analysis_finds_faults(tmp_path: Path) -> None:
    capture = tmp_path / "rough.pcap"
    run(
        "print(upload(SINK, 500_123), download(15), upload(SINK, 500_123))",
        "--rough",
        "--capture",
        str(capture),
    )
    for flag in ("retransmission", "duplicate_ack"):
        assert frames(capture, f"tcp.analysis.{flag}"), flag
    assert faults(capture)


@pytest.mark.parametrize(
    ("at", "field"), [(24 + 16 + 8, "ip"), (24 + 16 + 20 + 4, "tcp")]
)  # TTL; sequence number
def test_the_analysis_finds_a_bad_checksum(tmp_path: Path, at: int, field: str) -> None:
    capture = tmp_path / "session.pcap"
    run("s = connect(ECHO); s.sendall(b'x'); s.recv(1); s.close()", "--capture", str(capture))
    assert faults(capture) == []
    damaged = bytearray(capture.read_bytes())
    damaged[at] ^= 1  # of the first packet
    capture.write_bytes(damaged)
    assert len(frames(capture, f"{field}.checksum.status != 1")) == 1
