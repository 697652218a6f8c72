"""Run a command in a sandbox: user, network and mount namespaces of its own, no default route, root inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def run(command: list[str], *, timeout: float = 60.0, cluster: str = "") -> subprocess.CompletedProcess[str]:
    """Run `command`, with the API server of the demo called `cluster` beside it if one is named.

    After `timeout` seconds the command and what it started in its session are killed, and ``TimeoutExpired`` tells
    what it had printed.
    """
    which = ["--name", cluster] if cluster else ["--no-cluster"]
    shell = [sys.executable, "-m", "telemagic.demo.shell", *which, "--", *command]
    with subprocess.Popen(
        shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            os.killpg(process.pid, signal.SIGKILL)
            late.stdout, late.stderr = process.communicate()
            raise
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
