"""A real JupyterLab in a real browser, both in a sandbox; every request that leaves the machine is refused and told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page, Route

PORT: Final = 8899  # nothing else is in the sandbox's network
STARTED_WITHIN: Final = 60.0  # seconds
ANSWERED_WITHIN: Final = 30.0  # seconds for anything in the page
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
SETTINGS: Final = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {
        "windowingMode": "none"
    },  # cells out of sight are there as well
}
_CELLS: Final = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => ({
    id: cell.model.id,
    outputs: cell.model.type === 'code' ? cell.model.outputs.toJSON() : [],
    text: cell.model.type === 'code' ? cell.outputArea.node.innerText : '',
}))"""
_IDLE: Final = (
    "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
)
_RUN_BELOW: Final = """async (code) => {
    const {commands, shell} = window.jupyterapp;
    const notebook = shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.length - 1;
    await commands.execute('notebook:insert-cell-below');
    notebook.activeCell.model.sharedModel.setSource(code);
    await commands.execute('notebook:run-cell');
}"""


@contextlib.contextmanager
def server(notebook: Path) -> Iterator[str]:
    """Run JupyterLab with a copy of a notebook; gives the copy's address."""
    base = Path(tempfile.mkdtemp(prefix="tele-lab-"))
    try:
        work, settings = base / "work", base / "settings"
        work.mkdir()
        settings.mkdir()
        shutil.copy(notebook, work)
        (settings / "overrides.json").write_text(json.dumps(SETTINGS))
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")
        environment = {**os.environ, **{name: str(base / name.lower()) for name in names}}
        environment |= {"JUPYTER_PLATFORM_DIRS": "1"}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
                *(f"--port={PORT}", "--IdentityProvider.token=", f"--ServerApp.root_dir={work}"),
                *("--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"),
                *(f"--LabApp.app_settings_dir={settings}", f"--LabApp.user_settings_dir={base / 'user'}"),
                f"--LabApp.workspaces_dir={base / 'workspaces'}",
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_up(process)
            yield f"http://127.0.0.1:{PORT}/lab/tree/{notebook.name}?reset"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _wait_until_up(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, "JupyterLab has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api", timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError("JupyterLab does not start")


class Lab:
    """A notebook open in the browser."""

    def __init__(self, page: Page, pictures: Path | None) -> None:
        self.page = page
        self._pictures = pictures

    def run_all(self) -> None:
        """Run all cells, and wait."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def run(self, code: str) -> dict[str, Any]:
        """Run a new cell at the end."""
        self.page.evaluate(_RUN_BELOW, code)
        return self.cells()[-1]

    def begin(self, code: str) -> None:
        """Run a new cell at the end without waiting for it."""
        self.page.evaluate(f"(code) => {{ ({_RUN_BELOW})(code); }}", code)

    def cells(self) -> list[dict[str, Any]]:
        """Return all cells: id, outputs, and the text that the outputs show."""
        found: list[dict[str, Any]] = self.page.evaluate(_CELLS)
        return found

    def theme(self, name: str) -> None:
        """Change the theme."""
        self.page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        self.page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")  # it covers the change

    def reload(self) -> None:
        """Save the notebook and load the page again, as a person does who comes back."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        self.page.goto(self.page.url.partition("?")[0])
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(_IDLE)

    def cost(self, seconds: float) -> list[float]:
        """Watch the page's main thread; return the processor time of each of its tasks in ms, the longest first.

        Processor time, not time by the clock: the latter tells as much of who else uses the machine.
        """
        browser = self.page.context.browser
        assert browser is not None
        browser.start_tracing(page=self.page, categories=["toplevel"])
        self.page.wait_for_timeout(seconds * 1000)
        events = json.loads(browser.stop_tracing())["traceEvents"]
        mains = {
            (event["pid"], event["tid"])
            for event in events
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        tasks = [
            event["tdur"] / 1000
            for event in events
            if "RunTask" in event["name"] and (event["pid"], event["tid"]) in mains and "tdur" in event
        ]
        return sorted(tasks, reverse=True)

    def picture(self, name: str) -> None:
        """Take a picture, if anybody wants it."""
        if self._pictures is not None:
            self.page.screenshot(path=self._pictures / f"{name}.png")


@contextlib.contextmanager
def lab(notebook: Path, *, width: int = 1280, height: int = 2600) -> Iterator[Lab]:
    """Open a copy of a notebook in JupyterLab; at the end, no request may have gone elsewhere."""
    wanted = os.environ.get("TELEMAGIC_SCREENSHOTS")
    if wanted:
        Path(wanted).mkdir(parents=True, exist_ok=True)
    executable = next(found for found in map(shutil.which, BROWSERS) if found)
    elsewhere: list[str] = []

    def guard(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.scheme in {"data", "blob"} or url.hostname == "127.0.0.1":
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]  # its sandbox refuses root
    with server(notebook) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(ANSWERED_WITHIN * 1000)
            page.route("**/*", guard)
            page.goto(address)
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            page.wait_for_function(_IDLE)
            yield Lab(page, Path(wanted) if wanted else None)
        finally:
            browser.close()
    assert elsewhere == []
