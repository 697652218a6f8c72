"""A kubeconfig, a private runtime directory, and sessions whose helper is a fake."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from telemagic import session as sessions
from telemagic.control_fake import FakeLauncher
from telemagic.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: demo
contexts:
- {name: demo, context: {cluster: embedded, user: ada, namespace: shop}}
- {name: staging, context: {cluster: far, user: ada}}
- {name: broken, context: {cluster: nowhere, user: ada}}
clusters:
- {name: embedded, cluster: {server: "https://127.0.0.1:6443"}}
- {name: far, cluster: {server: "https://127.0.0.1:7443"}}
users:
- {name: ada, user: {token: secret}}
"""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory(prefix="tele-k-") as base:  # short: Unix sockets are made in it
        monkeypatch.setenv("TELEMAGIC_RUNTIME_DIR", f"{base}/run")
        yield Path(base, "run")


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))  # not the developer's own defaults
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return path


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def make_session(runtime: Path, kubeconfig: Path) -> Generator[Callable[[FakeLauncher], Session], None, None]:
    made: list[Session] = []
    before = sessions._current[:]

    def make(launcher: FakeLauncher) -> Session:
        made.append(Session(launcher))
        sessions.use(made[-1])
        return made[-1]

    yield make
    for one in made:
        one.close()
    sessions._current[:] = before


@pytest.fixture
def session(make_session: Callable[[FakeLauncher], Session], launcher: FakeLauncher) -> Session:
    return make_session(launcher)


@pytest.fixture
def shell() -> Generator[Any, None, None]:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_cell("%load_ext telemagic").raise_error()
    yield shell
    shell.run_cell("%unload_ext telemagic")
    InteractiveShell.clear_instance()
