"""The demo's API server, as the stock Python client, kubectl, and bare requests see it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from tests.demo.clusters import open_files, settled

if TYPE_CHECKING:
    from pathlib import Path

    from telemagic.demo.client import Demo

pytestmark = pytest.mark.netns


def stock(demo: Demo, script: str) -> str:
    """Run a script with the official client in a process of its own: it leaves sockets for the collector."""
    head = f"from kubernetes import client, config, stream, watch\nconfig.load_kube_config({str(demo.kubeconfig)!r})\n"
    done = subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kubectl(demo: Demo, *arguments: str) -> str:
    found = shutil.which("kubectl")
    if found is None:
        assert os.environ.get("CI") != "true", "kubectl is not installed"
        pytest.skip("KUBECTL IS NOT INSTALLED: apt-get install kubernetes-client")
    command = [found, "--kubeconfig", str(demo.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(kubeconfig: Path, path: str, *, token: str | None = None, **headers: str) -> tuple[int, Any]:
    body = yaml.safe_load(kubeconfig.read_text())
    server = body["clusters"][0]["cluster"]["server"]
    bearer = body["users"][0]["user"]["token"] if token is None else token

    async def run() -> tuple[int, Any]:
        before = open_files()
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer}", **headers}) as session,
            session.get(server + path, ssl=trust(kubeconfig)) as reply,
        ):
            text = await reply.text()
        await settled(before)
        return reply.status, json.loads(text) if text.startswith("{") else text

    return asyncio.run(run())


def trust(kubeconfig: Path) -> ssl.SSLContext:
    import base64

    data = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["certificate-authority-data"]
    return ssl.create_default_context(cadata=base64.b64decode(data).decode())


def test_the_stock_client_lists_pods_and_services(demo: Demo) -> None:
    out = stock(
        demo,
        """
api = client.CoreV1Api()
for pod in api.list_pod_for_all_namespaces().items:
    print(pod.metadata.namespace, pod.metadata.labels["app"], pod.status.phase, pod.status.container_statuses[0].ready)
for service in api.list_namespaced_service("shop").items:
    print(service.metadata.name, service.spec.ports[0].port)
chosen = api.list_namespaced_pod("telemagic", label_selector="app.kubernetes.io/name=telemagic-manager").items
print([(port.name, port.container_port) for port in chosen[0].spec.containers[0].ports])
print(client.VersionApi().get_code().git_version)
""",
    )
    for line in (
        "kube-system coredns Running True",
        "shop catalog Running True",
        "shop postgres Running True",
        "telemagic traffic-manager Running True",
        "postgres 5432",
        "blackhole 80",
        "[('grpc', 8081), ('carrier', 8082), ('carrier-tls', 8083), ('carrier-tcp', 8084)]",
    ):
        assert line in out.splitlines()


def test_the_stock_client_watches(demo: Demo) -> None:
    out = stock(
        demo,
        """
for event in watch.Watch().stream(client.CoreV1Api().list_namespaced_pod, "shop", timeout_seconds=1):
    print(event["type"], event["object"].metadata.labels["app"])
""",
    )
    assert sorted(out.split("\n")) == ["", "ADDED catalog", "ADDED postgres"]


def test_the_stock_client_forwards_a_port(demo: Demo) -> None:
    out = stock(
        demo,
        """
api = client.CoreV1Api()
pod = api.list_namespaced_pod("shop", label_selector="app=catalog").items[0].metadata.name
forward = stream.portforward(api.connect_get_namespaced_pod_portforward, pod, "shop", ports="8000")
http = forward.socket(8000)
http.setblocking(True)
http.sendall(b"GET /products/3 HTTP/1.1\\r\\nHost: catalog\\r\\nConnection: close\\r\\n\\r\\n")
reply = b""
while data := http.recv(65536):
    reply += data
print(reply.decode(), forward.error(8000))
""",
    )
    assert "HTTP/1.1 200 OK" in out
    assert "cast-iron pan" in out
    assert out.rstrip().endswith("None")


def test_kubectl_gets_what_runs(demo: Demo) -> None:
    out = kubectl(demo, "get", "pods,svc", "-A")
    rows = [line.split() for line in out.splitlines() if line]
    assert ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"] in rows
    running = [row for row in rows if row[2:4] == ["1/1", "Running"]]
    assert sorted(row[0] for row in running) == ["kube-system", "shop", "shop", "telemagic"]
    assert any(row[:3] == ["shop", "service/postgres", "ClusterIP"] and "5432/TCP" in row for row in rows)


def test_kubectl_shows_the_node(demo: Demo) -> None:
    assert "Ready" in kubectl(demo, "get", "nodes", "-o", "wide").splitlines()[1]


def test_kubectl_describes_a_pod(demo: Demo) -> None:
    out = kubectl(demo, "describe", "pod", "-l", "app=postgres")
    assert "Port:           5432/TCP" in out
    assert "Restart Count:  0" in out


def test_kubectl_reads_logs(demo: Demo) -> None:
    assert kubectl(demo, "logs", "deploy/catalog", "--tail=1").startswith("ready http=8000")


def test_kubectl_uses_the_kubeconfigs_namespace(demo: Demo) -> None:
    assert "postgres-" in kubectl(demo, "get", "pods", "-o", "name")


def test_a_wrong_token_is_refused(demo: Demo) -> None:
    code, body = get(demo.kubeconfig, "/api/v1/nodes", token="wrong")
    assert (code, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")


def test_a_viewer_may_look_but_not_forward(demo: Demo) -> None:
    code, pods = get(demo.viewer_kubeconfig, "/api/v1/namespaces/shop/pods")
    assert code == 200
    name = pods["items"][0]["metadata"]["name"]
    code, body = get(demo.viewer_kubeconfig, f"/api/v1/namespaces/shop/pods/{name}/portforward?ports=80")
    assert (code, body["reason"]) == (403, "Forbidden")
    assert "pods/portforward" in body["message"]


@pytest.mark.parametrize(
    "path", ["/api/v1/nonsense", "/apis/nonsense/v1", "/api/v1/namespaces/shop/pods/absent", "/x"]
)
def test_what_is_absent_is_not_found(demo: Demo, path: str) -> None:
    code, body = get(demo.kubeconfig, path)
    assert (code, body["reason"]) == (404, "NotFound")


def test_selectors_select(demo: Demo) -> None:
    _, body = get(
        demo.kubeconfig, "/api/v1/pods?labelSelector=app%3Dcoredns&fieldSelector=status.phase%3DRunning"
    )
    assert [item["metadata"]["namespace"] for item in body["items"]] == ["kube-system"]
    code, body = get(demo.kubeconfig, "/api/v1/pods?fieldSelector=nonsense")
    assert (code, body["reason"]) == (400, "BadRequest")


def test_cidrs_are_where_clusters_have_them(demo: Demo) -> None:
    _, nodes = get(demo.kubeconfig, "/api/v1/nodes")
    _, services = get(demo.kubeconfig, "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
    assert nodes["items"][0]["spec"]["podCIDRs"][0].startswith(("198.18.", "198.19."))
    assert services["spec"]["cidrs"][0].endswith("/22")


def test_the_version_needs_no_token(demo: Demo) -> None:
    code, body = get(demo.kubeconfig, "/version", token="")
    assert (code, body["major"]) == (200, "1")


def test_the_kubeconfig_is_private(demo: Demo) -> None:
    assert demo.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert demo.kubeconfig.parent.stat().st_mode & 0o777 == 0o700
