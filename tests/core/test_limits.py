from __future__ import annotations

from telehelper.core.limits import Limits


def test_defaults_fit_together() -> None:
    limits = Limits()
    assert limits.initial_credit <= limits.maximum_credit
    assert limits.dns_idle < limits.udp_idle
    assert limits.tombstone > 127  # the near kernel's SYNs must have ended
