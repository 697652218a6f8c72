"""A real cluster that is changed and broken: deployments run, pods are replaced, faults come and go."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from telehelper.errors import HelperLost, UsageError

from telemagic.demo import client
from tests.demo.api_objects import deployment, service
from tests.demo.clusters import node_pid, open_files, private_runtime, run_beside, settled, start, wait_until
from tests.demo.test_cluster_api import get, kubectl, trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns

SOON = 20.0  # seconds; what takes about one on a quiet machine


def change(demo: Demo, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Ask the API server for a change, as the first kubeconfig's user."""
    config = yaml.safe_load(demo.kubeconfig.read_text())
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    own = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}

    async def run() -> tuple[int, Any]:
        before = open_files()
        async with (
            aiohttp.ClientSession(headers=own) as session,
            session.request(method, server + path, json=body, ssl=trust(demo.kubeconfig)) as reply,
        ):
            text = await reply.text()
        await settled(before)
        return reply.status, json.loads(text)

    return asyncio.run(run())


def pods(demo: Demo, app: str) -> dict[str, dict[str, Any]]:
    """The pods of an app that are there to stay, by name."""
    _, body = get(demo.kubeconfig, f"/api/v1/pods?labelSelector=app%3D{app}")
    return {
        item["metadata"]["name"]: item
        for item in body["items"]
        if "deletionTimestamp" not in item["metadata"]
    }


def is_ready(pod: dict[str, Any]) -> bool:
    return any(status["ready"] for status in pod["status"].get("containerStatuses", ()))


