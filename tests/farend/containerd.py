"""containerd with its runtime and network plugins, private to one directory and to the caller's namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.farend import image

if TYPE_CHECKING:
    from ipaddress import IPv4Network

PLUGINS: Final = Path("/usr/lib/cni")  # Debian's containernetworking-plugins
BRIDGE: Final = "cni0"
_READY_WITHIN: Final = 20.0  # seconds; takes 0.3 on two quiet cores
_ENDS_WITHIN: Final = 5.0  # seconds

# Debian's containerd takes version 2. A process without CAP_SYS_RESOURCE may not lower an OOM score, hence the
# restriction. What has a path outside `root` and `state` by default is moved there or left out; an AppArmor profile
# would stay loaded in the kernel.
_CONFIG: Final = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{folder}/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  stream_idle_timeout = "{idle:g}s"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/net.d"
"""


class Containerd:
    """A running containerd; an async context manager.

    Parameters
    ----------
    folder
        Takes all that it writes.
    pods
        Where pods get their addresses from; the bridge takes the first one.
    idle
        Seconds without data after which it hangs up a port-forward.
    """

    def __init__(self, folder: Path, pods: IPv4Network, idle: float) -> None:
        self.socket = folder / "sock"
        self._folder = folder
        self._pods = pods
        self._idle = idle
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        config = self._folder / "config.toml"
        config.write_text(
            _CONFIG.format(folder=self._folder, pause=image.PAUSE, idle=self._idle, plugins=PLUGINS)
        )
        networks = self._folder / "net.d"
        networks.mkdir()
        (networks / "10-bridge.conflist").write_text(json.dumps(self._network()))
        with (self._folder / "containerd.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "containerd", "--config", str(config), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _READY_WITHIN
        while not self.socket.exists():
            if time.monotonic() > deadline or self._process.returncode is not None:
                raise RuntimeError(f"containerd does not start:\n{self.log()}")
            await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _ENDS_WITHIN)

    def log(self) -> str:
        """Return the end of what it has said."""
        return (self._folder / "containerd.log").read_text(errors="replace")[-4000:]

    async def ctr(self, *arguments: str) -> None:
        """Run its command line tool in the namespace of Kubernetes; RuntimeError with what it says if it fails."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: {said.decode(errors='replace')}\n{self.log()}")

    def _network(self) -> dict[str, Any]:
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": False,  # needs a firewall, and nothing is outside
            "ipam": {
                "type": "host-local",
                "dataDir": str(self._folder / "ipam"),
                "ranges": [[{"subnet": str(self._pods)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
