"""The shipped YAML: complete, minimal, as strict as Pod Security "restricted", and what kustomize makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from telehelper import manager
from telehelper.admin.manifests import NAME, NAMESPACE, collection, manifests, path, title, to_yaml
from telehelper.datapath.cluster import LABEL
from telehelper.errors import UsageError
from telehelper.manager.config import CARRIER_PORT, GRPC_PORT, parse_config

DIRECTORY = Path(str(manager.__file__)).parent / "manifests"
KINDS = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "Deployment"]


def of_kind(kind: str, **options: str) -> dict[str, Any]:
    (found,) = [each for each in manifests(**options) if each["kind"] == kind]
    return found


def pod_spec(**options: str) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("Deployment", **options)["spec"]["template"]["spec"]
    return spec


def test_the_order_is_such_that_each_finds_what_it_needs() -> None:
    assert [each["kind"] for each in manifests()] == KINDS


def test_all_of_it_carries_our_label_for_who_cleans_up() -> None:
    for each in manifests():
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "telemagic", title(each)


def test_namespace_and_image_are_put_everywhere() -> None:
    text = to_yaml(manifests("team-a", "registry.example.com/x/manager:7"))
    found = list(yaml.safe_load_all(text))
    assert of_kind("Namespace", namespace="team-a")["metadata"]["name"] == "team-a"
    assert {each["metadata"].get("namespace", "team-a") for each in found} == {"team-a"}
    assert found[3]["subjects"][0]["namespace"] == "team-a"
    assert "namespace: telemagic" not in text
    assert pod_spec(namespace="team-a", image="r/m:7")["containers"][0]["image"] == "r/m:7"


def test_a_second_manager_gets_a_binding_of_its_own() -> None:
    first, second = of_kind("ClusterRoleBinding"), of_kind("ClusterRoleBinding", namespace="team-a")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["roleRef"] == second["roleRef"]


@pytest.mark.parametrize("namespace", ["", "A", "a.b", "-a", "a" * 64, "a/b", "a\nb"])
def test_a_namespace_that_cannot_be_one_is_refused(namespace: str) -> None:
    with pytest.raises(UsageError, match="namespace"):
        manifests(namespace)


@pytest.mark.parametrize("image", ["", "-x", "a b", "a\nb", "é", "a" * 256])
def test_an_image_that_cannot_be_one_is_refused(image: str) -> None:
    with pytest.raises(UsageError, match="image"):
        manifests(image=image)


def test_paths_and_titles() -> None:
    assert path(of_kind("Namespace")) == "/api/v1/namespaces/telemagic"
    assert path(of_kind("Deployment")) == f"/apis/apps/v1/namespaces/telemagic/deployments/{NAME}"
    assert (
        path(of_kind("ClusterRole")) == "/apis/rbac.authorization.k8s.io/v1/clusterroles/telemagic-discovery"
    )
    assert collection("Role", "rbac.authorization.k8s.io/v1", "x").endswith("/namespaces/x/roles")
    assert title(of_kind("Deployment")) == f"deployment {NAMESPACE}/{NAME}"
    assert title(of_kind("Namespace")) == "namespace telemagic"


def test_the_pod_is_restricted() -> None:
    """Each rule of Pod Security Standards, profile "restricted" (and so "baseline")."""
    spec = pod_spec()
    for forbidden in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert not spec.get(forbidden)
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} <= {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
    }  # fmt: skip
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not context.get("privileged")
        assert not any("hostPort" in port for port in container["ports"])
        assert container["resources"]["limits"].keys() == {"memory"}, "a CPU limit costs latency"


def test_the_manager_starts_as_the_data_plane_expects_it() -> None:
    (container,) = pod_spec()["containers"]
    config = parse_config(container["args"], {})
    assert (config.grpc_port, config.carrier_port) == (GRPC_PORT, CARRIER_PORT)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "carrier": CARRIER_PORT}
    key, _, value = LABEL.partition("=")
    template = of_kind("Deployment")["spec"]["template"]
    assert template["metadata"]["labels"][key] == value
    assert (
        of_kind("Deployment")["spec"]["selector"]["matchLabels"].items()
        <= template["metadata"]["labels"].items()
    )
    assert spec_grace() > parse_config([], {}).grace


def spec_grace() -> float:
    return float(pod_spec()["terminationGracePeriodSeconds"])


def test_the_probe_is_one_that_a_listener_on_loopback_passes() -> None:
    (container,) = pod_spec()["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        script = container[probe]["exec"]["command"][-1]
        assert f"('127.0.0.1', {GRPC_PORT})" in script
        compile(script, "probe", "exec")


def test_the_manager_may_only_read_and_no_secrets() -> None:
    for rule in of_kind("ClusterRole")["rules"]:
        assert set(rule["verbs"]) <= {"get", "list", "watch"}
        assert not set(rule["resources"]) & {"secrets", "*"}
        assert "configmaps" not in rule["resources"] or rule["resourceNames"]


def test_a_user_gets_exactly_what_connecting_takes() -> None:
    granted = {
        (group, resource, verb)
        for rule in of_kind("Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("", "pods", "get"),
        ("", "pods", "list"),
        ("", "pods/portforward", "get"),
        ("", "pods/portforward", "create"),
    }


def test_every_file_is_in_the_kustomization() -> None:
    listed = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(each.name for each in DIRECTORY.iterdir())


def test_kustomize_makes_the_same_of_them() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        assert os.environ.get("CI") != "true", "kubectl is needed"
        pytest.skip("NO KUBECTL HERE: sudo apt-get install kubernetes-client")
    made = subprocess.run(
        [kubectl, "kustomize", str(DIRECTORY)], capture_output=True, text=True, check=True
    ).stdout
    theirs = {title(each): each for each in yaml.safe_load_all(made)}
    ours = {title(each): each for each in manifests(image="telemagic/manager:dev")}
    assert json.dumps(theirs, sort_keys=True) == json.dumps(ours, sort_keys=True)
