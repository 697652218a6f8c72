"""Fixtures that the data plane's tests share."""

from __future__ import annotations

import pytest
from telehelper.datapath import backoff

from tests.kube.conftest import pki as pki  # a fixture: the same here as there


@pytest.fixture
def fast_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, or nearly."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.05)
