"""Login plugins as real processes: what they are told, what they may answer, and that none of them outlives its use."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube import exec_plugin
from telehelper.kube.exec_plugin import (
    VERSIONS,
    Credential,
    LoginPlugin,
    PluginSpec,
    parse_credential,
    run_plugin,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

WAIT = 20.0  # seconds for anything
NOW = 1_800_000_000.0  # Unix seconds


def spec(script: str = "", **fields: Any) -> PluginSpec:
    """Return a plugin that runs a Python script."""
    raw = {"apiVersion": VERSIONS[0], "command": sys.executable, "args": ["-c", script], **fields}
    return PluginSpec.read(raw, Path("/folder"), {"server": "https://a:1", "proxy-url": "", "extensions": []})


def printing(version: str = VERSIONS[0], **status: object) -> str:
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    return f"print({json.dumps(answer)!r})"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on the loop that the data plane has."""

    async def bounded() -> Any:
        async with asyncio.timeout(WAIT):
            return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


def refusal(plugin: PluginSpec) -> CredentialsRefused:
    with pytest.raises(CredentialsRefused) as caught:
        run(run_plugin(plugin))
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


# --- what the kubeconfig says --------------------------------------------------------------------------------------


def test_a_command_with_a_slash_is_relative_to_the_kubeconfig() -> None:
    assert spec(command="bin/login").command == "/folder/bin/login"
    assert spec(command="/usr/bin/login").command == "/usr/bin/login"
    assert spec(command="login").command == "login"


@pytest.mark.parametrize("raw", [3, {}, {"command": ""}, {"command": 3}, ["login"]])
def test_what_is_no_plugin(raw: object) -> None:
    with pytest.raises(KubeconfigError, match="has no command"):
        PluginSpec.read(raw, Path("/"), {})


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1alpha1", "", None])
def test_an_old_version_is_refused(version: str | None) -> None:
    with pytest.raises(KubeconfigError, match="dropped long ago") as caught:
        spec(apiVersion=version, command="old-login")
    assert "'old-login'" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("mode", ["Never", "IfAvailable", None])
def test_a_plugin_that_needs_no_terminal(mode: str | None) -> None:
    assert spec(interactiveMode=mode).name == Path(sys.executable).name


def test_a_plugin_that_needs_a_terminal_is_refused() -> None:
    with pytest.raises(KubeconfigError, match="wants a terminal") as caught:
        spec(interactiveMode="Always")
    assert "IfAvailable" in caught.value.hint


# --- running it ----------------------------------------------------------------------------------------------------


def test_what_it_gives() -> None:
    script = printing(token="t", clientCertificateData="c", clientKeyData="k", expirationTimestamp=stamp(NOW))
    assert run(run_plugin(spec(script))) == Credential("t", "c", "k", NOW)


def test_it_has_its_variables_and_knows_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    script = """
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
seen = [os.environ["INHERITED"], os.environ["GIVEN"], info, sys.stdin.read(), os.getsid(0) == os.getpid()]
print(json.dumps({"apiVersion": info["apiVersion"], "status": {"token": json.dumps(seen)}}))
"""
    env = [{"name": "GIVEN", "value": "too"}, {"name": ""}, 3]
    plugin = spec(script, env=env, provideClusterInfo=True, apiVersion=VERSIONS[1])
    seen = json.loads(run(run_plugin(plugin)).token)
    info = {
        "apiVersion": VERSIONS[1],
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": "https://a:1"}},
    }
    assert seen == ["yes", "too", info, "", True]


def test_its_own_settings_for_the_cluster_are_passed_on() -> None:
    raw = {"apiVersion": VERSIONS[0], "command": "login", "provideClusterInfo": True}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    found = PluginSpec.read(raw, Path("/"), {"extensions": [{"name": "other"}, extension, 3]})
    assert found.cluster == {"config": {"audience": "a"}}
    assert spec().cluster is None


def test_it_failed() -> None:
    script = "import sys; print('one\\nToken has expired\\x1b[0m\\n\\n', file=sys.stderr); sys.exit(3)"
    plugin = spec(script, args=["-c", script, "--secret"])
    error = refusal(plugin)
    assert (
        error.message == f"the login plugin {plugin.name!r} failed with status 3: Token has expired\\x1b[0m"
    )


def test_it_failed_without_a_word() -> None:
    assert refusal(spec("raise SystemExit(1)")).message.endswith("failed with status 1")


def test_it_complains_at_length() -> None:
    script = "import sys; sys.stderr.write('x' * 300_000 + '\\nthe end'); sys.exit(1)"
    assert refusal(spec(script)).message.endswith("status 1: the end")


def test_it_is_not_installed() -> None:
    error = refusal(spec(command="no-such-login", installHint="get it at\nexample.com"))
    assert error.message == "the login plugin 'no-such-login' of the kubeconfig is not installed"
    assert error.hint == "get it at example.com"
    assert "'no-such-login'" in refusal(spec(command="no-such-login")).hint


def test_it_cannot_be_run(tmp_path: Path) -> None:
    script = tmp_path / "login"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    assert "cannot be run: No such file or directory" in refusal(spec(command=str(script))).message


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (b"", "printed no credentials"),
        (b"please log in", "printed no credentials"),
        (b"[]", "printed no credentials"),
        (b"3", "printed no credentials"),
        (b'{"status": 3}', "printed no credentials"),
        (b'{"status": {"token": "t", "expirationTimestamp": "soon"}}', "printed no credentials"),
        (b'{"status": {"token": "t"}}', "answers in version 'None'"),
        (b'{"apiVersion": "v9", "status": {"token": "t"}}', "answers in version 'v9'"),
        (b'{"apiVersion": "V", "status": {}}', "gave no credentials"),
        (b'{"apiVersion": "V", "status": {"token": ""}}', "gave no credentials"),
        (b'{"apiVersion": "V", "status": {"token": "t", "clientKeyData": "k"}}', "gave no credentials"),
        (b'{"apiVersion": "V", "status": {"clientCertificateData": "c"}}', "gave no credentials"),
        (b"\xff\xfe", "printed no credentials"),
    ],
)
def test_answers_that_are_none(out: bytes, words: str) -> None:
    with pytest.raises(CredentialsRefused, match=words) as caught:
        parse_credential(out.replace(b'"V"', json.dumps(VERSIONS[0]).encode()), spec())
    assert caught.value.hint


