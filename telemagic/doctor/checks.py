"""The doctor's checks: each looks at one thing of the machine and says in one line what it is and what it means."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import TYPE_CHECKING, Final

from telehelper import __version__
from telehelper.errors import KubeconfigError, TelemagicError

from telemagic import elevate, helper_copy, kubeconfig
from telemagic.doctor.diagnosis import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from telemagic.doctor.machine import Machine

Verdict = tuple[Level, str, str]  # how bad, what was found, what to do

OFFLOADS: Final = {1: "checksum", 2: "TSO4", 4: "TSO6", 0x20: "USO4", 0x40: "USO6"}  # linux/if_tun.h
_TCP: Final = 0x7
_UDP: Final = 0x60
OLDEST: Final = (5, 11)  # overlay mounts in user namespaces, for a sandbox's own /etc
PACKAGES: Final = ("aiohttp", "dnspython", "grpcio", "kubernetes", "pandas", "pyroute2", "uvloop")
UNDO: Final = "connect, which repairs it, or by hand: README, 'Undo everything by hand'"


def ok(found: str) -> Verdict:
    """Return a good verdict."""
    return Level.OK, found, ""


def warning(found: str, remedy: str = "") -> Verdict:
    """Return a middling verdict."""
    return Level.WARNING, found, remedy


def problem(found: str, remedy: str = "") -> Verdict:
    """Return a bad verdict."""
    return Level.PROBLEM, found, remedy


def examine(check: str, look: Callable[[], Verdict]) -> Finding:
    """Make a check. An error of ours is the finding; any other, that it failed."""
    try:
        return Finding(check, *look())
    except TelemagicError as error:
        return Finding(check, *problem(error.message, error.hint))
    except Exception as error:  # the doctor never falls ill: whatever it is, the other checks go on
        return Finding(check, *warning(f"could not be checked: {type(error).__name__}: {error}"))


# --- root, the device and what it can do -------------------------------------------------------------------------


def tun_device(machine: Machine) -> Verdict:
    """See whether /dev/net/tun is there for netd."""
    opens = machine.rights().can_configure()
    elevate.check_tun(str(machine.root / "dev/net/tun"), open_it=opens)
    return ok("/dev/net/tun opens" if opens else "/dev/net/tun is there")


def root(machine: Machine) -> Verdict:
    """Find the way to root."""
    rights = machine.rights()
    sudo = elevate.find_sudo(rights)
    if sudo is None:
        return ok(
            "root already, no sudo needed" if rights.uid == 0 else "CAP_NET_ADMIN already, no sudo needed"
        )
    program = str(helper_copy.DIRECTORY / helper_copy.PROGRAM)
    if _copy(machine).state == helper_copy.READY and machine.sudo_runs_netd(sudo, program):
        return ok(f"{sudo}, without a password for the root-owned copy of netd")
    if machine.sudo_is_silent(sudo):
        return ok(f"{sudo}, without a password")
    return ok(f"{sudo}, which will ask for a password when you connect")


def netd(machine: Machine) -> Verdict:
    """See which netd would be run as root: see :mod:`telemagic.helper_copy`."""
    found = _copy(machine)
    if found.state == helper_copy.UNSAFE:
        return problem(
            f"the root-owned copy is not to be trusted: {found.problem}", "telemagic helper install"
        )
    if found.state == helper_copy.OTHER:
        return warning(f"this environment's: {found.problem}", "telemagic helper install")
    return ok("the root-owned copy" if found.state == helper_copy.READY else "this environment's")


def _copy(machine: Machine) -> helper_copy.Copy:
    return helper_copy.look(machine.root / str(helper_copy.DIRECTORY).lstrip("/"))


def user_namespaces(machine: Machine) -> Verdict:
    """See what rootless work needs."""
    if machine.tun.namespaces:
        message, hint = machine.tun.namespaces
        return warning(f"{message}: no demo cluster, no rootless work", hint)
    return ok("allowed: the demo cluster and `telemagic demo shell` need no root")


def offload(machine: Machine) -> Verdict:
    """See what the kernel does for each packet instead of Python."""
    if machine.tun.device:
        message, hint = machine.tun.device
        return warning(f"unknown: {message}", hint)
    return offload_verdict(machine.tun.offload)


def offload_verdict(bits: int) -> Verdict:
    """Say what TUN_F_* bits mean."""
    names = ", ".join(name for bit, name in OFFLOADS.items() if bits & bit)
    if bits & _TCP != _TCP:
        return warning(
            f"{names or 'none'}: works, at about a tenth of the speed",
            "a kernel with TUN offload (CONFIG_TUN)",
        )
    return ok(names if bits & _UDP else f"{names}; large UDP datagrams need Linux 6.2")


def kernel(machine: Machine) -> Verdict:
    """See how old the kernel is."""
    found = re.match(r"(\d+)\.(\d+)", machine.release)
    version = tuple(map(int, found.groups())) if found else (0, 0)
    if version < OLDEST:
        return warning(f"Linux {machine.release}, which is not tested", "Linux 5.11 or later")
    return ok(f"Linux {machine.release}")


def ipv6(machine: Machine) -> Verdict:
    """See whether the interface can have IPv6 addresses."""
    if machine.read("proc/sys/net/ipv6/conf/all/disable_ipv6") is None:
        return warning("this kernel has none: the cluster's IPv6 addresses cannot be reached")
    for which in ("all", "default"):  # the second is what a new interface gets
        if (machine.read(f"proc/sys/net/ipv6/conf/{which}/disable_ipv6") or "").strip() == "1":
            return warning(
                "disabled: the cluster's IPv6 addresses cannot be reached",
                f"sudo sysctl -w net.ipv6.conf.{which}.disable_ipv6=0",
            )
    return ok("enabled")


# --- names and leftovers -----------------------------------------------------------------------------------------


def names(machine: Machine) -> Verdict:
    """See how this machine resolves names, and so what a connection changes."""
    hosts = re.search(r"^hosts:(.*)$", machine.read("etc/nsswitch.conf") or "", re.MULTILINE)
    if hosts and not {"dns", "resolve"} & set(hosts[1].split()):
        return problem(
            f"/etc/nsswitch.conf says hosts:{hosts[1].rstrip()}: no name server is ever asked",
            "add dns to that line",
        )
    path = machine.root / "etc/resolv.conf"
    if path.is_symlink():
        target = path.readlink()
        whose = "systemd-resolved" if "systemd" in target.parts else "a link"
        return ok(f"{whose}: /etc/resolv.conf -> {target}, replaced while connected")
    text = machine.read("etc/resolv.conf")
    if text is None:
        return warning("there is no /etc/resolv.conf: names resolve only while connected")
    if text.startswith("# telemagic netd "):
        return ok("/etc/resolv.conf is ours, while connected")
    if machine.is_mount("etc/resolv.conf"):
        return ok("/etc/resolv.conf is a mount of a container, rewritten in place while connected")
    return ok("/etc/resolv.conf is a file, rewritten while connected")


def leftovers(machine: Machine, devices: Collection[str]) -> Verdict:
    """Look for what a killed helper left; `devices` are interfaces in use."""
    if pid := machine.stale_netd():
        return warning(f"/etc/resolv.conf is still ours, though netd {pid} has gone", UNDO)
    stale = [name for name in machine.interfaces() if re.fullmatch(r"tele\d+", name) and name not in devices]
    if stale:
        return warning(
            f"{', '.join(stale)}: another user's or another notebook's connection, or left over",
            f"if nobody is connected: sudo ip link delete {stale[0]}",
        )
    return ok("none")


# Who else changes routes and names: by interface, and by program. The second column is what it is called.
_VPN_DEVICES: Final = (
    (r"tel\d+", "Telepresence"),
    (r"tailscale\d+", "Tailscale"),
    (r"wg\d+|wg-.*|nordlynx|proton\d+", "WireGuard"),
    (r"CloudflareWARP", "Cloudflare WARP"),
    (r"cscotun\d+", "Cisco Secure Client"),
    (r"gpd\d+", "GlobalProtect"),
    (r"zt[a-z0-9]{8,}", "ZeroTier"),
    (r"ppp\d+", "a PPP VPN"),
    (r"utun\d+|tun\d+|vpn\d+", "a VPN"),
)
_VPN_PROGRAMS: Final = {
    "telepresence": "Telepresence",
    "kubevpn": "kubevpn",
    "sshuttle": "sshuttle",
    "openvpn": "OpenVPN",
    "openconnect": "OpenConnect",
    "tailscaled": "Tailscale",
    "warp-svc": "Cloudflare WARP",
    "vpnagentd": "Cisco Secure Client",
    "PanGPS": "GlobalProtect",
    "zerotier-one": "ZeroTier",
}
_RIVALS: Final = frozenset({"Telepresence", "kubevpn", "sshuttle"})  # they do what we do


def other_vpns(machine: Machine) -> Verdict:
    """Look for others who change routes and names."""
    found = dict.fromkeys(
        f"{what} ({name})"
        for name in sorted(machine.interfaces())
        for what in [next((what for pattern, what in _VPN_DEVICES if re.fullmatch(pattern, name)), "")]
        if what
    )
    names = {text.partition(" (")[0] for text in found}
    running = machine.processes()
    programs = {what for program, what in _VPN_PROGRAMS.items() if program in running}
    shown = ", ".join([*found, *sorted(programs - names)])
    if rivals := (names | programs) & _RIVALS:
        return warning(
            f"{shown}: two that lead the same names to a cluster get in each other's way",
            f"end {' and '.join(sorted(rivals))} first",
        )
    if shown:
        return ok(f"{shown}: an overlap with the cluster's networks is told under networks")
    return ok("none")


# --- software and configuration ----------------------------------------------------------------------------------


def versions(machine: Machine) -> Verdict:
    """List versions: ours, Python's, and those of the packages that matter."""
    found, missing = [f"telemagic {__version__}", f"Python {platform.python_version()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {machine.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return problem(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if "kubernetes 36.0.0" in found:
        return problem("kubernetes 36.0.0 sends no credentials", "pip install 'kubernetes!=36.0.0'")
    return ok(", ".join(found))


def kube_context(path: str, name: str) -> Verdict:
    """Find the kubeconfig, and which context a connect would take."""
    try:
        config = kubeconfig.read(path)
        context = config.choose(name)
    except KubeconfigError as error:
        # Without one there is still the demo cluster; but who names one wants that.
        return (problem if path or name else warning)(error.message, error.hint)
    return ok(f"context {context.name} of {config.search}: {context.server}")


def examine_machine(
    machine: Machine, devices: Collection[str] = (), *, kubeconfig_path: str = "", context: str = ""
) -> Sequence[Finding]:
    """Make all checks of the machine."""
    checks: tuple[tuple[str, Callable[[], Verdict]], ...] = (
        ("netd", lambda: netd(machine)),
        ("TUN device", lambda: tun_device(machine)),
        ("root", lambda: root(machine)),
        ("user namespaces", lambda: user_namespaces(machine)),
        ("TUN offload", lambda: offload(machine)),
        ("kernel", lambda: kernel(machine)),
        ("IPv6", lambda: ipv6(machine)),
        ("names", lambda: names(machine)),
        ("leftovers", lambda: leftovers(machine, devices)),
        ("other VPNs", lambda: other_vpns(machine)),
        ("versions", lambda: versions(machine)),
        ("kubeconfig", lambda: kube_context(kubeconfig_path, context)),
    )
    return [examine(name, look) for name, look in checks]
