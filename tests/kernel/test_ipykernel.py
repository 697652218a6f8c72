"""A real kernel over its real protocol: interrupt, password prompt, restart, and what a notebook runner sees."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

SETUP = """
from telemagic import session, control_fake
launcher = control_fake.FakeLauncher(control_fake.Script({script}), password={password!r})
session.use(session.Session(launcher))
%load_ext telemagic
"""
PROCESS = """
import asyncio, sys
from telemagic import session
class Launched:
    def __init__(self, pid): self.datapath_pid = self.netd_pid = pid
async def launch(socket_path, *, ask, on_phase, elevate="auto"):
    on_phase("elevate", "started", "")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "telemagic.control_fake", str(socket_path), start_new_session=True)
    while not socket_path.exists():
        await asyncio.sleep(0.01)
    on_phase("elevate", "done", "")
    return Launched(child.pid)
session.use(session.Session(launch))
%load_ext telemagic
"""
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning"
)  # jupyter_client's


class Kernel:
    """A kernel and what its cells have shown."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self.client = client

    def start(self, code: str) -> str:
        found: str = self.client.execute(code, allow_stdin=True)
        return found

    def until_idle(self, number: str) -> list[dict[str, Any]]:
        outputs = []
        while True:
            message = self.client.get_iopub_msg(timeout=10)
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return outputs
            outputs.append({"type": message["msg_type"], **content})

    def run(self, code: str) -> list[dict[str, Any]]:
        return self.until_idle(self.start(code))


@pytest.fixture
def kernel(runtime: Path, kubeconfig: Path) -> Generator[Kernel, None, None]:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, "JPY_PARENT_PID": ""})
    yield Kernel(manager, client)
    client.stop_channels()
    manager.shutdown_kernel()
    manager.context.term()


def left(runtime: Path) -> list[str]:
    return os.listdir(runtime) if runtime.exists() else []


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def errors(outputs: list[dict[str, Any]]) -> list[str]:
    return [one["ename"] for one in outputs if one["type"] == "error"]


def test_interrupt_during_connect(kernel: Kernel, runtime: Path) -> None:
    assert errors(kernel.run(SETUP.format(script="hang_at='tunnel'", password=""))) == []
    number = kernel.start("%tele connect")
    wait_for(lambda: left(runtime))
    while kernel.client.get_iopub_msg(timeout=10)["msg_type"] != "display_data":
        pass  # the card: connecting is under way
    time.sleep(
        0.3
    )  # the kernel may still be within display(), which has no handle to the card before its end
    kernel.manager.interrupt_kernel()
    outputs = kernel.until_idle(number)
    assert errors(outputs) == ["KeyboardInterrupt"]
    assert outputs[-1]["traceback"] == [
        "KeyboardInterrupt"
    ]  # nobody wants to read where in our code that was
    assert left(runtime) == []  # already, not only later
    assert "interrupted; everything begun was undone" in outputs[-2]["data"]["text/plain"]
    assert errors(kernel.run("%tele status")) == ["NotConnected"]


def test_password_is_asked_in_the_cell(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password="open sesame"))
    number = kernel.start("%tele connect")
    for answer in ("wrong", "open sesame"):
        asked = kernel.client.get_stdin_msg(timeout=10)["content"]
        assert asked == {"prompt": "[sudo] password for ada: ", "password": True}
        kernel.client.input(answer)
    outputs = kernel.until_idle(number)
    assert errors(outputs) == []
    shown = [one for one in outputs if one["type"] == "display_data"]
    assert "an empty line cancels" in shown[0]["data"]["text/html"]  # the card came before the prompt
    last = [one for one in outputs if one["type"] == "update_display_data"][-1]
    assert re.match(r"Connected at [\d:]{8} to demo, namespace shop \(in ", last["data"]["text/plain"])
    assert not [one for one in outputs if one["type"] == "execute_result"]  # the card has said it


def test_empty_password_cancels(kernel: Kernel, runtime: Path) -> None:
    kernel.run(SETUP.format(script="", password="open sesame"))
    number = kernel.start("%tele connect")
    kernel.client.get_stdin_msg(timeout=10)
    kernel.client.input("")
    assert errors(kernel.until_idle(number)) == ["SudoDenied"]
    assert left(runtime) == []