def test_credentials_without_an_end_are_for_ever() -> None:
    assert run(run_plugin(spec(printing(token="t")))).expires_at == inf


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Credential("secret", "c", "secret"))


# --- one that does not end ---------------------------------------------------------------------------------------

LEAVES_A_CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
"""
HANGS = LEAVES_A_CHILD + "time.sleep(1000)"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def pids_in(path: Path) -> list[int]:
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.01)
    return [int(word) for word in path.read_text().split()]  # noqa: ASYNC240  # two words


async def all_gone(pids: list[int]) -> None:
    while any(map(is_running, pids)):  # noqa: ASYNC110  # the second is not our child
        await asyncio.sleep(0.01)


def test_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_plugin, "PLUGIN_TIMEOUT", 1.0)
    path = tmp_path / "pids"

    async def work() -> None:
        with pytest.raises(CredentialsRefused, match=r"did not end within 1 s") as caught:
            await run_plugin(spec(args=["-c", HANGS, str(path)]))
        assert "browser" in caught.value.hint
        await all_gone(await pids_in(path))

    run(work())


def test_it_does_not_outlive_who_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "pids"

    async def work() -> None:
        login = LoginPlugin(spec(args=["-c", HANGS, str(path)]))
        waiting = asyncio.create_task(login.credential())
        pids = await pids_in(path)
        assert all(map(is_running, pids))
        assert not login.was_cut
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert login.was_cut
        await all_gone(pids)

    run(work())


def test_a_child_that_keeps_its_output_open_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_plugin, "PLUGIN_TIMEOUT", 1.0)
    path = tmp_path / "pids"

    async def work() -> None:
        with pytest.raises(CredentialsRefused, match="did not end"):
            await run_plugin(spec(args=["-c", LEAVES_A_CHILD, str(path)]))
        await all_gone(await pids_in(path))

    run(work())


# --- keeping what it gave ----------------------------------------------------------------------------------------


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOW + 100


class Script:
    """Stands in for running a plugin: gives what is put in, and counts."""

    def __init__(self) -> None:
        self.results: list[Credential | CredentialsRefused] = []
        self.runs = 0

    async def __call__(self, _: PluginSpec) -> Credential:
        self.runs += 1
        await asyncio.sleep(0)
        result = self.results.pop(0)
        if isinstance(result, CredentialsRefused):
            raise result
        return result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(exec_plugin, "time", found)
    return found


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    found = Script()
    monkeypatch.setattr(exec_plugin, "run_plugin", found)
    return found


def expiring(token: str, life: float) -> Credential:
    return Credential(token, expires_at=NOW + life)


def test_many_requests_run_it_once(clock: Clock, script: Script) -> None:
    script.results = [expiring("a", 3600)]

    async def work() -> None:
        login = LoginPlugin(spec())
        tokens = await asyncio.gather(*(login.credential() for _ in range(20)))
        assert {each.token for each in tokens} == {"a"}

    run(work())
    assert script.runs == 1


@pytest.mark.parametrize(("life", "renewed_at"), [(3600, 3540), (60, 54), (20, 18), (5, 10), (-100, 10)])
def test_it_is_run_again_shortly_before_the_end(
    clock: Clock, script: Script, life: float, renewed_at: float
) -> None:
    script.results = [expiring("a", life), expiring("b", 9999)]

    async def work() -> None:
        login = LoginPlugin(spec())
        for at, token in ((0.0, "a"), (renewed_at - 1, "a"), (renewed_at + 1, "b")):
            clock.now = NOW + at
            assert (await login.credential()).token == token

    run(work())
    assert script.runs == 2


def test_credentials_that_are_still_good_outlast_a_failure(clock: Clock, script: Script) -> None:
    script.results = [expiring("a", 600), CredentialsRefused("away"), CredentialsRefused("away")]

    async def work() -> None:
        login = LoginPlugin(spec())
        await login.credential()
        clock.now = NOW + 550
        assert (await login.credential()).token == "a"
        clock.now = NOW + 601
        with pytest.raises(CredentialsRefused, match="away"):
            await login.credential()

    run(work())


def test_a_failure_is_remembered_for_a_while(clock: Clock, script: Script) -> None:
    script.results = [CredentialsRefused("away"), expiring("a", 600)]

    async def work() -> None:
        login = LoginPlugin(spec())
        for _ in range(3):
            with pytest.raises(CredentialsRefused, match="away"):
                await login.credential()
        assert script.runs == 1
        clock.now += exec_plugin.FAILURE_PAUSE + 1
        assert (await login.credential()).token == "a"

    run(work())


def test_it_really_runs_and_is_really_kept(tmp_path: Path) -> None:
    count = tmp_path / "count"
    until = stamp(time.time() + 600)
    script = f"open({str(count)!r}, 'a').write('x'); " + printing(token="t", expirationTimestamp=until)

    async def work() -> None:
        login = LoginPlugin(spec(script))
        for _ in range(5):
            assert (await login.credential()).token == "t"

    before = set(os.listdir("/proc/self/fd"))
    run(work())
    assert count.read_text() == "x"
    assert len(os.listdir("/proc/self/fd")) <= len(before)
