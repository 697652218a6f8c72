"""The demo cluster of the journeys, for these too."""

from __future__ import annotations

from tests.e2e.conftest import cluster

__all__ = ["cluster"]
