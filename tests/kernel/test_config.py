from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

import telemagic
from telemagic import config, live, production
from telemagic.__main__ import main
from telemagic.config import BUILT_IN, HELP, PERSONAL, ConfigError, Settings, from_files
from telemagic.control_fake import FakeLauncher, Script
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from telemagic.session import Session

STRANGER = 54321  # a uid


@pytest.fixture(autouse=True)
def restored() -> Generator[None, None, None]:
    yield
    config.use(None)
    production.use(production.DEFAULT)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "telemagic").mkdir(parents=True)
    return tmp_path / "xdg" / "telemagic" / "config.toml"


@pytest.fixture
def project(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    return tmp_path / "project" / "pyproject.toml"


def test_without_files_all_is_built_in(project: Path) -> None:
    assert from_files() == BUILT_IN == Settings()
    assert set(HELP) == set(Settings.__slots__)  # each has its explanation


def test_the_nearest_pyproject_wins_over_the_user_s_file(project: Path, home: Path) -> None:
    home.write_text('context = "far"\ntimeout = 5\nproduction = ["live-*"]')
    assert from_files() == Settings(context="far", timeout=5.0, production=("live-*",))
    project.write_text('[tool.other]\nx = 1\n[tool.telemagic]\ncontext = "near"\non-conflict = "map"')
    assert from_files() == Settings(context="near", timeout=5.0, on_conflict="map", production=("live-*",))
    (project.parent / "notebooks" / "pyproject.toml").write_text("[tool.other]\nx = 1")
    assert from_files().context == "far"  # the nearest one counts, and says nothing


def test_an_edit_counts_at_once(project: Path) -> None:
    project.write_text('[tool.telemagic]\ncontext = "a"')
    assert from_files().context == "a"
    project.write_text('[tool.telemagic]\ncontext = "other"')
    assert from_files().context == "other"
    project.unlink()
    assert from_files().context == ""


def test_what_is_not_ours_is_nobody_s_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_text("[tool.other\nbroken")
    assert from_files() == BUILT_IN
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # the specification has such a path ignored
    assert from_files() == BUILT_IN


def test_a_project_does_not_choose_the_kubeconfig(project: Path, home: Path) -> None:
    home.write_text('kubeconfig = "/mine"')
    assert from_files().kubeconfig == "/mine"
    project.write_text('[tool.telemagic]\nkubeconfig = "evil.yaml"')
    with pytest.raises(ConfigError, match="kubeconfig is not a project's to choose") as caught:
        from_files()
    assert str(project) in caught.value.message


@pytest.mark.parametrize(
    ("line", "flag"),
    [('manager-namespace = "evil"', "--manager-namespace"), ('on_conflict = "take"', "--on-conflict")],
)
def test_nor_who_carries_the_traffic_nor_whose_networks_are_taken(
    project: Path, home: Path, line: str, flag: str
) -> None:
    project.write_text(f"[tool.telemagic]\n{line}")
    with pytest.raises(ConfigError, match="is not a project's to choose") as caught:
        from_files()
    assert flag in caught.value.hint
    project.unlink()
    home.write_text(line)  # it is the user's own to choose
    assert from_files() != BUILT_IN


def test_every_key_is_either_harmless_from_a_project_or_refused(project: Path) -> None:
    """Whoever adds a key decides which it is."""
    harmless = {
        "context": "a",
        "namespace": "b",
        "timeout": 9,
        "via": "agentless",
        "dns": "none",
        "on_conflict": "map",
        "short_errors": False,
        "production": [],
        "progress_after": 1,
    }
    assert harmless.keys() | PERSONAL.keys() == {field.name for field in fields(Settings)}
    project.write_text(
        "[tool.telemagic]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in harmless.items())
    )
    assert from_files().on_conflict == "map"
    assert from_files().production == production.DEFAULT


def test_a_file_that_another_user_puts_in_its_place_while_it_is_looked_at_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    project.write_text('[tool.telemagic]\ncontext = "mine"')
    theirs = project.with_name("theirs")
    theirs.write_text('[tool.telemagic]\ncontext = "theirs"')
    os.chown(theirs, STRANGER, -1)
    stat = type(project).stat

    def then_swapped(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        if path == project and theirs.exists() and found.st_uid == os.geteuid():
            swaps.append(path)
            if len(swaps) > 1:  # the first look is for whether it is a file
                os.replace(theirs, project)
        return found

    swaps: list[Path] = []
    monkeypatch.setattr(type(project), "stat", then_swapped)
    with pytest.raises(ConfigError, match="belongs to another user"):
        from_files()
    assert not theirs.exists(), "it was swapped after the look"


def test_a_project_adds_to_what_is_production_and_takes_nothing_away(project: Path, home: Path) -> None:
    project.write_text("[tool.telemagic]\nproduction = []")
    assert from_files().production == production.DEFAULT
    home.write_text('production = ["live-*"]')
    project.write_text('[tool.telemagic]\nproduction = ["shop", "live-*"]')
    assert from_files().production == ("live-*", "shop")


def test_another_user_s_project_file_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_away() -> None:
        if os.geteuid() == 0:
            os.chown(project, STRANGER, -1)
        else:
            monkeypatch.setattr(config.os, "geteuid", lambda: STRANGER)

    def closed(*_: object) -> None:
        raise PermissionError

    project.write_text('[tool.telemagic]\ncontext = "theirs"')
    give_away()
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid \d+\)"):
        from_files()
    project.write_text("[tool.other]\nx = 1")
    assert from_files() == BUILT_IN
    monkeypatch.setattr(type(project), "open", closed)
    assert from_files() == BUILT_IN  # nothing that we could read


def test_a_directory_that_has_gone(project: Path) -> None:
    gone = project.parent / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert from_files() == BUILT_IN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contxt = 'a'", "unknown key 'contxt': did you mean 'context'?"),
        ("timeout = '5'", "timeout must be a number of seconds, not '5'"),
        ("timeout = true", "timeout must be a number of seconds, not True"),
        ("timeout = inf", "timeout must be a number of seconds, not inf"),
        ("dns = 'kernal'", "dns must be one of auto, resolved, resolvconf, kernel, none, not 'kernal'"),
        ("context = 5", "context must be a text, not 5"),
        ("short-errors = 'no'", "short-errors must be true or false, not 'no'"),
        ("production = 'prod'", "production must be a list of texts, not 'prod'"),
        ("context = a", "is not TOML: Invalid value (at line 2, column 11)"),
    ],
)
def test_bad_values_name_file_and_key(project: Path, text: str, message: str) -> None:
    project.write_text(f"[tool.telemagic]\n{text}")
    with pytest.raises(ConfigError) as caught:
        from_files()
    assert str(project) in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_bad_files(project: Path, home: Path) -> None:
    project.write_text("tool.telemagic = 5")
    with pytest.raises(ConfigError, match=r"\[tool.telemagic\] must be a table"):
        from_files()
    project.unlink()
    home.mkdir()
    with pytest.raises(ConfigError, match=r"config.toml cannot be read: Is a directory"):
        from_files()
    home.rmdir()
    home.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        from_files()