def wait_for_pods(
    demo: Demo, app: str, count: int, without: set[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Wait until an app has so many ready pods, none of them one of those named."""

    def done() -> bool:
        found = pods(demo, app)
        return (
            len(found) == count
            and all(map(is_ready, found.values()))
            and not found.keys() & (without or set())
        )

    assert wait_until(done, SOON), pods(demo, app)
    return pods(demo, app)


@contextmanager
def deployed(demo: Demo, body: dict[str, Any]) -> Iterator[None]:
    """Have a Deployment in the shop for a while."""
    path = "/apis/apps/v1/namespaces/shop/deployments"
    code, answer = change(demo, "POST", path, body)
    assert code == 201, answer
    try:
        yield
    finally:
        change(demo, "DELETE", f"{path}/{body['metadata']['name']}")
        assert wait_until(lambda: not all_pods(demo, body["metadata"]["name"]), SOON)


def all_pods(demo: Demo, app: str) -> list[dict[str, Any]]:
    """The pods of an app, those that end included."""
    _, body = get(demo.kubeconfig, f"/api/v1/pods?labelSelector=app%3D{app}")
    found: list[dict[str, Any]] = body["items"]
    return found


def on_node(script: str) -> Any:
    return json.loads(run_beside(node_pid(Path(os.environ["TELEMAGIC_RUNTIME_DIR"])), script))


# --- deployments -------------------------------------------------------------------------------------------------


def test_a_managers_deployment_runs_as_many_managers_as_it_says(demo: Demo) -> None:
    with deployed(
        demo, deployment("extra", replicas=2, args=["--grpc-port", "8081", "--carrier-port", "8082"])
    ):
        found = wait_for_pods(demo, "extra", 2)
        addresses = {pod["status"]["podIP"] for pod in found.values()}
        assert len(addresses) == 2
        assert not addresses & {
            pod["status"]["podIP"] for app in ("catalog", "postgres") for pod in pods(demo, app).values()
        }
        for name in found:
            code, log = get(demo.kubeconfig, f"/api/v1/namespaces/shop/pods/{name}/log")
            assert (code, "ready grpc=8081 carrier=8082" in log) == (200, True)
        _, status = get(demo.kubeconfig, "/apis/apps/v1/namespaces/shop/deployments/extra/status")
        assert status["status"]["availableReplicas"] == 2


@pytest.mark.parametrize(("automount", "complains"), [(True, False), (False, True)])
def test_a_pod_has_its_service_accounts_token_only_if_it_is_to(
    demo: Demo, automount: bool, complains: bool
) -> None:
    body = deployment("mounted")
    body["spec"]["template"]["spec"]["automountServiceAccountToken"] = automount
    with deployed(demo, body):
        (name,) = wait_for_pods(demo, "mounted", 1)
        _, log = get(demo.kubeconfig, f"/api/v1/namespaces/shop/pods/{name}/log")
        assert ("no access to the API server" in log) is complains, log


@pytest.mark.parametrize("image", ["busybox:1", "registry.invalid/telemagic/manager:1"])
def test_an_image_that_cannot_be_had_keeps_its_pod_waiting(demo: Demo, image: str) -> None:
    command = ["python", "-m", "telehelper.manager"] if "manager" in image else ["sleep", "9"]
    with deployed(demo, deployment("pending", image=image, command=command)):
        assert wait_until(lambda: bool(waiting(demo)), SOON)
        ((phase, reason, message),) = waiting(demo)
        assert (phase, reason) == ("Pending", "ErrImagePull")
        assert image in message
        assert "ErrImagePull" in kubectl(demo, "get", "pods", "-l", "app=pending")


def waiting(demo: Demo) -> list[tuple[str, str, str]]:
    return [
        (pod["status"]["phase"], state["reason"], state["message"])
        for pod in pods(demo, "pending").values()
        for status in pod["status"].get("containerStatuses", ())
        if (state := status["state"].get("waiting"))
    ]


def a_deleted_pod_is_replaced_and_everything_follows(demo: Demo) -> None:
    ((name, before),) = pods(demo, "catalog").items()
    version = get(demo.kubeconfig, "/api/v1/namespaces/shop/pods")[1]["metadata"]["resourceVersion"]
    code, answer = change(demo, "DELETE", f"/api/v1/namespaces/shop/pods/{name}")
    assert (code, "deletionTimestamp" in answer["metadata"]) == (200, True)
    ((_, after),) = wait_for_pods(demo, "catalog", 1, {name}).items()
    old, new = before["status"]["podIP"], after["status"]["podIP"]
    assert new != old
    _, sliced = get(demo.kubeconfig, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/catalog-x7k2p")
    assert [entry["addresses"] for entry in sliced["endpoints"]] == [[new]]
    assert ("DELETED", name) in pod_events(demo, version)
    cluster = next(one for one in client.status() if one.name == demo.name)
    services = cluster.service_cidr.partition(",")[0].rpartition(".")[0]
    products, names = on_node(f"""
import json, urllib.request, dns.message, dns.query
products = json.load(urllib.request.urlopen("http://{services}.21:8000/products", timeout=10))
query = dns.message.make_query("catalog-pods.shop.svc.cluster.local", "A")
names = [rdata.to_text() for rrset in dns.query.udp(query, "{services}.10", timeout=10).answer for rdata in rrset]
print(json.dumps([len(products), names]))
""")
    assert (products, names) == (12, [new])


def pod_events(demo: Demo, version: str) -> list[tuple[str, str]]:
    """What has happened to the shop's pods since a version; kubectl would not tell, it hides DELETED."""
    script = f"""
import sys
from kubernetes import client, config, watch
config.load_kube_config({str(demo.kubeconfig)!r})
watching = watch.Watch().stream(client.CoreV1Api().list_namespaced_pod, "shop", resource_version="{version}", timeout_seconds=1)
for event in watching:
    print(event["type"], event["object"].metadata.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(kind, name) for kind, name in (line.split() for line in done.stdout.splitlines())]


def test_a_service_of_ones_own_leads_to_pods_that_are_there(demo: Demo) -> None:
    path = "/api/v1/namespaces/shop/services"
    body = service("mine", selector={"app": "catalog"}, ports=[{"port": 8000}])
    code, made = change(demo, "POST", path, body)
    assert code == 201, made
    address = made["spec"]["clusterIP"]

    def health() -> Any:
        return on_node(f"""
import json, urllib.request
try:
    print(json.dumps(json.load(urllib.request.urlopen("http://{address}:8000/health", timeout=5))))
except OSError as error:
    print(json.dumps(str(error)))
""")

    assert wait_until(lambda: health() == {"status": "ok"}, SOON), health()
    assert change(demo, "DELETE", f"{path}/mine")[0] == 200
    assert wait_until(lambda: health() != {"status": "ok"}, SOON)


def test_kubectl_applies_and_deletes_what_a_file_says(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", **deployment("web", "lab")},
        {"apiVersion": "v1", "kind": "Service", **service("web", "lab")},
    ]
    path.write_text(yaml.safe_dump_all(items))
    apply = ("apply", "--validate=false", "-f", str(path))
    assert kubectl(demo, *apply).split("\n")[:3] == [
        "namespace/lab created",
        "deployment.apps/web created",
        "service/web created",
    ]
    assert kubectl(demo, *apply).count(" unchanged") == 3
    assert "serverside-applied" in kubectl(demo, *apply, "--server-side")
    assert "successfully rolled out" in kubectl(
        demo, "rollout", "status", "-n", "lab", "deploy/web", f"--timeout={SOON:.0f}s"
    )
    kubectl(demo, "delete", "namespace", "lab", f"--timeout={SOON:.0f}s")
    assert get(demo.kubeconfig, "/api/v1/namespaces/lab")[0] == 404
    assert all_pods(demo, "web") == []


def test_the_stock_client_writes(demo: Demo) -> None:
    script = f"""
from kubernetes import client, config
config.load_kube_config({str(demo.kubeconfig)!r})
api = client.CoreV1Api()
body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="notes"), data={{"a": "1"}})
print(api.create_namespaced_config_map("shop", body).metadata.name)
print(api.patch_namespaced_config_map("notes", "shop", {{"data": {{"b": "2"}}}}).data)
api.delete_namespaced_config_map("notes", "shop")
print([item.metadata.name for item in api.list_namespaced_config_map("shop").items])
ports = [client.V1ServicePort(port=80)]
probe = client.V1Service(metadata=client.V1ObjectMeta(name="probe"), spec=client.V1ServiceSpec(ports=ports))
print(api.create_namespaced_service("shop", probe, dry_run="All").spec.cluster_ip)
try:
    api.read_namespaced_service("probe", "shop")
