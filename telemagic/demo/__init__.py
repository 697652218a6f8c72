"""The embedded cluster: a small Kubernetes in namespaces of the user's own, for newcomers and for tests.

Importing this is cheap; what is needed loads at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from telemagic.demo.client import Demo, DemoStatus, down, ensure, find, status
    from telemagic.demo.shell import shell

__all__ = ["Demo", "DemoStatus", "down", "ensure", "find", "shell", "status"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562; each name has its own type
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "shell":
        from telemagic.demo.shell import shell

        # The import has just put the submodule of that name here; the function takes its place.
        globals()["shell"] = shell
        return shell
    from telemagic.demo import client

    return getattr(client, name)
