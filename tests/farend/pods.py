"""Pods as a kubelet runs them: a template of Kubernetes, put into the words of the container runtime."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.farend.containerd import Containerd
    from tests.farend.cri import Runtime

Json = dict[str, Any]
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a kubelet mounts the token
READY_WITHIN: Final = 30.0  # seconds; takes one on two quiet cores
_UNITS: Final = {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


@dataclass(frozen=True, slots=True)
class Place:
    """Where pods run: directories of the node, a parent for their control groups, and what is the same for all."""

    logs: Path
    volumes: Path
    account: Path
    cgroup: str
    environment: dict[str, str]
    node: str


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that is ready."""

    namespace: str
    name: str
    address: str
    sandbox: str
    container: str
    template: Json


class Kubelet:
    """Starts and removes pods."""

    def __init__(self, containerd: Containerd, runtime: Runtime, place: Place) -> None:
        self._containerd = containerd
        self._runtime = runtime
        self._place = place

    async def start(
        self,
        namespace: str,
        app: str,
        template: Json,
        *,
        dns: Json | None = None,
        mounts: tuple[Json, ...] = (),
    ) -> RunningPod:
        """Run a pod of a template, with a name of its own, and wait until it says that it is ready.

        Parameters
        ----------
        namespace, app
            Where, and what the name begins with.
        template
            A PodTemplateSpec with one container.
        dns
            `servers` and `searches` of its resolv.conf.
        mounts
            Directories of the node that it sees besides the template's volumes, as CRI writes them.
        """
        name = f"{app}-{secrets.token_hex(4)}"
        sandbox = self._sandbox(namespace, name, template, dns or {})
        call = self._runtime.call
        sandbox_id = (await call("RunPodSandbox", config=sandbox)).pod_sandbox_id
        container = self._container(name, template, mounts)
        created = await call(
            "CreateContainer", pod_sandbox_id=sandbox_id, config=container, sandbox_config=sandbox
        )
        await call("StartContainer", container_id=created.container_id)
        await self._wait_ready(name)
        status = (await call("PodSandboxStatus", pod_sandbox_id=sandbox_id)).status
        return RunningPod(namespace, name, status.network.ip, sandbox_id, created.container_id, template)

    async def kill(self, pod: RunningPod) -> None:
        """Kill the pod's container, so that nothing in it can say goodbye."""
        await self._containerd.ctr("tasks", "kill", "--signal", "SIGKILL", pod.container)

    async def remove(self, pod: RunningPod) -> None:
        """Remove what is left of a pod; its address may be given away again."""
        await self._runtime.call("StopPodSandbox", pod_sandbox_id=pod.sandbox)
        await self._runtime.call("RemovePodSandbox", pod_sandbox_id=pod.sandbox)

    async def execute(self, pod: RunningPod, *command: str) -> str:
        """Run a command in a pod's container and return what it prints."""
        done = await self._runtime.call("ExecSync", container_id=pod.container, cmd=command, timeout=10)
        if done.exit_code:
            raise RuntimeError(f"{command} in {pod.name}: {done.stderr.decode()}")
        return str(done.stdout.decode())

    def log(self, name: str) -> str:
        """Return what a pod has said, without the runtime's times."""
        path = self._place.logs / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return re.sub(r"(?m)^\S+ std(?:out|err) \w ", "", text)

    async def _wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not re.search("(?m)^ready", self.log(name)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready:\n{self.log(name)}")
            await asyncio.sleep(0.02)

    def _sandbox(self, namespace: str, name: str, template: Json, dns: Json) -> Json:
        security = template["spec"].get("securityContext", {})
        sysctls = {each["name"]: each["value"] for each in security.get("sysctls", ())}
        return {
            "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"},
            "hostname": name,
            "log_directory": str(self._place.logs),
            "dns_config": {"options": ["ndots:5"], **dns} if dns else {},
            "labels": template["metadata"]["labels"],
            "linux": {
                "cgroup_parent": self._place.cgroup,
                "sysctls": sysctls,
                "security_context": {
                    "namespace_options": {"pid": "CONTAINER"},
                    "run_as_user": {"value": security["runAsUser"]},
                    "readonly_rootfs": True,
                    "seccomp": {"profile_type": security["seccompProfile"]["type"]},
                },
            },
        }

    def _container(self, name: str, template: Json, mounts: tuple[Json, ...]) -> Json:
        (spec,) = template["spec"]["containers"]
        pod, own = template["spec"].get("securityContext", {}), spec["securityContext"]
        environment = {
            **self._place.environment,
            # The only field that is named, status.hostIP: the address of the node.
            **{each["name"]: each.get("value", self._place.node) for each in spec.get("env", ())},
        }
        resources = spec.get("resources", {})
        return {
            "metadata": {"name": spec["name"]},
            "image": {"image": spec["image"]},
            "command": spec.get("command", []),
            "args": spec.get("args", []),
            "envs": [{"key": key, "value": value} for key, value in environment.items()],
            "mounts": [*self._mounts(name, template), *mounts],
            "log_path": f"{name}.log",
            "linux": {
                "resources": {
                    "cpu_shares": _milli(resources.get("requests", {}).get("cpu", "100m")) * 1024 // 1000,
                    "memory_limit_in_bytes": _bytes(resources.get("limits", {}).get("memory", "0")),
                },
                "security_context": {
                    "capabilities": {"drop_capabilities": own["capabilities"]["drop"]},
                    "namespace_options": {"pid": "CONTAINER"},
                    "run_as_user": {"value": pod["runAsUser"]},
                    "run_as_group": {"value": pod["runAsGroup"]},
                    "readonly_rootfs": own["readOnlyRootFilesystem"],
                    "no_new_privs": not own["allowPrivilegeEscalation"],
                    "seccomp": {"profile_type": pod["seccompProfile"]["type"]},
                },
            },
        }

    def _mounts(self, name: str, template: Json) -> list[Json]:
        (container,) = template["spec"]["containers"]
        found = []
        for mount in container.get("volumeMounts", ()):
            (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == mount["name"])
            if "emptyDir" not in volume:
                raise ValueError(f"volume {volume} is not understood")
            folder = self._place.volumes / name / mount["name"]
            folder.mkdir(parents=True)
            folder.chmod(0o777)
            found.append({"container_path": mount["mountPath"], "host_path": str(folder)})
        if template["spec"].get("automountServiceAccountToken"):
            found.append({"container_path": ACCOUNT, "host_path": str(self._place.account), "readonly": True})
        return found


def _milli(text: str) -> int:
    return int(text.removesuffix("m")) if text.endswith("m") else 1000 * int(text)


def _bytes(text: str) -> int:
    number = text.rstrip("KMGi")
    return int(number) * _UNITS[text[len(number) :]]
