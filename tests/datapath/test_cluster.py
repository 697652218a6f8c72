"""Finding a ready manager among pods."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import uvloop
from telehelper.datapath.cluster import LABEL, ManagerPod, Relay, _translate, choose_manager, find_manager
from telehelper.errors import (
    ApiServerUnavailable,
    CredentialsRefused,
    ManagerTooOld,
    ManagerUnavailable,
    SessionExpired,
    TelemagicError,
)
from telehelper.kube.client import ApiNotFound

from tests.datapath.waiting import turns

if TYPE_CHECKING:
    from pathlib import Path

READY = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]
PORTS = [{"name": "grpc", "containerPort": 8081}, {"name": "carrier", "containerPort": 8082}]


NAME = "from telehelper.datapath.cluster import client_name; print(client_name())"


def pod(name: str, created: str = "2026-01-01T00:00:00Z", **changes: Any) -> dict[str, Any]:
    """Return a ready manager; `changes` replace parts."""
    metadata = {"name": name, "creationTimestamp": created}
    if "leaving" in changes:
        metadata["deletionTimestamp"] = changes["leaving"]
    return {
        "metadata": metadata,
        "spec": {"containers": changes.get("containers", [{"name": "manager", "ports": PORTS}])},
        "status": {"conditions": changes.get("conditions", READY)},
    }


def choose(*pods: dict[str, Any]) -> ManagerPod:
    return choose_manager({"items": list(pods)}, "telemagic")


def test_the_ready_one() -> None:
    assert choose(pod("a")) == ManagerPod("telemagic", "a", 8081, 8082)


def test_ports_are_read_from_the_pod_and_may_be_in_another_container() -> None:
    ports = [{"name": "grpc", "containerPort": 1}, {"name": "carrier", "containerPort": 2}]
    containers = [
        {"name": "sidecar"},
        {"name": "proxy", "ports": [{"containerPort": 15001}]},
        {"ports": ports},
    ]
    assert choose(pod("a", containers=containers)) == ManagerPod("telemagic", "a", 1, 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_youngest_of_several(order: tuple[int, ...]) -> None:
    pods = [pod(f"p{n}", f"2026-01-0{n + 1}T00:00:00Z") for n in range(3)]
    assert choose(*(pods[n] for n in order)).name == "p2"


@pytest.mark.parametrize(
    "other",
    [
        pod("new", "2026-02-01T00:00:00Z", conditions=[{"type": "Ready", "status": "False"}]),
        pod("new", "2026-02-01T00:00:00Z", conditions=[]),
        pod("new", "2026-02-01T00:00:00Z", conditions=None),
        pod("new", "2026-02-01T00:00:00Z", leaving="2026-02-02T00:00:00Z"),
        pod("new", "2026-02-01T00:00:00Z", containers=[]),
        pod("new", "2026-02-01T00:00:00Z", containers=[{"ports": PORTS[:1]}]),
        {"metadata": {"name": "new"}},
    ],
)
def test_one_that_is_not_ready_is_passed_over_and_alone_is_refused(other: dict[str, Any]) -> None:
    assert choose(other, pod("old")).name == "old"
    with pytest.raises(ManagerUnavailable, match="telemagic/new is not ready") as caught:
        choose(other)
    assert caught.value.hint == "kubectl -n telemagic describe pod new"


@pytest.mark.parametrize("doc", [{"items": []}, {"items": None}, {}])
def test_there_is_none(doc: dict[str, Any]) -> None:
    with pytest.raises(ManagerUnavailable, match="no traffic manager in namespace 'telemagic'") as caught:
        choose_manager(doc, "telemagic")
    assert "%tele install" in caught.value.hint


def test_finding_asks_for_the_label_in_the_namespace() -> None:
    class Api:
        async def get(self, path: str, **params: str) -> dict[str, Any]:
            assert (path, params) == ("/api/v1/namespaces/tools/pods", {"labelSelector": LABEL})
            return {"items": [pod("a")]}

    found = asyncio.run(find_manager(Api(), "tools"))  # type: ignore[arg-type]  # all it needs
    assert found == ManagerPod("tools", "a", 8081, 8082)


def test_a_namespace_that_is_not_there_has_no_manager() -> None:
    class Api:
        async def get(self, path: str, **_: str) -> dict[str, Any]:
            raise ApiNotFound(path)

    with pytest.raises(ManagerUnavailable, match="no traffic manager"):
        asyncio.run(find_manager(Api(), "tools"))  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("status", ["401", "403"])
def test_who_may_not_look_for_it_is_told_what_to_ask_for(status: str) -> None:
    class Api:
        async def get(self, path: str, **_: str) -> dict[str, Any]:
            raise CredentialsRefused("refused", status=status)

    with pytest.raises(CredentialsRefused) as caught:
        asyncio.run(find_manager(Api(), "tools"))  # type: ignore[arg-type]  # as above
    assert ("may not list pods in namespace 'tools'" in caught.value.message) is (status == "403")
    assert caught.value.data["status"] == status
    assert caught.value.hint


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, ManagerTooOld),
        (grpc.StatusCode.UNIMPLEMENTED, ManagerTooOld),
        (grpc.StatusCode.UNAUTHENTICATED, SessionExpired),
        (grpc.StatusCode.UNAVAILABLE, ManagerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ManagerUnavailable),
    ],
)
def test_what_a_control_call_fails_with(
    code: grpc.StatusCode, kind: type[TelemagicError], tmp_path: Path
) -> None:
    relay = Relay(None, ManagerPod("tools", "m", 1, 2), tmp_path / "rpc")  # type: ignore[arg-type]  # not asked
    failed = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    found = _translate(failed, relay)
    assert type(found) is kind
    assert "why" in found.message
    relay.error = ApiServerUnavailable("no API server")  # says more than grpc's "unavailable"
    assert (_translate(failed, relay) is relay.error) is (kind is ManagerUnavailable)


class SlowApi:
    """An API server that takes its time; `asked` counts port-forwards."""

    def __init__(self) -> None:
        self.asked = 0

    async def portforward(self, *_: object) -> None:
        self.asked += 1
        await asyncio.sleep(60)


@pytest.mark.parametrize("passed", range(6))
def test_a_relay_that_is_closed_opens_nothing_for_who_came_just_before(tmp_path: Path, passed: int) -> None:
    async def main() -> None:
        api = SlowApi()
        relay = Relay(api, ManagerPod("telemagic", "manager-0", 1, 2), tmp_path / "rpc")  # type: ignore[arg-type]
        await relay.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "rpc"))
            await turns(passed)  # so that it has come so far, or so far
            await relay.close()
            asked = api.asked
            await turns(10)
            assert api.asked == asked
            assert relay._tasks == set()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def called(*prefix: str, **environment: str) -> str:
    """Return how a process calls itself that is started with this before, and nothing else in its environment."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", NAME],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], **environment},
    )
    return done.stdout.strip()


@pytest.mark.netns
def test_a_user_without_a_name_has_a_number() -> None:
    """As in containers that are run under any uid, JupyterHub's and OpenShift's: no entry in passwd(5), no $USER."""
    nobody = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
    assert called(*nobody) == f"uid 54321@{socket.gethostname()}"
    assert called(*nobody, USER="ada") == f"ada@{socket.gethostname()}"