except client.ApiException as error:
    print(error.status)
review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
    resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")))
print(client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    base = next(one for one in client.status() if one.name == demo.name).service_cidr.partition("/")[0]
    assert done.stdout.splitlines() == ["notes", "{'a': '1', 'b': '2'}", "[]", base, "404", "True"]


# --- rights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces/shop/pods", 200),
        ("/api/v1/namespaces/shop/services", 200),
        ("/api/v1/namespaces/shop/endpoints", 200),
        ("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", 200),
        ("/api/v1/namespaces/telemagic/pods", 200),
        ("/api/v1/namespaces/shop/configmaps", 403),
        ("/api/v1/namespaces/telemagic/services", 403),
        ("/api/v1/namespaces/kube-system/pods", 403),
        ("/api/v1/namespaces", 403),
        ("/api/v1/nodes", 403),
        ("/api/v1/pods", 403),
        ("/apis/networking.k8s.io/v1/servicecidrs", 403),
    ],
)
def test_what_a_user_of_one_namespace_may_see(demo: Demo, path: str, expected: int) -> None:
    assert get(demo.namespaced_kubeconfig, path)[0] == expected


def test_the_users_may_forward_where_they_should(demo: Demo) -> None:
    (name,) = pods(demo, "catalog")
    path = f"/api/v1/namespaces/shop/pods/{name}/portforward?ports=8000"
    # 400: only the WebSocket is missing.
    assert get(demo.namespaced_kubeconfig, path)[0] == get(demo.kubeconfig, path)[0] == 400
    assert get(demo.viewer_kubeconfig, path)[0] == 403
    for plural in ("nodes", "pods", "secrets", "namespaces"):
        assert get(demo.viewer_kubeconfig, f"/api/v1/{plural}")[0] == 200


# --- faults ------------------------------------------------------------------------------------------------------


def is_reachable(demo: Demo) -> bool:
    try:
        return get(demo.kubeconfig, "/version")[0] == 200
    except aiohttp.ClientConnectorError:
        return False


def test_a_stopped_api_server_comes_back_by_itself_or_when_told(demo: Demo) -> None:
    demo.fault("api-stop", seconds=0.5)
    assert not is_reachable(demo)
    assert wait_until(lambda: is_reachable(demo), SOON)
    demo.fault("api-stop")
    assert not is_reachable(demo)
    demo.fault("clear")
    assert is_reachable(demo)


def test_expired_tokens_are_renewed_in_all_files(demo: Demo) -> None:
    files = (demo.kubeconfig, demo.viewer_kubeconfig, demo.namespaced_kubeconfig)
    before = demo.token_file.read_text()
    try:
        demo.fault("token-expired")
        assert [get(file, "/api")[0] for file in files] == [401, 401, 401]
        assert demo.renew_token() == demo.token_file.read_text() != before
        assert [get(file, "/api")[0] for file in files] == [200, 200, 200]
        assert get(demo.kubeconfig, "/api", token=before)[0] == 401
        assert demo.token_file.stat().st_mode & 0o777 == 0o600
    finally:
        demo.fault("clear")
    assert get(demo.kubeconfig, "/api", token=before)[0] == 200