def test_only_what_differs_is_a_default_of_a_command() -> None:
    settings = Settings(context="a", timeout=5.0, short_errors=False)
    assert config.of_command(settings, "connect") == {"context": "a", "timeout": 5.0}
    assert config.of_command(settings, "install") == {"context": "a"}
    assert config.of_command(settings, "flows") == {}  # there it says which connection


def run(shell: Any, line: str) -> Any:
    result = shell.run_cell(line)
    result.raise_error()
    return result.result


def test_a_flag_wins_over_config_over_pyproject_over_the_user_s_file(
    project: Path, session: Session, launcher: FakeLauncher, shell: Any, home: Path, tmp_path: Path
) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text('context = "demo"\nnamespace = "from-home"')
    assert run(shell, "t = %tele connect\nt").context == "demo"
    assert run(shell, "t.namespace") == "from-home"
    run(shell, "%tele disconnect;")
    project.write_text('[tool.telemagic]\nnamespace = "from-project"\nproduction = ["demo"]')
    assert run(shell, "t = %tele connect\nt.namespace") == "from-project"
    assert production.pattern_of("DEMO") == "demo"
    run(shell, "%tele disconnect;\n%config TeleMagics.namespace = 'from-config'")
    project.write_text('[tool.telemagic]\nnamespace = "again"')
    assert run(shell, "t = %tele connect\nt.namespace") == "from-config"
    run(shell, "%tele disconnect;")
    connection = run(shell, "%tele connect -n from-flag --context staging")
    assert (connection.namespace, connection.context) == ("from-flag", "staging")


