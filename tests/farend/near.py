"""The near side: run a test's body in a sandbox from which the node's API server is reached, and nothing else.

``@near_side`` makes of a function a test that starts a fresh Python in the sandbox, which imports the module and calls
the function there with a :class:`FarEnd`. The sandbox has a network of its own without a default route.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import sandbox
from tests.farend import control

if TYPE_CHECKING:
    from collections.abc import Callable


class FarEnd:
    """The node, as a test's body sees it: its kubeconfigs, and what can be done to it.

    Attributes
    ----------
    kubeconfig
        Of somebody who has the rights that the manifests' Role for users gives, and no others.
    admin_kubeconfig
        Of somebody who may do everything.
    """

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.admin_kubeconfig = folder / "admin.kubeconfig"
        self._folder = folder
        with socket.create_server(("127.0.0.1", control.API_PORT)) as listener:
            self.ask("attach", listener.fileno())

    def ask(self, op: str, *fds: int, **fields: Any) -> dict[str, Any]:
        """See :mod:`tests.farend.control`."""
        return control.ask(self._folder, op, *fds, **fields)


def near_side(timeout: float) -> Callable[[Callable[[FarEnd], None]], Callable[[Path], None]]:
    """Make a test of a function that runs in a sandbox, within so many seconds."""

    def decorate(body: Callable[[FarEnd], None]) -> Callable[[Path], None]:
        def test(node: Path) -> None:
            code = f"from {body.__module__} import {body.__name__} as test; test.inside({str(node)!r})"
            command = [sys.executable, "-W", "error::ResourceWarning", "-c", code]
            try:
                done = sandbox.run(command, timeout=timeout)
            except subprocess.TimeoutExpired as late:
                pytest.fail(f"not done within {timeout:g} s\n{late.stdout}\n{late.stderr}", pytrace=False)
            sys.stdout.write(done.stdout)  # figures, for whoever asks pytest for them
            assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
            assert "ending leftover process" not in done.stderr, done.stderr

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.inside = lambda folder: body(FarEnd(Path(folder)))  # type: ignore[attr-defined]
        return pytest.mark.netns(pytest.mark.slow(pytest.mark.timeout(timeout + 90)(test)))

    return decorate