def test_what_everybody_is_forbidden_comes_back(demo: Demo) -> None:
    demo.fault("forbid", verb="list", resource="nodes", seconds=0.5)
    assert get(demo.kubeconfig, "/api/v1/nodes")[0] == 403
    assert get(demo.kubeconfig, "/api/v1/nodes/demo-node")[0] == 200
    assert wait_until(lambda: get(demo.kubeconfig, "/api/v1/nodes")[0] == 200, SOON)


def a_killed_manager_is_started_again_in_its_pod(demo: Demo) -> None:
    ((name, before),) = wait_for_pods(demo, "traffic-manager", 1).items()
    demo.fault("manager-killed")
    restarts = before["status"]["containerStatuses"][0]["restartCount"]

    def is_back() -> bool:
        pod = pods(demo, "traffic-manager")[name]
        return is_ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == restarts + 1

    assert wait_until(is_back, SOON)
    assert pods(demo, "traffic-manager")[name]["status"]["podIP"] == before["status"]["podIP"]


def a_deleted_database_is_there_again_with_its_data(demo: Demo) -> None:
    before = pods(demo, "postgres")
    demo.fault("pod-deleted", app="postgres")
    wait_for_pods(demo, "postgres", 1, set(before))
    cluster = next(one for one in client.status() if one.name == demo.name)
    host = cluster.service_cidr.partition(",")[0].rpartition(".")[0] + ".20"
    assert (
        on_node(f"""
import json, psycopg
with psycopg.connect(host="{host}", user="shop", dbname="shop", connect_timeout=10) as connection:
    print(json.dumps(connection.execute("select count(*) from orders").fetchone()[0]))
""")
        == 100_000
    )


@pytest.mark.parametrize(
    ("name", "options"), [("nonsense", {}), ("forbid", {"verb": "get"}), ("pod-deleted", {"app": "nobody"})]
)
def test_a_fault_that_cannot_be_is_explained(demo: Demo, name: str, options: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        demo.fault(name, **options)
    assert caught.value.message
    assert is_reachable(demo)


def telemagic(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "telemagic", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_breaks_and_mends(demo: Demo) -> None:
    done = telemagic("break", "api-html")
    assert (done.stdout, done.returncode) == ("demo cluster demo: api-html\n", 0), done.stderr
    assert "<html>" in get(demo.kubeconfig, "/version")[1]
    done = telemagic("break", "clear")
    assert (done.stdout, done.returncode) == ("demo cluster demo works again\n", 0), done.stderr
    assert is_reachable(demo)
    for words in (
        ("break",),
        ("break", "a", "b"),
        ("break", "nonsense"),
        ("break", "clear", "--name", "none"),
    ):
        done = telemagic(*words)
        assert (done.stdout, done.returncode, len(done.stderr.splitlines())) == (
            "",
            2 if words[-1] != "none" else 1,
            2,
        )


def test_a_demo_that_is_not_up_is_not_found(runtime: Path) -> None:
    with pytest.raises(HelperLost, match="not up"):
        client.find("none")
    with pytest.raises(UsageError, match="like 'moon'") as caught:
        client.ensure(like="moon", owned=True)
    assert "kubeadm-old" in caught.value.hint
    assert list(runtime.iterdir()) == []


def test_pods_that_end_are_replaced() -> None:
    with private_runtime(), start(owned=True) as demo:
        a_deleted_pod_is_replaced_and_everything_follows(demo)
        a_killed_manager_is_started_again_in_its_pod(demo)
        a_deleted_database_is_there_again_with_its_data(demo)


def test_a_cluster_of_another_kind_without_a_manager_gets_one() -> None:
    with private_runtime(), start(owned=True, like="kubeadm-old", no_manager=True) as demo:
        assert get(demo.kubeconfig, "/version")[1]["gitVersion"].startswith("v1.28.")
        assert get(demo.kubeconfig, "/apis/networking.k8s.io/v1/servicecidrs")[0] == 404
        assert get(demo.kubeconfig, "/api/v1/namespaces/kube-system/configmaps/kubeadm-config")[0] == 200
        assert get(demo.kubeconfig, "/api/v1/namespaces/telemagic")[0] == 404
        assert client.status()[0].ready == "3/3"
        assert change(demo, "POST", "/api/v1/namespaces", {"metadata": {"name": "telemagic"}})[0] == 201
        path = "/apis/apps/v1/namespaces/telemagic/deployments"
        began = time.monotonic()
        assert change(demo, "POST", path, deployment("telemagic-manager"))[0] == 201
        wait_for_pods(demo, "telemagic-manager", 1)
        assert time.monotonic() - began < SOON
        assert client.status()[0].ready == "4/4"
