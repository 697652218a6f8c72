"""A demo cluster, and systemd-resolved's files out of Debian's package."""

from __future__ import annotations

from tests.e2e.conftest import cluster as cluster
