"""The doctor: each branch of each check on a machine made of files, and the real machine and a real socket beside it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper import messages, observing, views
from telehelper.errors import HelperLost

import telemagic
from telemagic import elevate, frames, helper_copy, looking
from telemagic.__main__ import main
from telemagic.control_fake import STATUS, FakeLauncher, Script
from telemagic.doctor import checks, cluster, connected
from telemagic.doctor.diagnosis import Diagnosis, Finding, Level
from telemagic.doctor.machine import PROBE, Machine, Tun, interfaces, sudo_is_silent, sudo_runs_netd, try_tun
from telemagic.results import Status
from tests.kernel.test_cards import EVIL, Tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.session import Session

OK, WARNING, PROBLEM = Level
ROOT = elevate.Rights(0, 1 << elevate.CAP_NET_ADMIN, 0, no_new_privs=False)
USER = elevate.Rights(1000, 0, 0, no_new_privs=False)
BOOT = "0b6e4b6e-0000-4000-8000-000000000001"
FILES = {
    "dev/net/tun": "",
    "etc/nsswitch.conf": "passwd: files\nhosts: files dns\n",
    "etc/resolv.conf": "nameserver 192.0.2.53\n",
    "proc/sys/kernel/random/boot_id": f"{BOOT}\n",
    "proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
    "proc/sys/net/ipv6/conf/default/disable_ipv6": "0\n",
    "proc/self/mountinfo": "22 1 0:5 / /proc rw - proc proc rw\n",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path / "machine"
    write(root, FILES)
    return Machine(
        root=root,
        release="6.18.4-generic",
        rights=lambda: ROOT,
        sudo_is_silent=lambda _: True,
        try_tun=lambda: Tun((), (), 0x67),
        interfaces=lambda: ["lo", "eth0", "telegraf0"],
        version=lambda package: f"1.{len(package)}",
    )


def findings(machine: Machine, *devices: str) -> dict[str, Finding]:
    return {one.check: one for one in checks.examine_machine(machine, devices)}


@pytest.mark.usefixtures("kubeconfig")
def test_a_healthy_machine(machine: Machine) -> None:
    found = findings(machine)
    assert {one.level for one in found.values()} == {OK}
    assert not any(one.remedy for one in found.values())
    assert found["TUN offload"].found == "checksum, TSO4, TSO6, USO4, USO6"
    assert found["kubeconfig"].found.startswith("context demo of ")
    assert found["kubeconfig"].found.endswith("config: https://127.0.0.1:6443")
    assert "grpcio 1.6" in found["versions"].found
    assert found["leftovers"].found == "none"


# --- root and the device -----------------------------------------------------------------------------------------


def test_no_device(machine: Machine) -> None:
    (machine.root / "dev/net/tun").unlink()
    found = findings(machine)["TUN device"]
    assert (found.level, found.remedy) == (PROBLEM, elevate.TUN_HINT)


def test_a_device_that_does_not_open(machine: Machine) -> None:
    (machine.root / "dev/net/tun").unlink()
    (machine.root / "dev/net/tun").mkdir()
    assert findings(machine)["TUN device"].level is PROBLEM
    machine.rights = lambda: USER  # root will open it, not we
    assert findings(machine)["TUN device"].found == "/dev/net/tun is there"


@pytest.mark.parametrize(
    ("rights", "silent", "level", "text"),
    [
        (ROOT, True, OK, "root already, no sudo needed"),
        (elevate.Rights(1000, 0, 1 << elevate.CAP_NET_ADMIN, no_new_privs=True), True, OK, "CAP_NET_ADMIN"),
        (elevate.Rights(0, 0, 0, no_new_privs=False), True, PROBLEM, "root here lacks the capability"),
        (USER, True, OK, "sudo, without a password"),
        (USER, False, OK, "sudo, which will ask for a password"),
        (elevate.Rights(1000, 0, 0, no_new_privs=True), True, PROBLEM, "no_new_privs is set"),
    ],
)
def test_ways_to_root(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rights: Any,
    silent: bool,
    level: Level,
    text: str,
) -> None:
    sudo = tmp_path / "sudo"
    sudo.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine.rights, machine.sudo_is_silent = lambda: rights, lambda path: path == str(sudo) and silent
    found = findings(machine)["root"]
    assert (found.level, text in found.found, bool(found.remedy)) == (level, True, level is PROBLEM)


def test_no_sudo(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    machine.rights = lambda: USER
    found = findings(machine)["root"]
    assert (found.level, found.remedy) == (PROBLEM, elevate.NO_ROOT_HINT)


def test_whether_sudo_is_silent(tmp_path: Path) -> None:
    for name, status in (("yes", 0), ("no", 1)):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "-n -- true" ] || exit 9\nexit {status}\n')
        script.chmod(0o755)
        assert sudo_is_silent(str(script)) == (status == 0)
    assert not sudo_is_silent(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("state", "permitted", "text"),
    [
        (helper_copy.READY, True, "without a password for the root-owned copy of netd"),
        (helper_copy.READY, False, "which will ask for a password"),
        (helper_copy.OTHER, True, "which will ask for a password"),  # this environment's is run then
    ],
)
def test_no_password_is_announced_where_the_copy_needs_none(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, permitted: bool, text: str
) -> None:
    sudo = tmp_path / "sudo"
    sudo.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(helper_copy, "look", lambda _: helper_copy.Copy(state, "1", "why"))
    program = str(helper_copy.DIRECTORY / "netd")
    machine.rights, machine.sudo_is_silent = lambda: USER, lambda _: False
    machine.sudo_runs_netd = lambda *asked: permitted and asked == (str(sudo), program)
    assert text in findings(machine)["root"].found


def test_whether_sudo_runs_netd(tmp_path: Path) -> None:
    for name, status in (("yes", os.EX_CONFIG), ("no", 1), ("odd", 0)):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "-n -- /x/netd" ] || exit 9\nexit {status}\n')
        script.chmod(0o755)
        assert sudo_runs_netd(str(script), "/x/netd") == (name == "yes")


def test_no_user_namespaces(machine: Machine) -> None:
    machine.try_tun = lambda: Tun(("this machine refuses user namespaces", "sysctl"), (), 7)
    found = findings(machine)["user namespaces"]
    assert (found.level, found.remedy) == (WARNING, "sysctl")
    assert "no demo cluster" in found.found


@pytest.mark.parametrize(
    ("bits", "level", "text"),
    [
        (0x67, OK, "checksum, TSO4, TSO6, USO4, USO6"),
        (0x7, OK, "checksum, TSO4, TSO6; large UDP datagrams need Linux 6.2"),
        (0x1, WARNING, "checksum: works, at about a tenth of the speed"),
        (0, WARNING, "none: works, at about a tenth of the speed"),
    ],
)
def test_offload(bits: int, level: Level, text: str, machine: Machine) -> None:
    machine.try_tun = lambda: Tun((), (), bits)
    found = findings(machine)["TUN offload"]
    assert (found.level, found.found) == (level, text)


def test_offload_that_could_not_be_tried(machine: Machine) -> None:
    machine.try_tun = lambda: Tun((), ("cannot open /dev/net/tun: Permission denied", "chmod"), 0)
    found = findings(machine)["TUN offload"]
    assert found == Finding(
        "TUN offload", WARNING, "unknown: cannot open /dev/net/tun: Permission denied", "chmod"
    )


@pytest.mark.parametrize(
    ("release", "level"),
    [("6.18.4", OK), ("5.11.0-1", OK), ("5.10.0-28-amd64", WARNING), ("4.19", WARNING), ("odd", WARNING)],
)
def test_kernel(machine: Machine, release: str, level: Level) -> None:
    found = findings(replace(machine, release=release))["kernel"]
    assert (found.level, release in found.found) == (level, True)


@pytest.mark.parametrize("which", ["all", "default"])
def test_ipv6_disabled(machine: Machine, which: str) -> None:
    write(machine.root, {f"proc/sys/net/ipv6/conf/{which}/disable_ipv6": "1\n"})
    found = findings(machine)["IPv6"]
    assert (found.level, found.remedy) == (WARNING, f"sudo sysctl -w net.ipv6.conf.{which}.disable_ipv6=0")


def test_no_ipv6(machine: Machine) -> None:
    (machine.root / "proc/sys/net/ipv6/conf/all/disable_ipv6").unlink()
    assert findings(machine)["IPv6"].level is WARNING


# --- names and leftovers -----------------------------------------------------------------------------------------


def link(root: Path, target: str) -> None:
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").symlink_to(target)


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (lambda _: None, OK, "is a file, rewritten"),
        (lambda root: link(root, "/run/systemd/resolve/stub-resolv.conf"), OK, "systemd-resolved: "),
        (lambda root: link(root, "/run/resolvconf/resolv.conf"), OK, "a link: "),
        (lambda root: (root / "etc/resolv.conf").unlink(), WARNING, "there is no /etc/resolv.conf"),
        (
            lambda root: write(root, {"proc/self/mountinfo": "9 1 0:5 / /etc/resolv.conf rw - ext4 x rw\n"}),
            OK,
            "mount of a container",
        ),
        (
            lambda root: write(root, {"etc/nsswitch.conf": "hosts: files\n"}),
            PROBLEM,
            "no name server is ever asked",
        ),
        (lambda root: write(root, {"etc/nsswitch.conf": "hosts: resolve\n"}), OK, "is a file"),
        (lambda root: (root / "etc/nsswitch.conf").unlink(), OK, "is a file"),  # musl has none
        (lambda root: write(root, {"etc/resolv.conf": marker(1)}), OK, "ours, while connected"),
    ],
)
def test_names(machine: Machine, change: Callable[[Path], None], level: Level, text: str) -> None:
    change(machine.root)
    found = findings(machine)["names"]
    assert (found.level, text in found.found) == (level, True), found


def marker(pid: int, boot: str = BOOT) -> str:
    return (
        f'# telemagic netd {pid} 4711 {boot}\n# was {{"kind": "absent", "text": ""}}\nnameserver 198.19.0.1\n'
    )


def stat(state: str = "S", started: int = 4711) -> str:
    return f"77 (a b) c) {state} {' '.join(['0'] * 18)} {started} 0\n"


@pytest.mark.parametrize(
    ("files", "is_stale"),
    [
        ({"etc/resolv.conf": marker(77), "proc/77/stat": stat()}, False),
        ({"etc/resolv.conf": marker(77), "proc/77/stat": stat("Z")}, True),
        ({"etc/resolv.conf": marker(77), "proc/77/stat": stat(started=4712)}, True),  # another one's pid now
        ({"etc/resolv.conf": marker(77, "another-boot"), "proc/77/stat": stat()}, True),
        ({"etc/resolv.conf": marker(77)}, True),
    ],
)
def test_our_resolv_conf_is_left(machine: Machine, files: dict[str, str], is_stale: bool) -> None:
    write(machine.root, files)
    found = findings(machine)["leftovers"]
    assert found.level is (WARNING if is_stale else OK)
    assert ("netd 77 has gone" in found.found) == is_stale


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ("absent", OK, "this environment's"),
        ("ready", OK, "the root-owned copy"),
        ("other", WARNING, "an older one"),
        ("unsafe", PROBLEM, "not to be trusted: an older one"),
    ],
)
def test_which_netd_would_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, state: str, level: Level, words: str
) -> None:
    monkeypatch.setattr(helper_copy, "look", lambda _: helper_copy.Copy(state, "1", "an older one"))
    found = findings(machine)["netd"]
    assert found.level is level
    assert words in found.found
    assert bool(found.remedy) is (level is not OK)


def test_the_marker_is_what_netd_writes(machine: Machine) -> None:
    from telehelper.netd.resolvconf import Former, Layer, Owner, render

    order = messages.SetDns("resolvconf", "198.19.0.1", ("svc",))
    text = Layer(Owner(77, 4711, BOOT), Former("absent"), render(order)).text()
    write(machine.root, {"etc/resolv.conf": text})
    assert machine.stale_netd() == 77
    write(machine.root, {"proc/77/stat": stat()})
    assert machine.stale_netd() == 0


def test_a_process_is_known_by_its_start() -> None:
    from telehelper.netd.resolvconf import Owner

    mine = Owner.of(os.getpid())
    assert mine is not None
    text = f"# telemagic netd {mine.pid} {mine.started} {mine.boot}\n"

    class Here(Machine):
        def read(self, path: str) -> str | None:
            return text if path == "etc/resolv.conf" else super().read(path)

    assert Here().stale_netd() == 0


def test_an_interface_that_nobody_uses(machine: Machine) -> None:
    machine.interfaces = lambda: ["lo", "tele0", "tele12"]
    found = findings(machine, "tele0")["leftovers"]
    assert (found.level, found.remedy) == (
        WARNING,
        "if nobody is connected: sudo ip link delete tele12",
    )
    assert findings(machine, "tele0", "tele12")["leftovers"].level is OK


# --- software and configuration ----------------------------------------------------------------------------------


def test_missing_packages(machine: Machine) -> None:
    def version(package: str) -> str:
        if package in {"uvloop", "aiohttp"}:
            raise metadata.PackageNotFoundError(package)
        return "1"

    machine.version = version
    found = findings(machine)["versions"]
    assert (found.level, found.remedy) == (PROBLEM, "pip install aiohttp uvloop")


def test_the_release_that_sends_no_token(machine: Machine) -> None:
    machine.version = lambda _: "36.0.0"
    assert findings(machine)["versions"].level is PROBLEM


def test_kubeconfig(machine: Machine, kubeconfig: Path) -> None:
    look = partial(checks.examine_machine, machine)
    assert look(context="staging")[-1].found.startswith("context staging of")
    wrong = look(context="stagin")[-1]
    assert (wrong.level, wrong.remedy) == (PROBLEM, "did you mean 'staging'?")
    assert look(kubeconfig_path="/none")[-1].level is PROBLEM
    kubeconfig.unlink()
    assert look()[-1].level is WARNING  # there is still the demo cluster


def test_a_check_that_breaks_is_a_finding(machine: Machine) -> None:
    def explode() -> list[str]:
        raise RuntimeError("boom")

    machine.interfaces = explode
    found = findings(machine)
    assert found["leftovers"] == Finding("leftovers", WARNING, "could not be checked: RuntimeError: boom")
    assert found["kernel"].level is OK


# --- a connection ------------------------------------------------------------------------------------------------


def status(**changes: object) -> Status:
    return Status(replace(STATUS, **changes))  # type: ignore[arg-type]  # the fields' own types


@pytest.mark.parametrize(
    ("verdict", "level", "text"),
    [
        (connected.state(status()), OK, "to demo, namespace shop, on tele0"),
        (connected.state(status(state="reconnecting", last_error="reset")), PROBLEM, "reconnecting to demo"),
        (connected.state(status(state="closed")), PROBLEM, "no reason known"),
        (connected.round_trip(status()), OK, "1.40 ms to the manager"),
        (connected.round_trip(status(manager="")), OK, "1.40 ms to the API server"),
        (connected.round_trip(status(rtt=-1.0)), WARNING, "not measured yet"),
        (connected.round_trip(status(rtt=0.3)), WARNING, "300.00 ms to the manager, which is slow"),
        (connected.carriers(status()), OK, "2 up"),
        (connected.carriers(status(carriers=0)), PROBLEM, "none is up"),
        (connected.offload(status(offload="checksum TSO4 TSO6")), OK, "checksum TSO4 TSO6"),
        (connected.offload(status(offload="no offload")), WARNING, "no offload: works"),
        (connected.offload(status(offload="")), WARNING, "none: works"),
        (connected.drops({}), OK, "none"),
        (connected.drops({"ICMP": 1, "RST of no flow": 7}), OK, "7 RST of no flow, 1 ICMP"),
        (connected.drops({"TUN queue full": 3}), WARNING, "3 TUN queue full"),
    ],
)
def test_what_a_connection_says(verdict: checks.Verdict, level: Level, text: str) -> None:
    assert (verdict[0], text in verdict[1]) == (level, True), verdict


def test_the_reasons_that_worry_are_those_of_the_core() -> None:
    import telehelper

    helper = Path(telehelper.__file__).parent
    source = "".join(
        path.read_text() for folder in ("core", "datapath") for path in (helper / folder).glob("*.py")
    )
    assert {reason for reason in connected.WORRYING if f'"{reason}"' not in source} == set()


class Answering:
    """A connection that knows whether its resolver was asked."""

    def __init__(self, *asked: str) -> None:
        self.names: list[str] = []
        self._asked = asked

    def was_asked(self, name: str) -> bool:
        self.names.append(name)
        return any(ending in ("*", name[-len(ending) :]) for ending in self._asked)


MISSING = looking.SystemAnswer((), 0.004, "Name or service not known", is_missing=True)


@pytest.mark.parametrize(
    ("asked", "answer", "dns", "level", "text"),
    [
        ("*", MISSING, "resolvconf", OK, "programs ask telemagic's resolver (resolvconf), 4 ms"),
        (".cluster.local", MISSING, "resolved", OK, "(resolved)"),
        (
            "",
            MISSING,
            "resolved",
            PROBLEM,
            "programs do not ask telemagic's resolver (resolved, 198.19.240.2)",
        ),
        ("*", MISSING._replace(seconds=5.0), "resolvconf", WARNING, "wait 5000 ms"),
        ("", looking.SystemAnswer(("203.0.113.7",), 0.1, ""), "resolvconf", PROBLEM, "with 203.0.113.7"),
        ("", MISSING, "none", WARNING, "--dns none"),
        ("", MISSING, "kernel", WARNING, "not for this process"),
        ("*", MISSING, "kernel", OK, "(kernel)"),
    ],
)
def test_the_way_of_lookups(
    asked: str,
    answer: looking.SystemAnswer,
    dns: str,
    level: Level,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []
    monkeypatch.setattr(looking, "ask_system", lambda name: names.append(name) or answer)
    for _ in range(2):
        found = connected.lookups(Answering(asked), status(dns=dns))  # type: ignore[arg-type]  # as far as it is used
        assert (found[0], text in found[1]) == (level, True), found
    assert len(set(names)) == len(names)  # each time a name that nobody can have remembered
    assert all(re.fullmatch(r"tele-doctor-[0-9a-f]{8}\.shop\.svc", name) for name in names)


def test_libraries_that_look_names_up_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from telemagic.names.bypass import Bypass

    fixed = Bypass("dnspython", "fixed", "asks telemagic's resolver")
    bad = Bypass("gRPC", "open", "was loaded before", "restart the kernel, then connect first")
    for found, expected in (
        ([], (OK, "all in this process ask the machine's resolver", "")),
        ([fixed], (OK, "dnspython: asks telemagic's resolver", "")),
        ([fixed, bad, bad], (WARNING, "gRPC: was loaded before; gRPC: was loaded before", bad.remedy)),
    ):
        monkeypatch.setattr("telemagic.names.bypasses", lambda found=found: found)
        assert connected.libraries() == expected


def table(*states: str) -> pd.DataFrame:
    rows = tuple(
        messages.RouteRow(f"10.{i}.0.0/16", "tele0", "pods", "x", state, "because")
        for i, state in enumerate(states)
    )
    return frames.routes(messages.RouteTable(rows))


@pytest.mark.parametrize(
    ("states", "level", "text"),
    [
        (("applied", "applied"), OK, "2 applied"),
        (("applied", "mapped"), OK, "1 applied; 10.1.0.0/16 mapped (because)"),
        (("applied", "conflict"), PROBLEM, "10.1.0.0/16: because"),
        ((), OK, "0 applied"),
    ],
)
def test_the_routes_of_a_connection(states: tuple[str, ...], level: Level, text: str) -> None:
    class Routed:
        def routes(self) -> pd.DataFrame:
            return table(*states)

    found = connected.routes(Routed())  # type: ignore[arg-type]  # as far as it is used
    assert (found[0], found[1]) == (level, text)


# --- other VPNs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "programs", "level", "text"),
    [
        ([], [], OK, "none"),
        (["eth0", "docker0", "tele0", "telegraf0"], ["bash"], OK, "none"),
        (["tailscale0"], ["tailscaled"], OK, "Tailscale (tailscale0): an overlap"),
        (["wg0", "tun3"], [], OK, "a VPN (tun3), WireGuard (wg0): an overlap"),
        ([], ["openvpn"], OK, "OpenVPN: an overlap"),
        (["tel0"], [], WARNING, "Telepresence (tel0): two that lead the same names"),
        ([], ["kubevpn", "sshuttle"], WARNING, "kubevpn, sshuttle: two"),
    ],
)
def test_other_vpns(
    machine: Machine, devices: list[str], programs: list[str], level: Level, text: str
) -> None:
    machine.interfaces = lambda: ["lo", *devices]
    write(machine.root, {f"proc/{number}/comm": f"{name}\n" for number, name in enumerate(programs, 100)})
    found = findings(machine)["other VPNs"]
    assert (found.level, text in found.found, bool(found.remedy)) == (level, True, level is WARNING), found


# --- the cluster -------------------------------------------------------------------------------------------------


ASKED = cluster.Question("/config", "demo", "shop", "telemagic", is_connected=True)


def test_the_question_about_a_cluster(session: Session, kubeconfig: Path) -> None:
    found = cluster.choose(None, "", "staging")
    assert found is not None
    assert found.arguments == [
        *("--kubeconfig", str(kubeconfig), "--context", "staging"),
        *("--namespace", "", "--manager-namespace", "telemagic"),
    ]
    assert cluster.choose(None, "", "nowhere") is None
    connection = telemagic.connect(namespace="shop", manager_namespace="tools")
    mine = cluster.choose(connection, "", "")
    assert mine == cluster.Question(str(kubeconfig), "demo", "shop", "tools", is_connected=True)
    assert mine.arguments[-1] == "--connected"
    other = cluster.choose(connection, "", "staging")
    assert other is not None
    assert (other.context, other.is_connected) == ("staging", False)


def test_what_the_child_finds() -> None:
    asked: list[object] = []

    def run(task: str, arguments: object) -> dict[str, object]:
        asked.append((task, arguments))
        return {"findings": [["API server", "ok", "there", ""], ["way in", "problem", "none", "ask"]]}

    found = cluster.Checkup(ASKED, run).wait()
    assert found == [Finding("API server", OK, "there"), Finding("way in", PROBLEM, "none", "ask")]
    assert asked == [("checkup", ASKED.arguments)]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (
            HelperLost("checkup ended without a result: boom"),
            "not checked: checkup ended without a result: boom",
        ),
        ({"findings": [["API server", "splendid", "there", ""]]}, "'splendid' is not a valid Level"),
        ({}, "KeyError('findings')"),
        ({"findings": 3}, "TypeError"),
    ],
)
def test_a_child_that_fails_is_a_finding(outcome: object, text: str) -> None:
    def run(*_: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    (found,) = cluster.Checkup(ASKED, run).wait()
    assert (found.check, found.level, text in found.found) == ("cluster", WARNING, True), found


def test_a_child_that_hangs_keeps_nobody_waiting() -> None:
    over = threading.Event()
    checkup = cluster.Checkup(ASKED, lambda *_: {"findings": []} if over.wait(20) else {})
    (found,) = checkup.wait(0.01)
    assert (found.level, "could not be checked within" in found.found) == (PROBLEM, True)
    over.set()
    assert checkup.wait(20) == []


def test_while_connected(make_session: Callable[[FakeLauncher], Session], shell: Any) -> None:
    flows = observing.FlowTable(1_750_000_001.5, "[]", {"checksum": 2})
    make_session(FakeLauncher(Script(flows=flows, answers={views.GetLookup: views.Lookup("")})))
    shell.run_cell("%tele connect").raise_error()
    found = shell.run_cell("%tele doctor").result
    assert isinstance(found, Diagnosis)
    assert found["connection"].found == "to demo, namespace shop, on tele0"
    assert found["round trip"].level is found["carriers"].level is OK
    assert found["drops"].found.startswith("2 checksum")
    assert [one.check for one in found if one.about == "Connection"] == [
        "connection",
        "round trip",
        "carriers",
        "interface offload",
        "DNS path",
        "libraries",
        "routes",
        "drops",
    ]
    # The fake's resolver is none, and the API server of the kubeconfig is not there: real checks say so.
    assert found["DNS path"].level is PROBLEM
    assert "do not ask telemagic's resolver" in found["DNS path"].found
    assert found["API server"].about == "Cluster demo"
    assert "Connection refused" in found["API server"].found
    assert not found["leftovers"].remedy


def test_a_connection_that_was_lost(session: Session, launcher: FakeLauncher, shell: Any) -> None:
    shell.run_cell("t = %tele connect").raise_error()
    session._loop.run(launcher.started[0].close())
    found = shell.run_cell("%tele doctor").result
    assert found["connection"].level is PROBLEM
    assert len([one for one in found if one.check in {"carriers", "drops"}]) == 0


# --- the result --------------------------------------------------------------------------------------------------


THREE = Diagnosis(
    [
        Finding("a", OK, "fine"),
        Finding("b", WARNING, "so-so", "more of it"),
        Finding("c", PROBLEM, "bad", "less of it"),
    ]
)


def test_text() -> None:
    assert repr(THREE).splitlines() == [
        "Doctor: 1 problem, 1 warning",
        "  ok       a                  fine",
        "  warning  b                  so-so",
        "                                try: more of it",
        "  problem  c                  bad",
        "                                try: less of it",
    ]
    assert Diagnosis([]).summary == "everything is fine"
    assert Diagnosis([Finding("a", WARNING, "")] * 2).summary == "2 warnings"


def test_as_data() -> None:
    frame = THREE.frame
    assert list(frame.columns) == ["about", "check", "level", "found", "remedy"]
    assert list(frame[frame.level >= "warning"].check) == ["b", "c"]
    assert isinstance(frame.level.dtype, pd.CategoricalDtype)
    assert Diagnosis([]).frame.empty
    assert (len(THREE), THREE["b"].remedy, THREE.is_healthy) == (3, "more of it", False)
    with pytest.raises(KeyError):
        THREE["d"]


def test_findings_say_what_they_are_about() -> None:
    both = Diagnosis.of(
        {"This machine": [Finding("a", OK, "fine")], "Cluster": [Finding("b", PROBLEM, "bad")]}
    )
    assert [one.about for one in both] == ["This machine", "Cluster"]
    assert repr(both).splitlines()[1:] == [
        "This machine",
        "  ok       a                  fine",
        "Cluster",
        "  problem  b                  bad",
    ]
    html = both._repr_mimebundle_()["text/html"]
    assert html.count("<tbody>") == 2
    assert "something is in the way" in html
    assert "works, with something to know" in Diagnosis(THREE.findings[:2])._repr_mimebundle_()["text/html"]
    assert "everything is fine" in Diagnosis(THREE.findings[:1])._repr_mimebundle_()["text/html"]
    assert (both.exit_status, Diagnosis(THREE.findings[:2]).exit_status) == (1, 0)


def test_hostile_text_stays_text() -> None:
    evil = Diagnosis([Finding(EVIL, PROBLEM, EVIL, EVIL, EVIL)])
    bundle = evil._repr_mimebundle_()
    tags = Tags(bundle["text/html"])
    assert not tags.names & {"script", "img"}
    assert not tags.attributes & {"onerror", "src"}
    assert "\x1b" not in bundle["text/plain"]


# --- the real machine --------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_offload_is_tried_for_real() -> None:
    before = interfaces()
    found = try_tun()
    assert (list(found.namespaces), list(found.device)) == ([], [])
    assert found.offload & 0x7 == 0x7  # every kernel that has user namespaces has these
    assert interfaces() == before


@pytest.mark.netns
def test_a_machine_without_namespaces_is_tried_for_real() -> None:
    # Inside a user namespace that allows no more of them: as where an administrator forbids them.
    code = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    command = ["unshare", "-Ur", "sh", "-c", code, "-", *PROBE]
    found = try_tun(command)
    assert found.namespaces[0].startswith("this machine refuses user namespaces")
    assert list(found.device) == []  # root inside: the network namespace is enough
    assert found.offload & 0x7 == 0x7


@pytest.mark.parametrize(
    "command",
    [["/none/at/all"], ["false"], ["echo", "nothing"], ["echo", "{}"]],
    ids=["none", "false", "text", "empty"],
)
def test_a_probe_that_fails_is_told(command: list[str]) -> None:
    found = try_tun(command)
    assert found.device[0].startswith("it could not be tried: ")
    assert found.offload == 0


def test_from_a_shell(runtime: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 1  # nobody listens where the kubeconfig says
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Doctor: 1 problem")
    assert any(line.split()[:2] == ["ok", "kubeconfig"] for line in lines)
    assert any(line.split()[:3] == ["problem", "API", "server"] for line in lines)
    kubeconfig.unlink()
    assert main(["doctor"]) == 0  # none at all is a warning
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["ok", "connection", "none"]
    assert not any("could not be checked" in line for line in lines)


def test_a_black_hole_ends_within_seconds(
    runtime: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never says a word
        text = kubeconfig.read_text().replace("127.0.0.1:6443", f"127.0.0.1:{server.getsockname()[1]}")
        kubeconfig.write_text(text)
        begun = time.monotonic()
        assert main(["doctor"]) == 1
        assert (
            time.monotonic() - begun < 2 * cluster.PATIENCE
        )  # by itself it takes five, this machine may be busy
    assert "cannot be reached: no answer in time" in capsys.readouterr().out


def test_the_kernel_stays_light() -> None:
    code = (
        "import sys, json; from telemagic.__main__ import main; main(['doctor'])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    assert not {"grpc", "kubernetes", "pyroute2", "aiohttp", "pandas"} & set(modules)
