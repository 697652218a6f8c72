"""The API server on a socket of this process, without a cluster: rights, words, bodies, watches and forwards."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from telemagic.demo import rbac
from telemagic.demo.apiserver import ApiServer, release_of
from telemagic.demo.faults import Faults
from telemagic.demo.kinds import KIND
from telemagic.demo.kubelet import Pod
from telemagic.demo.programs import Command, PodSpec, Program
from telemagic.demo.rbac import User
from telemagic.demo.store import Store
from tests.demo.api_objects import binding, deployment, named, role, service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

USERS = {
    "root": User("root", (rbac.MASTERS,)),
    "alice": User("alice"),
    "robot": rbac.service_account("shop", "robot"),
}
POD = Pod(PodSpec("one", "shop", Program(Command(("true",)))), network=-1)


class Client:
    """A server, and requests to it; `forwarded` is what it was asked to forward."""

    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.faults = Faults()
        self.forwarded: list[tuple[str, list[int]]] = []
        options = {"services": [ip_network("10.96.0.0/20")], "faults": self.faults, **options}
        pods = {("shop", "one"): POD}
        self.server = ApiServer(self.store, pods, USERS, forward=self._forward, **options)
        self.session: aiohttp.ClientSession | None = None
        self.url = ""
        for kind, item in (
            ("namespaces", {"metadata": named("shop")}),
            ("pods", {"metadata": named("one", "shop"), "spec": {}, "status": {}}),
            ("pods", {"metadata": named("idle", "shop"), "spec": {}, "status": {}}),
            ("nodes", {"metadata": named("n")}),
        ):
            self.store.put(KIND[kind], item)

    async def _forward(self, request: web.Request, pod: Pod, ports: Sequence[int]) -> web.StreamResponse:
        self.forwarded.append((pod.spec.name, list(ports)))
        return web.json_response({"forwarded": True})

    async def ask(
        self, method: str, path: str, body: Any = None, *, who: str = "root", **headers: str
    ) -> tuple[int, Any]:
        assert self.session is not None
        own = {"Authorization": f"Bearer {who}", "Content-Type": "application/json", **headers}
        data = (
            None
            if body is None
            else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        )
        async with self.session.request(method, self.url + path, data=data, headers=own) as reply:
            text = await reply.text()
            is_json = reply.content_type == "application/json"
            return reply.status, json.loads(text) if is_json else text

    def allow(self, verbs: str, resources: str, namespace: str = "shop", user: str = "alice") -> None:
        """Give rights in the core group."""
        plural, bindings = ("roles", "rolebindings") if namespace else ("clusterroles", "clusterrolebindings")
        self.store.put(KIND[plural], role("r", namespace, verbs, resources))
        self.store.put(KIND[bindings], binding("b", namespace, user=user))


def serve(work: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Run a test with a server on the loopback, in plain HTTP."""

    async def run() -> None:
        client = Client(**options)
        await client.server.start()
        listener = socket.create_server(("127.0.0.1", 0))
        client.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await client.server.listen(listener, None)
        try:
            async with asyncio.timeout(20), aiohttp.ClientSession() as client.session:
                await work(client)
        finally:
            await client.server.close()

    asyncio.run(run())


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
FORWARD = "/api/v1/namespaces/shop/pods/one/portforward?ports=80,81"
REVIEWS = "/apis/authorization.k8s.io/v1"


# --- rights ------------------------------------------------------------------------------------------------------