def test_quick_connect_shows_one_card(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password=""))
    outputs = kernel.run("%tele connect")
    shown = [one["data"] for one in outputs if "data" in one]
    assert len(shown) == 1
    assert "Connected at" in shown[0]["text/html"]
    again = [one["data"] for one in kernel.run("%tele connect") if "data" in one]
    assert "already connected to demo" in again[0]["text/plain"]


def test_await_in_a_cell(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="phase_seconds=0.1", password=""))
    outputs = kernel.run(
        "import telemagic\nasync with telemagic.aconnect() as t:\n    print(t.status.context)"
    )
    assert errors(outputs) == []
    assert [one["text"] for one in outputs if one["type"] == "stream"] == ["demo\n"]


def test_shutdown_disconnects_in_time(kernel: Kernel, runtime: Path) -> None:
    kernel.run(PROCESS)
    assert errors(kernel.run("t = %tele connect")) == []
    assert len(left(runtime)) == 1
    began = time.monotonic()
    kernel.client.shutdown()
    wait_for(lambda: not left(runtime))
    assert time.monotonic() - began < 2.0


def test_restart_and_kill_leave_nothing(kernel: Kernel, runtime: Path) -> None:
    kernel.run(PROCESS)
    assert errors(kernel.run("t = %tele connect")) == []
    kernel.manager.restart_kernel(now=True)  # SIGKILL: only the end of the connection tells
    wait_for(lambda: not left(runtime))
    kernel.client.wait_for_ready(timeout=20)
    kernel.run(PROCESS)
    assert errors(kernel.run("t = %tele connect")) == []


def test_shell_command_while_connected(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password=""))
    kernel.run("%tele connect;")
    outputs = kernel.run(
        "import os, warnings\nwarnings.simplefilter('ignore')  # Python 3.12: a kernel has threads\n"
        "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\n%tele status;"
    )
    assert errors(outputs) == []
    assert not [one for one in outputs if one["type"] == "stream"]


# --- cells that are connected, and told --------------------------------------------------------------------------


def text_of(outputs: list[dict[str, Any]], kind: str) -> list[str]:
    return [one["data"]["text/plain"] for one in outputs if one["type"] == kind]


def test_a_connected_cell(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password=""))
    outputs = kernel.run("%%tele\nimport asyncio\nawait asyncio.sleep(0.01)\nt = %tele status\nt.context")
    assert errors(outputs) == []
    assert text_of(outputs, "execute_result") == ["'demo'"]
    (report,) = text_of(outputs, "display_data")
    assert report.startswith("Cell [2]: no flows in ")
    assert outputs[-1]["type"] == "display_data"  # it comes last, and in this cell
    assert errors(kernel.run("%tele status")) == ["NotConnected"]
    (fake,) = [
        one for one in kernel.run("launcher.started[0].notifications") if one["type"] == "execute_result"
    ]
    assert fake["data"]["text/plain"].count("cell=2") == 2


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(30)",
        # ipykernel 7.4 notices an interrupt of one long await only at its end, with us or without
        "import asyncio\nfor _ in range(600): await asyncio.sleep(0.05)",
    ],
)
def test_interrupt_of_a_connected_cell(kernel: Kernel, runtime: Path, code: str) -> None:
    kernel.run(SETUP.format(script="", password=""))
    number = kernel.start(f"%%tele\nprint('running', flush=True)\n{code}")
    while kernel.client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
        pass
    kernel.manager.interrupt_kernel()
    outputs = kernel.until_idle(number)
    assert len(errors(outputs)) == 1
    assert errors(outputs)[0] in {"KeyboardInterrupt", "CancelledError"}
    assert text_of(outputs, "display_data")[-1].endswith("disconnected again")
    assert left(runtime) == []
    assert errors(kernel.run("%%tele\n1")) == []  # and the next one works


def complete(kernel: Kernel, code: str) -> tuple[list[str], float]:
    """Ask as a front end does; what would stand there, and the seconds it took."""
    began = time.perf_counter()
    number = kernel.client.complete(code)
    while (reply := kernel.client.get_shell_msg(timeout=10))["parent_header"].get("msg_id") != number:
        pass
    found = reply["content"]
    return [code[: found["cursor_start"]] + one for one in found["matches"]], time.perf_counter() - began