def test_config_lists_what_is_in_force(project: Path, session: Session, shell: Any, capsys: Any) -> None:
    project.write_text('[tool.telemagic]\ntimeout = 7\nproduction = ["live"]')
    run(shell, "%reload_ext telemagic\n%config TeleMagics")
    shown = capsys.readouterr().out
    assert "Current: 7.0" in shown
    assert "Current: ['*prod*', 'live']" in shown
    for text in HELP.values():
        assert text.split()[0] in shown
    assert shown.count("Current:") == len(HELP)


def test_a_bad_file_is_two_lines_in_a_cell_and_does_not_stop_loading(
    project: Path, session: Session, shell: Any, capsys: Any
) -> None:
    project.write_text('[tool.telemagic]\nvia = "x"')
    run(shell, "%reload_ext telemagic")
    with pytest.raises(ConfigError):
        run(shell, "%tele connect")
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2
    assert "ConfigError" in lines[0]
    assert "try: How to get into a cluster" in lines[1]
    assert "usage: %tele COMMAND" in run(shell, "%tele").text  # what needs no defaults works


def test_ipython_s_own_configuration_counts_as_config(project: Path, session: Session) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    project.write_text('[tool.telemagic]\nnamespace = "from-project"\ntimeout = 9')
    given = Config()
    given.HistoryManager.enabled = False
    given.TeleMagics.namespace = "from-profile"
    shell = InteractiveShell.instance(config=given)
    try:
        run(shell, "%load_ext telemagic")
        connection = run(shell, "%tele connect")
        assert connection.namespace == "from-profile"
        assert connection.target.options.timeout == 9.0
        run(shell, "%unload_ext telemagic")
    finally:
        InteractiveShell.clear_instance()


def test_the_command_uses_the_same_defaults(
    project: Path, runtime: Path, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write_text('[tool.telemagic]\ncontext = "zzz"')
    assert main(["connect"]) == 1
    assert "no context 'zzz'" in capsys.readouterr().err
    project.write_text("[tool.telemagic]\ncontext = 5")
    assert main(["connect"]) == 1
    err = capsys.readouterr().err
    assert f"telemagic: {project}, [tool.telemagic]: context must be a text, not 5\n" in err


def test_scripts_go_to_the_same_cluster(project: Path, session: Session) -> None:
    project.write_text('[tool.telemagic]\ncontext = "staging"\nnamespace = "ml"')
    with telemagic.connect() as found:
        assert (found.context, found.namespace) == ("staging", "ml")
    with telemagic.connect("demo", "shop") as found:
        assert (found.context, found.namespace) == ("demo", "shop")


@pytest.mark.parametrize(("after", "ticks"), [(0.0, 1), (60.0, 0)])
def test_progress_after(make_session: Callable[[FakeLauncher], Session], after: float, ticks: int) -> None:
    class Counting(live.Silent):
        ticks = 0

        def tick(self) -> None:
            self.ticks += 1

    config.use(lambda: Settings(progress_after=after))
    viewer = Counting()
    make_session(FakeLauncher(Script(phase_seconds=0.02))).connect(ConnectOptions(), viewer=viewer)
    assert viewer.ticks == ticks


def test_a_bad_file_starts_nothing(
    make_session: Callable[[FakeLauncher], Session], project: Path, runtime: Path
) -> None:
    project.write_text("[tool.telemagic]\ntimeout = []")
    launcher = FakeLauncher()
    with pytest.raises(ConfigError):
        make_session(launcher).connect(ConnectOptions())
    assert launcher.started == []


def test_the_demo_is_not_sought_in_another_context(project: Path) -> None:
    from telemagic.parser import Line, Tree

    tree = Tree("%tele", lambda: Settings(context="a", namespace="b", kubeconfig="c", timeout=5.0))
    line = tree.parse(["connect", "--demo"])
    assert isinstance(line, Line)
    assert (line.args.context, line.args.namespace, line.args.kubeconfig, line.args.timeout) == (
        "",
        "",
        "",
        5.0,
    )
    line = tree.parse(["connect", "--demo", "-n", "x"])
    assert isinstance(line, Line)
    assert line.args.namespace == "x"
