"""A client of containerd's Container Runtime Interface: what a kubelet asks of it, as far as the tests need it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import grpc.aio

if TYPE_CHECKING:
    from types import ModuleType

PROTO: Final = Path(__file__).with_name("cri.proto")
TIMEOUT: Final = 30.0  # seconds for one call; the longest, a sandbox with its network, takes half a second
# The socket's path is no host name, and containerd refuses it as one.
_OPTIONS: Final = (("grpc.default_authority", "localhost"),)


def messages(folder: Path) -> ModuleType:
    """Generate the messages' Python into a folder, and import it."""
    from grpc_tools import protoc

    if protoc.main(["protoc", f"--proto_path={PROTO.parent}", f"--python_out={folder}", str(PROTO)]):
        raise RuntimeError(f"{PROTO} cannot be compiled")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("cri_pb2")
    finally:
        sys.path.remove(str(folder))


class Runtime:
    """The runtime service behind a Unix socket; an async context manager."""

    def __init__(self, socket: Path, pb: ModuleType) -> None:
        self.pb = pb
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method with the fields of its request; grpc.aio.AioRpcError says what it failed on."""
        request = getattr(self.pb, f"{method}Request")
        rpc = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=getattr(self.pb, f"{method}Response").FromString,
        )
        return await rpc(request(**fields), timeout=TIMEOUT, wait_for_ready=True)