def test_completion_over_the_wire(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password=""))
    took = []
    for code, expected in (
        ("df = %tele fl", ["df = %tele flows"]),
        ("for i in range(3):\n    %tele rout", ["for i in range(3):\n    %tele routes"]),
        ("%tele connect --context sta", ["%tele connect --context staging"]),
        ("%%tele --cont", ["%%tele --context"]),
    ):
        until = time.monotonic() + 10
        while (answer := complete(kernel, code))[0] != expected:
            assert time.monotonic() < until, answer
        took += [complete(kernel, code)[1] for _ in range(5)]
    assert sorted(took)[len(took) // 2] < 0.1  # seconds; the machine may be busy once in a while


LAG = """
import asyncio, time
async def watch():
    global worst
    worst = 0.0
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        worst = max(worst, time.perf_counter() - before - 0.002)
task = asyncio.get_running_loop().create_task(watch())
"""


def test_nothing_holds_up_the_kernel_s_loop(kernel: Kernel) -> None:
    kernel.run(SETUP.format(script="", password=""))
    kernel.run("t = %tele connect")
    complete(kernel, "%tele connect --context ")  # what IPython imports late is not ours
    kernel.run(LAG)

    def gap(during: Callable[[], None]) -> float:
        kernel.run("worst = 0.0")
        during()
        time.sleep(0.05)
        (shown,) = text_of(kernel.run("worst"), "execute_result")
        return float(shown)

    def type_a_line() -> None:
        for code in ("%tele fl", "%tele ping pos", "%tele connect --context sta"):
            complete(kernel, code)

    # The machine may be busy with others, so what counts is what comes on top of that, and at best.
    assert min(gap(type_a_line) - gap(lambda: None) for _ in range(5)) < 0.02


def test_notebook_runner_never_waits_for_a_password(runtime: Path, kubeconfig: Path) -> None:
    cells = [SETUP.format(script="", password="open sesame"), "%tele connect"]
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[nbformat.v4.new_code_cell(code) for code in cells]  # type: ignore[no-untyped-call]
    )
    began = time.monotonic()
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, timeout=30, kernel_name="python3").execute()
    assert time.monotonic() - began < 25  # it did not wait for the runner's own limit
    (error,) = [one for one in notebook.cells[1].outputs if one.output_type == "error"]
    assert error.ename == "SudoDenied"
    assert "this front end cannot ask for one" in error.evalue
    assert len(error.traceback) == 2
    assert "first, in a terminal: telemagic connect" in error.traceback[1]
    assert left(runtime) == []


def test_notebook_runner_sees_the_error(runtime: Path, kubeconfig: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("%load_ext telemagic\n%tele status")]  # type: ignore[no-untyped-call]
    )
    client = NotebookClient(notebook, timeout=30, kernel_name="python3")
    with pytest.raises(CellExecutionError):
        client.execute()
    (error,) = [one for one in notebook.cells[0].outputs if one.output_type == "error"]
    assert error.ename == "NotConnected"
    assert error.traceback == ["NotConnected: not connected", "  try: %tele connect"]


WATCH = """
import asyncio
from telemagic import session
tele = session.session().current()
fake = launcher.started[0]
seen = []
async for change in tele.watch(0.1):
    seen.append(change.is_first)
    if len(seen) == 2:
        break
    text = fake.script.snapshot
    session.session()._loop.post(lambda: asyncio.ensure_future(fake.change(text)))
print(seen)
"""
ENDLESS = """
async def tick():  # as the real one, which measures its round trip every second
    while True:
        await asyncio.sleep(0.1)
        await fake.change(text)

session.session()._loop.post(lambda: globals().update(ticking=asyncio.ensure_future(tick())))
print("watching", flush=True)
async for change in tele.watch(0.1):
    pass
"""


def test_watching_on_the_notebooks_own_loop(kernel: Kernel) -> None:
    """In a cell, with top-level `async for`, though the connection lives on another loop; Stop ends it."""
    assert errors(kernel.run(SETUP.format(script="", password="") + "%tele connect;")) == []
    outputs = kernel.run(WATCH)
    assert errors(outputs) == []
    assert outputs[-1]["text"] == "[True, False]\n"
    number = kernel.start(ENDLESS)
    while kernel.client.get_iopub_msg(timeout=10)["msg_type"] != "stream":
        pass
    time.sleep(0.3)  # within the loop by now; an interrupt before it is one too
    kernel.manager.interrupt_kernel()
    (name,) = errors(kernel.until_idle(number))
    assert name in {"KeyboardInterrupt", "CancelledError"}
    (shown,) = kernel.run(
        "await asyncio.sleep(0.3); print([type(one).__name__ for one in fake.requests[-2:]], tele.is_open)"
    )[-1:]
    assert shown["text"] == "['Watch', 'Unwatch'] True\n"