def test_who_has_no_token_is_nobody() -> None:
    async def work(client: Client) -> None:
        code, body = await client.ask("GET", "/api/v1/nodes", who="stranger")
        assert (code, body["reason"]) == (401, "Unauthorized")
        client.faults.expired.add("alice")
        assert (await client.ask("GET", "/api", who="alice"))[0] == 401

    serve(work)


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/api/v1/nodes", 'nodes is forbidden: User "alice" cannot list resource "nodes" in API group "" at the cluster scope'),
        ("GET", "/api/v1/nodes?watch=true", 'nodes is forbidden: User "alice" cannot watch resource "nodes" in API group "" at the cluster scope'),
        ("GET", "/api/v1/nodes/n", 'nodes "n" is forbidden: User "alice" cannot get resource "nodes" in API group "" at the cluster scope'),
        ("GET", "/api/v1/namespaces/shop", 'namespaces "shop" is forbidden: User "alice" cannot get resource "namespaces" in API group "" in the namespace "shop"'),
        ("POST", "/apis/apps/v1/namespaces/shop/deployments", 'deployments.apps is forbidden: User "alice" cannot create resource "deployments" in API group "apps" in the namespace "shop"'),
        ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/x", 'deployments.apps "x" is forbidden: User "alice" cannot patch resource "deployments" in API group "apps" in the namespace "shop"'),
        ("PUT", "/api/v1/namespaces/shop/configmaps/x", 'configmaps "x" is forbidden: User "alice" cannot update resource "configmaps" in API group "" in the namespace "shop"'),
        ("DELETE", "/api/v1/namespaces/shop/pods/one", 'pods "one" is forbidden: User "alice" cannot delete resource "pods" in API group "" in the namespace "shop"'),
        ("DELETE", "/api/v1/namespaces/shop/pods", 'pods is forbidden: User "alice" cannot deletecollection resource "pods" in API group "" in the namespace "shop"'),
        ("GET", FORWARD, 'pods "one" is forbidden: User "alice" cannot get resource "pods/portforward" in API group "" in the namespace "shop"'),
        ("POST", FORWARD, 'pods "one" is forbidden: User "alice" cannot create resource "pods/portforward" in API group "" in the namespace "shop"'),
        ("GET", "/api/v1/namespaces/shop/pods/one/log", 'pods "one" is forbidden: User "alice" cannot get resource "pods/log" in API group "" in the namespace "shop"'),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_asked(method: str, path: str, message: str) -> None:
    async def work(client: Client) -> None:
        code, body = await client.ask(method, path, b"{}", who="alice")
        assert (code, body["kind"], body["reason"], body["code"]) == (403, "Status", "Forbidden", 403)
        assert body["message"] == message

    serve(work)


def test_rights_count_from_the_moment_they_are_there() -> None:
    async def work(client: Client) -> None:
        path = "/api/v1/namespaces/shop/pods"
        assert (await client.ask("GET", path, who="alice"))[0] == 403
        client.allow("list", "pods")
        assert (await client.ask("GET", path, who="alice"))[0] == 200
        assert (await client.ask("GET", f"{path}/one", who="alice"))[0] == 403
        assert (await client.ask("GET", "/api/v1/pods", who="alice"))[0] == 403
        client.store.delete(KIND["rolebindings"], "shop", "b")
        assert (await client.ask("GET", path, who="alice"))[0] == 403

    serve(work)


def test_reviews_answer_as_requests_are_judged() -> None:
    async def review(client: Client, **asked: str) -> dict[str, Any]:
        spec = {"spec": {"resourceAttributes": asked}}
        code, body = await client.ask("POST", f"{REVIEWS}/selfsubjectaccessreviews", spec, who="alice")
        assert (code, body["spec"]) == (201, spec["spec"])
        found: dict[str, Any] = body["status"]
        return found

    async def work(client: Client) -> None:
        client.allow("get create", "pods/portforward pods")
        forward = {"resource": "pods", "subresource": "portforward", "namespace": "shop", "name": "one"}
        for verb, code in (("get", 400), ("create", 400), ("delete", 404)):
            allowed = await review(client, verb=verb, **forward)
            method = {"get": "GET", "create": "POST", "delete": "DELETE"}[verb]
            answer, _ = await client.ask(method, FORWARD, b"{}", who="alice")
            assert allowed["allowed"] is (answer != 403) is (code == 400), verb
        assert "RoleBinding" in (await review(client, verb="get", **forward))["reason"]
        assert await review(client, verb="list", resource="nodes") == {"allowed": False}
        spec = {"spec": {"namespace": "shop"}}
        _, rules = await client.ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", spec, who="alice")
        assert rules["status"]["resourceRules"] == [
            {"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods/portforward", "pods"]}
        ]

    serve(work)


