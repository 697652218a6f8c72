"""A TUN that overflows, fails, goes down, and a line that loses packets: the kernel's TCP and ours repair all of it."""

from __future__ import annotations

from typing import Final

import pytest

from tests.netns.near_side import run

pytestmark = pytest.mark.netns

BOTH_FAMILIES: Final = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
BOTH_WAYS: Final = "print(upload(SINK, 5_000_123), download(17))"


@pytest.mark.parametrize(
    ("family", "options"), [(4, ()), (6, ("--no-offload",))], ids=["IPv4", "IPv6-no-offload"]
)
def test_a_queue_that_overflows_loses_nothing(family: int, options: tuple[str, ...]) -> None:
    lines, facts = run(
        """
flows = [connect(ECHO) for _ in range(40)]
stall = connect(STALL)
stall.sendall(b"x"); time.sleep(STALL_TIME / 6)
for i, s in enumerate(flows):
    s.sendall(b"%03d" % i * 300)
def whole(s, size):
    got = b""
    while len(got) < size:
        got += s.recv(size)
    return got
print(all(whole(s, 900) == b"%03d" % i * 300 for i, s in enumerate(flows)))
for s in flows:
    s.close(); time.sleep(0.002)
""",
        "--queue",
        "10",
        *options,
        family=family,
    )
    assert lines == ["True"]
    assert facts["overflow"] >= 30  # of forty packets, ten found room


@BOTH_FAMILIES
@pytest.mark.parametrize(
    ("errors", "every"), [("EAGAIN", "3"), ("EAGAIN ENOBUFS ENOMEM", "11")], ids=["waiting", "dropped"]
)
def test_writes_that_fail_lose_nothing(family: int, errors: str, every: str) -> None:
    failures = [word for name in errors.split() for word in ("--fail", name)]
    lines, facts = run(BOTH_WAYS, "--every", every, *failures, family=family)
    assert lines == ["True True"]
    assert facts["failed writes"] > 5


@BOTH_FAMILIES
def test_a_line_that_loses_doubles_and_swaps_packets(family: int) -> None:
    lines, facts = run(
        "print(upload(SINK, 500_123), download(15), upload(SINK, 500_123))", "--rough", family=family
    )
    assert lines == ["True True True"]
    assert min(facts["doubled"]) > 0
    assert facts["swapped"][1] > 0
    assert facts["dropped"][1] > 0


@BOTH_FAMILIES
def test_a_link_that_goes_down_and_up_again_loses_nothing(family: int) -> None:
    lines, facts = run(
        """
from tests.netns.tun_shell import LINES
def flap():
    for lines in (["link set tt0 down"], LINES):
        for line in lines:
            subprocess.run(["ip", *line.split()], check=False, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
results = []
def fetch():
    results.append(download(18))
threads = [threading.Thread(target=fetch) for _ in range(2)]
for thread in threads: thread.start()
time.sleep(0.02)
flap()
for thread in threads: thread.join()
print(results, upload(SINK, 1_000_123))
""",
        family=family,
    )
    assert lines == ["[True, True] True"]
    assert facts["failed writes"] > 0
