"""The real Linux UDP and ICMP against our stack, over a real TUN in a namespace of its own; no root needed."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.netns

ROOT: Final = Path(__file__).parent.parent.parent
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40  # of TUNSETOFFLOAD (linux/if_tun.h), from Linux 6.2
HOSTS: Final = {4: "198.18.0.", 6: "fd00:198:18::"}
both = pytest.mark.parametrize("family", [4, 6])

PRELUDE: Final = """
import errno, os, resource, select, socket, struct, subprocess
ECHO, LATE, NOW, FAILS = 7, 8, 9, 1000
NET = {net!r}
V6 = ":" in NET
FAMILY = socket.AF_INET6 if V6 else socket.AF_INET
RECVERR = (socket.IPPROTO_IPV6, 25) if V6 else (socket.IPPROTO_IP, 11)
LONGEST = 65_527 if V6 else 65_507
def host(last):
    return NET + format(last, "x" if V6 else "d")
def udp(port):
    s = socket.socket(FAMILY, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect((host(9), port))
    return s
def payload(size, first=0):
    return bytes((first + i) % 251 for i in range(min(size, 251))) * (size // 251 + 1)
def pinger(last):
    s = socket.socket(FAMILY, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6 if V6 else socket.IPPROTO_ICMP)
    s.settimeout(20)
    s.setsockopt(*RECVERR, 1)
    s.connect((host(last), 0))
    return s
def ping(s, sequence, data):
    s.send(struct.pack("!BBHHH", 128 if V6 else 8, 0, 0, 0, sequence) + data)
"""


def run(code: str, *options: str, family: int = 4) -> tuple[list[str], dict[str, Any]]:
    """Run client code against the stack; return its lines and the facts about the stack."""
    if not Path("/dev/net/tun").exists() or shutil.which("unshare") is None:
        pytest.skip("needs /dev/net/tun and unshare (util-linux)")
    text = PRELUDE.format(net=HOSTS[family]) + code
    command = ["unshare", "-Urn", sys.executable, "-m", "tests.netns.udp_shell", *options, "--", text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert lines and lines[-1].startswith("stack: "), done.stderr  # noqa: PT018  # one message for both
    facts = json.loads(lines[-1].removeprefix("stack: "))
    assert facts["status"] == 0, done.stderr
    assert facts["lost"] == [], facts
    return lines[:-1], facts


SIZES: Final = """
s = udp(ECHO)
for size in (0, 1, 1452, 1453, 1472, 1473, 9000, 60_000, LONGEST):
    data = payload(size)[:size]
    assert s.send(data) == size
    assert s.recv(70_000) == data, size
"""


@both
@pytest.mark.parametrize("offload", ["all", "none"])
def test_every_length_up_in_fragments_and_down_in_one_packet(family: int, offload: str) -> None:
    """The kernel cuts what is longer than the MTU of 1500, and takes back what is longer, up to the longest."""
    _, facts = run(SIZES, "--offload", offload, family=family)
    assert facts["flows"] == [["OPEN", "", 9, 9]]
    assert facts["drops"] == {}


SEGMENTED: Final = """
s = udp(ECHO)
s.setsockopt(17, 103, 1000)  # SOL_UDP, UDP_SEGMENT
data = payload(10_500)[:10_500]
assert s.send(data) == len(data)
found = [s.recv(70_000) for _ in range(11)]
assert [len(part) for part in found] == [1000] * 10 + [500]
assert b"".join(found) == data
"""


@both
@pytest.mark.parametrize("offload", ["all", "no-uso"])
def test_an_application_that_sends_many_at_once(family: int, offload: str) -> None:
    _, facts = run(SEGMENTED, "--offload", offload, family=family)
    assert facts["flows"] == [["OPEN", "", 11, 11]]
    has_uso = bool(facts["offload"] & (TUN_F_USO6 if family == 6 else TUN_F_USO4)) and offload == "all"
    assert facts["runs"] == has_uso  # without, the kernel makes single datagrams of it


ERRORS: Final = """
for code in ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EMSGSIZE"):
    s = udp(FAILS + getattr(errno, code))
    s.setsockopt(*RECVERR, 1)  # else the kernel keeps all but the first to itself
    for _ in range(2):
        s.send(b"x")
        try:
            s.recv(1)
        except OSError as error:
            print(code, errno.errorcode[error.errno])
plain = udp(FAILS + errno.ECONNREFUSED)
plain.send(b"x")
try:
    plain.recv(1)
except ConnectionRefusedError:
    print("refused")
"""


@both
def test_an_error_reaches_the_application(family: int) -> None:
    lines, facts = run(ERRORS, family=family)
    heard = {
        # Linux makes EHOSTUNREACH of ICMP's "administratively prohibited", EACCES of ICMPv6's; the last has no code
        "ECONNREFUSED": "ECONNREFUSED",
        "EHOSTUNREACH": "EHOSTUNREACH",
        "ENETUNREACH": "ENETUNREACH",
        "EACCES": "EACCES" if family == 6 else "EHOSTUNREACH",
        "EMSGSIZE": "EHOSTUNREACH",
    }
    assert lines == [f"{code} {heard[code]}" for code in heard for _ in range(2)] + ["refused"]
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", code] for code in heard for _ in range(2)] + [
        ["CLOSED", "ECONNREFUSED"]
    ]


@both
def test_an_application_that_has_gone_closes_the_flow(family: int) -> None:
    _, facts = run(
        """
gone = udp(LATE)
gone.send(b"are you there?")
gone.close()
s = udp(NOW)
s.send(b"now")
assert s.recv(10) == b"now"
""",
        family=family,
    )
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "closed by the application"], ["OPEN", ""]]
    assert facts["resets"] == [errno.ECONNREFUSED]


@both
def test_a_real_ping(family: int) -> None:
    lines, facts = run(
        """
s = pinger(9)
for sequence, size in enumerate((0, 56, 9000, 60_000), 65_533):
    data = payload(size)[:size]
    ping(s, sequence & 0xFFFF, data)
    kind, _, _, _, number = struct.unpack_from("!BBHHH", reply := s.recv(70_000))
    print(kind, number, reply[8:] == data)
""",
        family=family,
    )
    kind = 129 if family == 6 else 0
    assert lines == [f"{kind} {number} True" for number in (65_533, 65_534, 65_535, 0)]
    assert facts["flows"] == [["OPEN", "", 4, 4]]


@both
def test_a_ping_that_cannot_arrive(family: int) -> None:
    lines, facts = run(
        """
s = pinger(10)
for sequence in (1, 2):
    ping(s, sequence, b"hello")
    p = select.poll(); p.register(s, select.POLLERR); assert p.poll(20_000)
    sent, about, _, _ = s.recvmsg(100, 100, socket.MSG_ERRQUEUE)
    code = int.from_bytes(about[0][2][:4], "little")
    print(errno.errorcode[code], struct.unpack_from("!H", sent, 6)[0])
""",
        family=family,
    )
    assert lines == ["EHOSTUNREACH 1", "EHOSTUNREACH 2"]
    assert facts["flows"] == [["OPEN", "", 2, 0]]


@both
def test_a_manager_that_may_not_ping_is_silent(family: int) -> None:
    _, facts = run(
        """
mute, alive = pinger(11), pinger(9)
for sequence in range(3):
    ping(mute, sequence, b"hello")
    ping(alive, sequence, b"hello")
    alive.recv(100)
mute.setblocking(False)
for flags in (0, socket.MSG_ERRQUEUE):
    try:
        raise AssertionError(mute.recvmsg(100, 100, flags))
    except BlockingIOError:
        pass
""",
        "--idle",
        "0.3",
        family=family,
    )
    assert {flow[1] for flow in facts["flows"]} == {"idle", "may not ping"}
    assert facts["drops"]["echo"] >= 1


def test_a_thousand_flows_keep_boundaries_and_order() -> None:
    _, facts = run(
        """
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
flows = [udp(ECHO) for _ in range(1000)]
for first in range(0, 1000, 20):
    batch = flows[first:first + 20]
    for turn in range(5):
        for number, s in enumerate(batch):
            s.send(payload(100, number + turn)[:100 * turn])
    for number, s in enumerate(batch):
        for turn in range(5):
            assert s.recv(1000) == payload(100, number + turn)[:100 * turn]
"""
    )
    assert facts["flows"] == [["OPEN", "", 5, 5]] * 1000


def test_a_stream_of_datagrams_stays_in_order() -> None:
    _, facts = run(
        """
s = udp(ECHO)
for turn in range(250):
    sent = [struct.pack("!I", turn * 40 + n) + bytes(n * 35) for n in range(40)]  # less than any queue takes
    for data in sent:
        s.send(data)
    assert [s.recv(2000) for _ in sent] == sent
"""
    )
    assert facts["flows"] == [["OPEN", "", 10_000, 10_000]]


def test_idle_flows_close() -> None:
    _, facts = run(
        """
flows = [udp(ECHO) for _ in range(3)]
for s in flows:
    s.send(b"x")
    assert s.recv(10) == b"x"
""",
        "--idle",
        "0.2",
    )
    assert [flow[:2] for flow in facts["flows"]] == [["CLOSED", "idle"]] * 3
    assert facts["resets"] == [0] * 3
