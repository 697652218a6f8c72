"""A pytest plugin that tells coverage which test file is running; see test_coverage.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let what the test and its fixtures execute count for its file."""
    coverage = Coverage.current()
    assert coverage is not None
    coverage.switch_context(item.path.name)
    try:
        return (yield)
    finally:
        coverage.switch_context("")
