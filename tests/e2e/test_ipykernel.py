"""A real Jupyter kernel, connected to a real cluster: restarted, killed, interrupted, and what its cells show."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.e2e.inside import Untouched, helpers, inside, wait_until
from tests.e2e.kernels import silent_server

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERRUPTED_WITHIN: Final = 2.0  # seconds
QUERY: Final = """
import psycopg
with psycopg.connect("postgresql://shop@postgres.shop:5432/shop") as db:
    print(db.execute("select count(*) from orders").fetchone()[0] >= 100_000)
"""
ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


class Notebook:
    """A kernel and its client: what a front end is."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.client = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=30)

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        pid: int = self.manager.provisioner.process.pid
        return pid

    def start(self, code: str) -> str:
        """Start a cell."""
        number: str = self.client.execute(code)
        return number

    def outputs(self, number: str, timeout: float = 30.0) -> list[dict[str, Any]]:
        """Wait for a cell's end; returns what it has shown."""
        found = []
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return found
            if message["msg_type"] not in {"status", "execute_input"}:
                found.append({"type": message["msg_type"], **content})

    def run(self, code: str) -> list[dict[str, Any]]:
        """Run a cell."""
        return self.outputs(self.start(code))

    def run_well(self, code: str) -> str:
        """Run a cell, which must not fail; returns what it has printed."""
        outputs = self.run(code)
        assert not [one for one in outputs if one["type"] == "error"], outputs
        return "".join(one["text"] for one in outputs if one["type"] == "stream")

    def error(self, code: str) -> tuple[str, list[str]]:
        """Run a cell, which must fail; returns the error's name and the lines shown."""
        (error,) = [one for one in self.run(code) if one["type"] == "error"]
        return error["ename"], [ANSI.sub("", line) for line in "\n".join(error["traceback"]).split("\n")]

    def connect(self) -> None:
        """Load the extension, connect, and query."""
        self.run_well("%load_ext telemagic")
        self.run_well("%tele connect")
        assert self.run_well(QUERY) == "True\n"


@contextlib.contextmanager
def notebook() -> Iterator[Notebook]:
    """Start a kernel that leaves no file anywhere else."""
    base = tempfile.mkdtemp(prefix="tele-k-")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[name] = f"{base}/{name.lower()}"
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # else jupyter_core warns about its coming default
    from jupyter_client.manager import KernelManager

    manager = KernelManager(transport="ipc", ip=f"{base}/kernel", connection_file=f"{base}/connection.json")
    try:
        manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False"])
        found = Notebook(manager)
        try:
            yield found
        finally:
            found.client.stop_channels()
    finally:
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        manager.context.destroy(linger=0)
        shutil.rmtree(base, ignore_errors=True)


@inside()
def test_restart_leaves_nothing() -> None:
    untouched = Untouched()
    with notebook() as found:
        found.connect()
        found.manager.restart_kernel()  # asked to end first, as by "Restart the kernel"
        untouched.check()
        found.client.wait_for_ready(timeout=30)
        found.connect()
        found.manager.restart_kernel(now=True)
        untouched.check()
        found.client.wait_for_ready(timeout=30)
        found.connect()
        began = time.monotonic()
        found.manager.shutdown_kernel()
        assert time.monotonic() - began < 2.5  # a front end kills what takes longer
        untouched.check()


@inside()
def test_killed_kernel_leaves_nothing() -> None:
    untouched = Untouched()
    with notebook() as found:
        found.connect()
        os.kill(found.pid, signal.SIGKILL)
        untouched.check()
    with notebook() as found:
        found.run_well("%load_ext telemagic")
        found.start("%tele connect")
        assert wait_until(helpers, 10)
        os.kill(found.pid, signal.SIGKILL)
        untouched.check()


