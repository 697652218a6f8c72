"""Tells which drills took longer than promised: on a machine that has more to do that is no failure, but no secret either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

LATE: Final = "late"  # the property of a test's report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List them at the end."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    late = [
        str(line)
        for report in reports
        for name, line in getattr(report, "user_properties", ())
        if name == LATE and report.when == "call"
    ]
    if late:
        terminalreporter.section("LATER THAN PROMISED on this machine", yellow=True, bold=True)
        for line in sorted(late):
            terminalreporter.line(line)