@pytest.mark.parametrize(
    ("review", "body"),
    [
        ("selfsubjectaccessreviews", {}),
        ("selfsubjectaccessreviews", {"spec": {}}),
        ("selfsubjectaccessreviews", {"spec": {"resourceAttributes": 7}}),
        ("selfsubjectrulesreviews", {"spec": {}}),
        ("selfsubjectrulesreviews", {"spec": {"namespace": 7}}),
    ],
)
def test_a_review_of_nothing_is_a_bad_request(review: str, body: Any) -> None:
    async def work(client: Client) -> None:
        code, answer = await client.ask("POST", f"{REVIEWS}/{review}", body, who="alice")
        assert (code, answer["reason"]) == (400, "BadRequest")

    serve(work)


# --- port-forward ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verbs", "expected"),
    [
        ("v1.34.9", "get", 200),
        ("v1.34.9", "create", 403),
        ("v1.35.0", "get", 403),
        ("v1.35.0", "get create", 200),
        ("v1.35.0-eks-1", "create", 403),
    ],
)
def test_a_websocket_needs_the_verbs_of_its_release(version: str, verbs: str, expected: int) -> None:
    async def work(client: Client) -> None:
        client.allow(verbs, "pods/portforward")
        code, body = await client.ask("GET", FORWARD, who="alice", **UPGRADE)
        assert code == expected
        assert client.forwarded == ([("one", [80, 81])] if code == 200 else [])
        if expected == 403:
            missing = "get" if verbs == "create" else "create"
            assert f'cannot {missing} resource "pods/portforward"' in body["message"]

    serve(work, version=version)


def test_a_forward_that_cannot_be_is_refused_before_it_begins() -> None:
    async def work(client: Client) -> None:
        for path, headers, expected in (
            (FORWARD.replace("one", "gone"), UPGRADE, 404),
            (FORWARD.replace("one", "idle"), UPGRADE, 400),
            (FORWARD.replace("one/portforward", "idle/log"), {}, 400),
            (FORWARD, {}, 400),
            (FORWARD.replace("80", "0"), UPGRADE, 400),
            (FORWARD, {**UPGRADE, "Sec-WebSocket-Protocol": "v5.channel.k8s.io"}, 403),
        ):
            assert (await client.ask("GET", path, **headers))[0] == expected
        client.faults.no_upgrade = True
        assert (await client.ask("GET", FORWARD, **UPGRADE))[0] == 502
        assert client.forwarded == []

    serve(work)


# --- writing -----------------------------------------------------------------------------------------------------

APPLY = {"Content-Type": "application/apply-patch+yaml"}
WEB = "/apis/apps/v1/namespaces/shop/deployments/web"


def test_an_apply_takes_yaml_and_json_and_creates_or_changes() -> None:
    async def work(client: Client) -> None:
        written = yaml.safe_dump(deployment("web")).encode()
        code, body = await client.ask("PATCH", f"{WEB}?fieldManager=t", written, **APPLY)
        assert (code, body["spec"]["replicas"]) == (201, 1)
        again = await client.ask("PATCH", f"{WEB}?fieldManager=t&force=true", deployment("web"), **APPLY)
        assert again == (200, body)
        code, body = await client.ask("PATCH", WEB, b"{}", **APPLY)
        assert (code, body["reason"]) == (422, "Invalid")
        assert "fieldManager: Required value: is required for apply patch" in body["message"]

    serve(work)


