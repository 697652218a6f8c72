"""The look at a cluster, at a real small API server with each fault, and once as the child process that it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from telehelper.admin import checkup
from telehelper.admin.checkup import Question
from telehelper.admin.verdicts import OK, PROBLEM, WARNING, Finding
from telehelper.datapath import host_routes
from telehelper.errors import VifError
from telehelper.kube.reviews import REVIEWS

from tests.kube.api_server import ApiServer, Pki, kubeconfig, make_pki

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANAGER_PODS = "/api/v1/namespaces/telemagic/pods"


def manager(version: str = "", *, ready: bool = True) -> dict[str, Any]:
    ports = [{"name": "grpc", "containerPort": 8081}, {"name": "carrier", "containerPort": 8082}]
    return {
        "metadata": {"name": "m-0", "labels": {"app.kubernetes.io/version": version} if version else {}},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


class Bench:
    """A healthy cluster, until a test changes it."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki = pki
        self.folder = folder
        self.server = ApiServer(pki)
        self.server.answer("/version", {"gitVersion": "v1.33.0"})
        self.server.answer(MANAGER_PODS, {"items": [manager()]})
        cidrs = {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["198.18.240.0/24"]}}]}
        self.server.answer("/apis/networking.k8s.io/v1/servicecidrs", cidrs)
        self.server.answers[REVIEWS] = self._review
        self.refused: set[tuple[str, str]] = set()  # verb, resource/subresource
        self.reviewed: list[dict[str, str]] = []
        self.user: dict[str, Any] | None = None

    async def _review(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["spec"]["resourceAttributes"]
        self.reviewed.append(asked)
        what = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        allowed = (asked["verb"], what) not in self.refused
        return web.json_response({"status": {"allowed": allowed}}, status=201)

    def examine(self, patience: float = 20.0, **options: Any) -> dict[str, Finding]:
        async def run() -> list[Finding]:
            async with self.server.run():
                config = kubeconfig(self.folder, self.pki, self.server.url, user=self.user)
                question = Question(str(config), options.pop("context", ""), "", "telemagic", False)
                for name, value in options.items():
                    setattr(question, name, value)
                return await checkup.check(question, patience)

        return {one.check: one for one in asyncio.run(run())}


@pytest.fixture
def bench(pki: Pki, tmp_path: Path) -> Bench:
    return Bench(pki, tmp_path)


def levels(found: dict[str, Finding], *names: str) -> list[str]:
    return [found[name].level for name in names]


def test_a_healthy_cluster(bench: Bench) -> None:
    found = bench.examine()
    assert {one.level for one in found.values()} == {OK}, found
    assert list(found) == [
        "API server",
        "clock",
        "credentials",
        "rights: manager",
        "rights: agentless",
        "rights: names",
        "rights: networks",
        "traffic manager",
        "way in",
        "MTU",
        "networks",
    ]
    assert found["API server"].found.startswith(f"{bench.server.url}: v1.33.0, ")
    assert found["traffic manager"].found == "telemagic/m-0 is ready"
    assert found["MTU"].found.endswith("by lo")
    assert "198.18.240.0/24" in found["networks"].found
    assert {asked["namespace"] for asked in bench.reviewed} == {"telemagic", "shop", ""}
    methods = {request.method for request in bench.server.requests if request.path != REVIEWS}
    assert methods <= {"GET", "POST"}
    assert all("dryRun" in r.query for r in bench.server.requests if r.method == "POST" and r.path != REVIEWS)


def test_a_refused_token(bench: Bench) -> None:
    bench.user = {"token": "old"}
    found = bench.examine()
    assert found["credentials"].level == PROBLEM
    assert "(401)" in found["credentials"].found
    assert "way in" not in found  # one problem, one line


def test_a_token_that_only_version_takes(bench: Bench) -> None:
    """Most API servers tell their version to anybody."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)

    bench.server.answers[REVIEWS] = refuse
    found = bench.examine()
    assert levels(found, "API server", "credentials") == [OK, PROBLEM]


def test_a_right_that_is_missing(bench: Bench) -> None:
    bench.refused = {("get", "pods/portforward"), ("create", "pods/portforward")}
    found = bench.examine()
    assert levels(found, "rights: manager", "rights: agentless", "way in") == [WARNING, WARNING, PROBLEM]
    assert "get or create pods/portforward in telemagic" in found["rights: manager"].found


def test_reviews_that_are_forbidden_or_nonsense(bench: Bench) -> None:
    for status, doc in (
        (403, {"kind": "Status"}),
        (200, {}),
        (200, {"status": {"allowed": "yes"}}),
        (500, "oops"),
    ):
        bench.server.answer(REVIEWS, doc, status)
        found = bench.examine()
        assert found["rights: manager"].level == WARNING, (status, found)
        assert "does not say" in found["rights: manager"].found
        assert found["way in"].level == OK


def test_no_manager(bench: Bench) -> None:
    bench.server.answer(MANAGER_PODS, {"items": []})
    found = bench.examine()
    assert levels(found, "traffic manager", "way in") == [WARNING, OK]
    assert "no traffic manager in namespace 'telemagic'" in found["traffic manager"].found
    assert found["way in"].found.startswith("agentless")


def test_a_manager_that_is_not_ready_or_of_another_version(bench: Bench) -> None:
    bench.server.answer(MANAGER_PODS, {"items": [manager(ready=False)]})
    assert "is not ready" in bench.examine()["traffic manager"].found
    bench.server.answer(MANAGER_PODS, {"items": [manager("9.9.9")]})
    assert "version 9.9.9; this is" in bench.examine()["traffic manager"].found


@pytest.mark.parametrize(
    ("doc", "status", "text"),
    [
        ("<html><title>Sign in</title></html>", 200, "Sign in"),
        ('{"gitVersion": "v1.', 200, "JSON"),
        ("[]", 200, "no object"),
        ({"message": "down"}, 503, "503"),
    ],
)
def test_something_else_answers(bench: Bench, doc: Any, status: int, text: str) -> None:
    bench.server.answer("/version", doc, status)
    (found,) = bench.examine().values()
    assert (found.check, found.level, text in found.found) == ("API server", PROBLEM, True), found


def test_a_silent_api_server_costs_a_few_seconds_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(checkup, "ANSWER_PATIENCE", 0.05)
    bench.server.answers["/version"] = hang
    (found,) = bench.examine().values()
    assert (found.check, found.found.partition(": ")[2]) == ("API server", "no answer in time")


def test_one_that_becomes_silent_later(bench: Bench) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    bench.server.answers[MANAGER_PODS] = hang
    found = bench.examine(patience=1.5)
    assert found["API server"].level == OK
    assert found["cluster"].level == PROBLEM
    assert found["cluster"].found.startswith("too slow: only API server, ")


def test_nobody_listens(bench: Bench) -> None:
    config = kubeconfig(bench.folder, bench.pki, "https://127.0.0.1:1")
    (found,) = asyncio.run(checkup.check(Question(str(config), "", "", "telemagic", False)))
    assert found.found == "API server https://127.0.0.1:1 cannot be reached: Connection refused"
    assert found.remedy


def test_a_clock_that_is_wrong(bench: Bench) -> None:
    bench.server.answer("/version", {"gitVersion": "v1"}, headers={"Date": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert levels(bench.examine(), "clock") == [PROBLEM]
    bench.server.answer("/version", {"gitVersion": "v1"}, headers={"Date": "yesterday"})
    assert "clock" not in bench.examine()


def test_the_networks_of_a_connection_are_the_data_planes(bench: Bench) -> None:
    assert "networks" not in bench.examine(is_connected=True)


def test_routes_that_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> Any:
        raise VifError("cannot read the machine's routes: no netlink")

    monkeypatch.setattr(host_routes, "read_routes", fail)
    found = bench.examine()["networks"]
    assert (found.level, found.found) == (WARNING, "cannot read the machine's routes: no netlink")


def test_a_context_that_is_not_there(bench: Bench) -> None:
    (found,) = bench.examine(context="nowhere").values()
    assert (found.check, found.level) == ("credentials", PROBLEM)
    assert "nowhere" in found.found


def plugin(folder: Path, script: str) -> dict[str, Any]:
    path = folder / "login"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(path), "interactiveMode": "Never"}}


def test_a_login_plugin_that_fails(bench: Bench) -> None:
    bench.user = plugin(bench.folder, "echo please log in >&2; exit 1")
    (found,) = bench.examine().values()
    assert (found.check, found.level) == ("credentials", PROBLEM)
    assert "please log in" in found.found


def test_a_login_plugin_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "LOGIN_PATIENCE", 0.2)
    bench.user = plugin(bench.folder, "exec sleep 60")
    (found,) = bench.examine().values()
    assert (found.check, found.level) == ("credentials", PROBLEM)
    assert "did not end within" in found.found
    assert "terminal" in found.remedy


def run_child(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "telehelper.admin", "checkup", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, said


def test_as_a_child_process(bench: Bench, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path, bench.pki, "https://127.0.0.1:1")
    begun = time.monotonic()
    status, said = run_child("--kubeconfig", str(config))
    assert status == 0
    assert said["done"]["findings"][0][:2] == ["API server", PROBLEM]
    assert time.monotonic() - begun < 30  # a busy machine; by itself it takes under one


def test_findings_are_plain_text(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    config = kubeconfig(bench.folder, bench.pki, "https://127.0.0.1:1")
    done: Callable[[list[str]], dict[str, Any]] = checkup.main
    assert json.loads(json.dumps(done(["--kubeconfig", str(config)])))["findings"]
    assert capsys.readouterr().out == ""
