"""The doctor: each branch of each check on a machine made of files, and the real machine and a real socket beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper import messages

from telemagic import elevate
from telemagic.__main__ import main
from telemagic.control_fake import STATUS, FakeLauncher, Script
from telemagic.doctor import checks, connected
from telemagic.doctor.diagnosis import Diagnosis, Finding, Level
from telemagic.doctor.machine import PROBE, Machine, Tun, interfaces, sudo_is_silent, try_tun
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


def test_the_marker_is_what_netd_writes(machine: Machine) -> None:
    from telehelper.netd.resolvconf import Former, Owner, render

    order = messages.SetDns("resolvconf", "198.19.0.1", ("svc",))
    text = render(order, Owner(77, 4711, BOOT), Former("absent"))
    write(machine.root, {"etc/resolv.conf": text.decode()})
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
    assert look(context="stagin")[-1].remedy == "did you mean 'staging'?"
    assert look(kubeconfig_path="/none")[-1].level is WARNING


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


def test_while_connected(make_session: Callable[[FakeLauncher], Session], shell: Any) -> None:
    flows = messages.FlowTable(1_750_000_001.5, (), {"checksum": 2})
    make_session(FakeLauncher(Script(flows=flows)))
    shell.run_cell("%tele connect").raise_error()
    found = shell.run_cell("%tele doctor").result
    assert isinstance(found, Diagnosis)
    assert found["connection"].found == "to demo, namespace shop, on tele0"
    assert found["round trip"].level is found["carriers"].level is OK
    assert found["drops"].found.startswith("2 checksum")
    assert [one.check for one in found][-5:] == [
        "connection",
        "round trip",
        "carriers",
        "interface offload",
        "drops",
    ]


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
    assert list(frame.columns) == ["check", "level", "found", "remedy"]
    assert list(frame[frame.level >= "warning"].check) == ["b", "c"]
    assert isinstance(frame.level.dtype, pd.CategoricalDtype)
    assert Diagnosis([]).frame.empty
    assert (len(THREE), THREE["b"].remedy, THREE.is_healthy) == (3, "more of it", False)
    with pytest.raises(KeyError):
        THREE["d"]


def test_hostile_text_stays_text() -> None:
    evil = Diagnosis([Finding(EVIL, PROBLEM, EVIL, EVIL)])
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
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Doctor: ")
    assert any(line.split()[:2] == ["ok", "kubeconfig"] for line in lines)
    assert lines[-1].split() == ["ok", "connection", "none"]
    assert not any("could not be checked" in line for line in lines)


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
