"""The samples: API servers that answer as other products do, and refuse as they do."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from telehelper.discovery.reader import FakeApiReader, NotThere
from telehelper.errors import ClusterError, CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent / "samples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@functools.cache
def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return loaded


def forbidden(path: str) -> CredentialsRefused:
    return CredentialsRefused(f"API server https://10.0.0.1 forbids {path}: 403", status="403")


def answers(name: str) -> dict[str, Any]:
    """Return what is answered with success, by path."""
    return {path: answer for path, answer in _load(name).items() if isinstance(answer, dict)}


def sample(
    name: str, created: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None
) -> FakeApiReader:
    """Return the API server of a sample."""
    objects: dict[str, dict[str, Any] | ClusterError] = {}
    for path, answer in _load(name).items():
        if isinstance(answer, dict):
            objects[path] = answer
        else:
            objects[path] = forbidden(path) if answer == 403 else NotThere(f"there is no {path}")
    return FakeApiReader(objects, created)