def test_an_apply_needs_the_right_to_create_what_is_not_there() -> None:
    async def work(client: Client) -> None:
        client.allow("patch", "configmaps")
        path = "/api/v1/namespaces/shop/configmaps/c?fieldManager=t"
        code, body = await client.ask("PATCH", path, {"metadata": {"name": "c"}}, who="alice", **APPLY)
        assert code == 403
        assert "cannot create resource" in body["message"]
        client.allow("patch create", "configmaps")
        for expected in (201, 200):
            answer = await client.ask("PATCH", path, {"metadata": {"name": "c"}}, who="alice", **APPLY)
            assert answer[0] == expected

    serve(work)


def test_the_life_of_an_object() -> None:
    async def work(client: Client) -> None:
        several = "/api/v1/namespaces/shop/configmaps"
        one = f"{several}/c"
        code, made = await client.ask("POST", several, {"metadata": {"name": "c"}, "data": {"a": "1"}})
        assert code == 201
        assert await client.ask("GET", one) == (200, made)
        merge = {"Content-Type": "application/merge-patch+json"}
        _, merged = await client.ask("PATCH", one, {"data": {"b": "2"}}, **merge)
        assert merged["data"] == {"a": "1", "b": "2"}
        code, body = await client.ask("PUT", one, made)
        assert (code, body["reason"]) == (409, "Conflict")
        _, replaced = await client.ask("PUT", one, {**merged, "data": {}})
        assert replaced["data"] == {}
        code, gone = await client.ask("DELETE", one)
        assert (code, gone["kind"], gone["status"]) == (200, "Status", "Success")
        assert gone["details"]["uid"] == made["metadata"]["uid"]
        assert (await client.ask("GET", one))[0] == 404
        assert (await client.ask("DELETE", one))[0] == 404

    serve(work)


def test_a_dry_run_is_refused_or_done_but_never_stored() -> None:
    async def work(client: Client) -> None:
        path, version = "/api/v1/namespaces/shop/services", client.store.version
        code, body = await client.ask("POST", f"{path}?dryRun=All", service("web"))
        assert (code, body["spec"]["clusterIP"]) == (201, "10.96.0.0")
        code, body = await client.ask("POST", f"{path}?dryRun=All", service("web", clusterIP="1.1.1.1"))
        assert (code, "10.96.0.0/20" in body["message"]) == (422, True)
        assert (await client.ask("DELETE", "/api/v1/namespaces/shop/pods/one?dryRun=All"))[0] == 200
        code, body = await client.ask("POST", f"{path}?dryRun=Some", service("web"))
        assert (code, body["reason"]) == (400, "BadRequest")
        assert client.store.version == version

    serve(work)


