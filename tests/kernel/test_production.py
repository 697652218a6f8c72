from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from telemagic import production

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(autouse=True)
def _as_before() -> Generator[None, None, None]:
    yield
    production.use(production.DEFAULT)


@pytest.mark.parametrize(
    ("context", "pattern"),
    [("prod", "*prod*"), ("gke_shop_Production-1", "*prod*"), ("kind-demo", ""), ("", "")],
)
def test_by_default_whatever_is_called_prod(context: str, pattern: str) -> None:
    assert production.pattern_of(context) == pattern


def test_patterns_of_ones_own() -> None:
    production.use(["live-*", "EU"])
    assert production.pattern_of("Live-1") == "live-*"
    assert production.pattern_of("eu") == "EU"
    assert production.pattern_of("prod") == ""
    production.use([])
    assert production.pattern_of("live-1") == ""