@inside()
def test_interrupt_of_a_connect_that_hangs() -> None:
    untouched = Untouched()
    with silent_server() as path, notebook() as found:
        found.run_well("%load_ext telemagic")
        number = found.start(f"%tele connect --kubeconfig {path}")
        while found.client.get_iopub_msg(timeout=10)["msg_type"] != "display_data":
            pass  # the card that shows how it goes
        assert wait_until(lambda: len(helpers()) > 1, 10)
        began = time.monotonic()
        found.manager.interrupt_kernel()
        outputs = found.outputs(number)
        assert time.monotonic() - began < INTERRUPTED_WITHIN
        assert [one["ename"] for one in outputs if one["type"] == "error"] == ["KeyboardInterrupt"]
        card = [one for one in outputs if "data" in one][-1]
        assert "interrupted" in card["data"]["text/plain"]
        untouched.check()
        assert found.run_well("print(6 * 7)") == "42\n"
        found.connect()
        found.run_well("%tele disconnect")
        untouched.check()


@inside()
def test_interrupt_of_another_cell_disturbs_nothing() -> None:
    with notebook() as found:
        found.connect()
        number = found.start("print('sleeping', flush=True)\nimport time; time.sleep(30)")
        while found.client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
            pass
        found.manager.interrupt_kernel()
        names = [one["ename"] for one in found.outputs(number) if one["type"] == "error"]
        assert names == ["KeyboardInterrupt"]
        assert found.run_well(QUERY) == "True\n"


@inside()
def test_shell_cells_say_only_what_the_command_says() -> None:
    with notebook() as found:
        found.connect()
        routes = found.run_well("!ip route")
        assert "dev tele0" in routes
        assert all(" dev " in line for line in routes.strip().splitlines()), routes
        assert found.run_well("!echo only this").strip() == "only this"
        code = "import subprocess\nprint(subprocess.run(['true']).returncode)"
        assert found.run_well(code) == "0\n"
        forked = "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nprint(os.waitpid(pid, 0)[1])"
        text = found.run_well(f"import warnings; warnings.simplefilter('ignore')\n{forked}")
        assert text == "0\n"
        assert found.run_well(QUERY) == "True\n"


@inside()
def test_results_are_tables_and_cards() -> None:
    with notebook() as found:
        found.connect()
        (flows,) = [one["data"] for one in found.run("%tele flows") if one["type"] == "execute_result"]
        assert "postgres.shop" in flows["text/html"]
        (status,) = [one["data"] for one in found.run("%tele status") if one["type"] == "execute_result"]
        assert "ServiceCIDR" in status["text/plain"]
        assert "198.18." in status["text/html"]
        assert found.run_well("df = %tele flows\nprint(df.bytes_down.max() > 0)") == "True\n"


@inside()
def test_errors_are_two_lines() -> None:
    with notebook() as found:
        found.run_well("%load_ext telemagic")
        assert found.error("%tele status") == (
            "NotConnected",
            ["NotConnected: not connected", "  try: %tele connect"],
        )
        number = found.start("%tele conect")
        (said,) = found.outputs(number)  # IPython writes its own UsageError to standard error
        assert said["type"] == "stream"
        assert said["name"] == "stderr"
        assert said["text"].splitlines() == [
            "UsageError: unknown subcommand 'conect': did you mean 'connect'?",
            "  try: %tele help",
        ]
        reply = found.client.get_shell_msg(timeout=10)
        while reply["parent_header"]["msg_id"] != number:
            reply = found.client.get_shell_msg(timeout=10)
        assert reply["content"]["status"] == "error"  # so that "Run all" stops
        assert reply["content"]["ename"] == "UsageError"
        kind, lines = found.error("%tele connect --context zzz")
        assert kind == "KubeconfigError"
        assert len(lines) == 2
        assert lines[1].startswith("  try: ")


@inside()
def test_lost_helper_is_told_in_the_next_cell() -> None:
    untouched = Untouched()
    with notebook() as found:
        found.connect()
        os.kill(
            int(found.run_well("import telemagic.session as s\nprint(s.session().connection.datapath_pid)")),
            9,
        )
        untouched.check()
        kind, lines = found.error("%tele flows")
        assert kind == "HelperLost"
        assert len(lines) == 2
        found.connect()
        found.run_well("%tele disconnect")
        untouched.check()


pytestmark = pytest.mark.timeout(90)