def test_deleting_several_takes_those_that_match() -> None:
    async def work(client: Client) -> None:
        path = "/api/v1/namespaces/shop/configmaps"
        for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
            await client.ask("POST", path, {"metadata": {"name": name, "labels": {"app": app}}})
        _, gone = await client.ask("DELETE", f"{path}?labelSelector=app%3Dx")
        assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
        _, left = await client.ask("GET", path)
        assert [item["metadata"]["name"] for item in left["items"]] == ["c"]

    serve(work)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "expected"),
    [
        ("POST", "/api/v1/namespaces", b"{", {}, 400),
        ("POST", "/api/v1/namespaces", b"[]", {}, 400),
        ("POST", "/api/v1/namespaces", b"a: [", {"Content-Type": "application/yaml"}, 400),
        ("POST", "/api/v1/namespaces", b"x", {"Content-Type": "application/vnd.kubernetes.protobuf"}, 415),
        ("POST", "/api/v1/namespaces", b"\xff", {}, 400),
        ("POST", "/api/v1/namespaces", b" " * 4_000_000, {}, 413),
        ("POST", "/api/v1/namespaces/shop", b"{}", {}, 405),
        ("PUT", "/api/v1/namespaces", b"{}", {}, 405),
        ("TRACE", "/api/v1/namespaces", None, {}, 405),
        ("POST", "/apis/apps/v1/namespaces/shop/statefulsets", b"{}", {}, 405),
        ("PATCH", "/api/v1/nodes/n", b"[]", {"Content-Type": "application/json-patch+json"}, 400),
        ("PATCH", "/api/v1/nodes/n", b"{}", {"Content-Type": "application/json-patch+json"}, 415),
        ("PATCH", "/api/v1/nodes/n/status", b"{}", {}, 404),
        ("POST", "/api/v1/namespaces/shop/pods/one/exec", b"{}", {}, 404),
        ("GET", "/api/v1/nodes?watch=true&resourceVersion=x", None, {}, 400),
        ("GET", "/api/v1/nodes?watch=true&timeoutSeconds=x", None, {}, 400),
        ("GET", "/api/v1/nodes?labelSelector=a&fieldSelector=b", None, {}, 400),
    ],
)  # fmt: skip
def test_a_bad_request_gets_a_status(
    method: str, path: str, body: bytes | None, headers: dict[str, str], expected: int
) -> None:
    async def work(client: Client) -> None:
        code, answer = await client.ask(method, path, body, **headers)
        assert (code, answer["kind"], answer["code"]) == (expected, "Status", expected)

    serve(work)


# --- watching and failing ----------------------------------------------------------------------------------------


def test_a_watch_tells_of_what_is_written_and_deleted() -> None:
    async def work(client: Client) -> None:
        assert client.session is not None
        url = f"{client.url}/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion={client.store.version}"
        async with client.session.get(url, headers={"Authorization": "Bearer root"}) as watch:
            path = "/api/v1/namespaces/shop/configmaps"
            await client.ask("POST", path, {"metadata": {"name": "c"}})
            await client.ask("DELETE", f"{path}/c")
            seen = [json.loads(await watch.content.readline()) for _ in range(2)]
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
            ("ADDED", "c"),
            ("DELETED", "c"),
        ]

    serve(work)


def test_a_page_and_half_an_answer() -> None:
    async def work(client: Client) -> None:
        client.faults.page = True
        code, body = await client.ask("GET", "/version")
        assert (code, "<html>" in body) == (200, True)
        client.faults.page, client.faults.truncated = False, True
        with pytest.raises(json.JSONDecodeError):
            await client.ask("GET", "/version")
        client.faults.clear()
        assert (await client.ask("GET", "/version"))[1]["gitVersion"] == "v1.33.0"

    serve(work)


def test_a_paused_server_refuses_cuts_and_comes_back() -> None:
    async def work(client: Client) -> None:
        assert client.session is not None
        url = f"{client.url}/api/v1/nodes?watch=true"
        async with client.session.get(url, headers={"Authorization": "Bearer root"}) as watch:
            await watch.content.readline()
            await client.server.listeners.pause()
            with pytest.raises(aiohttp.ClientError):
                await watch.content.readline()
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.ask("GET", "/version")
        late = socket.create_server(("127.0.0.1", 0))
        other = late.getsockname()
        await client.server.listen(late, None)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*other)
        for _ in range(2):
            await client.server.listeners.resume()
            assert (await client.ask("GET", "/version"))[0] == 200
            _, writer = await asyncio.open_connection(*other)
            writer.close()
            await writer.wait_closed()
            await client.server.listeners.pause()
        await client.server.listeners.resume()

    serve(work)


@pytest.mark.parametrize(
    ("text", "expected"), [("v1.33.0", (1, 33)), ("v1.28.15+k3s1", (1, 28)), ("v2.0.0-alpha.1", (2, 0))]
)
def test_releases(text: str, expected: tuple[int, int]) -> None:
    assert release_of(text) == expected


def test_no_release() -> None:
    with pytest.raises(ValueError, match="no version"):
        release_of("latest")
