"""One demo cluster for all journeys; each test connects to it from a namespace of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.demo.clusters import private_runtime, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo


@pytest.fixture(scope="package")
def cluster() -> Iterator[Demo]:
    """A demo cluster."""
    with private_runtime(), start(owned=True) as found:
        yield found
