"""A demo cluster for each module, or a place to start some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.demo.clusters import private_runtime, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from telemagic.demo.client import Demo


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory for one test."""
    with private_runtime() as path:
        yield path


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """A demo cluster for one module."""
    with private_runtime(), start(owned=True) as found:
        yield found
