"""A real systemd-resolved with its D-Bus and a company's DNS server, all inside a sandbox.

The program is Debian's, unpacked by `.ci/setup` into the virtual environment: installing the package would take over the
machine's own resolv.conf. It gives up its privileges to the user `systemd-resolve`; in a sandbox with one user only,
that is root under another name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.company import COMPANY, Company, company_network

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(sys.prefix) / "share" / "telemagic-tests" / "systemd-resolved"
BUS_CONFIG: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/>
    <allow send_destination="*"/>
  </policy>
</busconfig>
"""


def _environment() -> dict[str, str]:
    """Let the programs find the libraries that came with them, where the machine has none."""
    libraries = ":".join(str(path) for path in PACKAGE.glob("usr/lib/*/systemd"))
    return {**os.environ, "LD_LIBRARY_PATH": libraries}


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=20, env=_environment()
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def resolvectl(*arguments: str) -> str:
    """Run resolvectl; AssertionError if it fails."""
    return _run(str(PACKAGE / "usr/bin/resolvectl"), "--no-pager", *arguments)


class Machine:
    """systemd-resolved and the bus, running; /etc and /run are this sandbox's own."""

    def __init__(self) -> None:
        self.company = Company()
        self._bus = self._start(
            "/usr/bin/dbus-daemon", "--config-file=/run/dbus.conf", "--nofork", "--nopidfile"
        )
        wait_for(Path("/run/dbus/system_bus_socket").exists, "the bus")
        self.resolved = self._start(str(PACKAGE / "lib/systemd/systemd-resolved"))
        wait_for(lambda: self._answers(), "systemd-resolved")

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @staticmethod
    def _answers() -> bool:
        with contextlib.suppress(AssertionError):
            return "192.0.2.53" in resolvectl("dns")
        return False

    def restart(self) -> None:
        """Restart systemd-resolved: it forgets what links were told at run time."""
        self.resolved.kill()
        self.resolved.wait()
        shutil.rmtree("/run/systemd/resolve/netif", ignore_errors=True)
        self.resolved = self._start(str(PACKAGE / "lib/systemd/systemd-resolved"))
        wait_for(lambda: self._answers(), "systemd-resolved")

    def close(self) -> None:
        """End both."""
        for process in (self.resolved, self._bus):
            process.kill()
            process.wait()


def wait_for(condition: object, what: str, seconds: float = 15.0) -> None:
    """Poll until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Make this sandbox a machine with systemd-resolved, as Ubuntu and Fedora have it."""
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")
    with open("/etc/passwd", "a") as users:
        users.write("systemd-resolve:x:0:0::/:/usr/sbin/nologin\n")
    Path("/etc/systemd").mkdir(exist_ok=True)
    Path("/etc/systemd/resolved.conf").write_text(
        f"[Resolve]\nDNS={COMPANY}\nDomains=corp.example\nCache=no\n"
    )
    Path("/etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    Path("/run/dbus.conf").write_text(BUS_CONFIG)
    for directory in ("/run/dbus", "/run/systemd/resolve"):
        Path(directory).mkdir(parents=True)
    resolv_conf = Path("/etc/resolv.conf")
    resolv_conf.unlink()
    resolv_conf.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    company_network()
    made = Machine()
    try:
        yield made
    finally:
        made.close()
