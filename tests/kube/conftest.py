from __future__ import annotations

import pytest

from tests.kube.api_server import Pki, make_pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Return one certificate authority for all tests: keys take time."""
    return make_pki(tmp_path_factory.mktemp("pki"))
