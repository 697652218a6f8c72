"""What the dashboard's view works out by itself, without a picture: words, samples, percentiles; beside plain Python."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import sync_playwright
from telehelper.datapath.latencies import percentile

from telemagic.farewell import kind_of, row_of, service_of
from telemagic.widgets.dashboard import COLUMNS, _read
from tests.browser.lab import BROWSERS
from tests.browser.traffic import Traffic
from tests.kernel.test_farewell import WORDS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page
    from telehelper.observing import FlowRow

SCRIPTS: Final = ("format.js", "percentiles.js", "store.js", "filter.js")
MAKE: Final = "(columns) => { globalThis.store = new Store(columns, 50); }"
APPLY: Final = "([text, isSnapshot]) => store.apply(JSON.parse(text), isSnapshot)"
BINS: Final = """([filter, since, seconds]) =>
    percentiles(store.samples.matching(filter ? predicate(filter) : null), since, seconds)"""


@pytest.mark.browser
@pytest.mark.netns
def test_store(sandboxed_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = sandboxed_python("from tests.browser import test_store as t; t.journey()", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def blank_page() -> Iterator[Page]:
    """Give a page that has nothing but the view's logic."""
    executable = next(found for found in map(shutil.which, BROWSERS) if found)
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            page = browser.new_page()
            page.add_script_tag(content=_read(*SCRIPTS))
            yield page
        finally:
            browser.close()


def journey() -> None:
    """Ask the view what it makes of things."""
    with blank_page() as page:
        check_words(page)
        check_runs(page)
        for seed in range(3):
            check_percentiles(page, seed)
        check_too_many(page)


def check_words(page: Page) -> None:
    """The view and the summaries of Python call the same the same."""
    said = page.evaluate(
        "(all) => all.map(([state, reason, connect]) => kindOf(state, reason, connect >= 0))", WORDS
    )
    assert said == [word for *_, word in WORDS]
    rows = [row for seed in range(5) for row in Traffic(flows=80, failing=0.5, seed=seed).rows]
    said = page.evaluate(
        "(all) => all.map(([state, reason, connect]) => kindOf(state, reason, connect >= 0))",
        [[row.state, row.reason, row.connect] for row in rows],
    )
    assert said == [kind_of(row) for row in rows]
    assert {"refused", "reset", "timed out", "unreachable"} <= set(said)


def check_runs(page: Page) -> None:
    """Lines go over two empty bins, not over more, and not through bins that know nothing of theirs."""
    bins = [{"at": at, "seconds": 2, "first": at != 13 or None} for at in (1, 3, 9, 11, 13, 15, 23, 25)]
    found = page.evaluate("(bins) => runs(bins, 'first').map((run) => run.map((bin) => bin.at))", bins)
    assert found == [[1, 3, 9, 11, 15], [23, 25]]
    assert page.evaluate("() => runs([], 'first')") == []


def expected(rows: list[FlowRow], since: float, seconds: float) -> list[dict[str, Any]]:
    """Return the percentiles of flows in bins, worked out plainly."""
    bins: dict[int, list[FlowRow]] = defaultdict(list)
    for row in rows:
        if row.opened_at >= since and (row.connect >= 0 or row.first_byte >= 0):
            bins[int(row.opened_at // seconds)].append(row)

    def both(values: list[float]) -> dict[str, float] | None:
        known = sorted(value for value in values if value >= 0)
        return {"p50": percentile(known, 0.5), "p99": percentile(known, 0.99)} if known else None

    return [
        {
            "at": (number + 0.5) * seconds,
            "seconds": seconds,
            "flows": len(mine),
            "connect": both([row.connect for row in mine]),
            "first": both([row.first_byte for row in mine]),
        }
        for number, mine in sorted(bins.items())
    ]


def check_percentiles(page: Page, seed: int) -> None:
    """Every flow counts once: also when its row has gone, changed, or come again with a snapshot."""
    traffic = Traffic(flows=120, history=300, seed=seed)
    told: dict[int, FlowRow] = {}

    def apply(text: str, is_snapshot: bool) -> None:
        for values in json.loads(text)["flows"]:
            row = row_of(values)
            told[row.flow] = row
        page.evaluate(APPLY, [text, is_snapshot])

    page.evaluate(MAKE, {name: list(columns) for name, columns in COLUMNS.items()})
    apply(traffic.snapshot(), True)
    for step in range(80):
        apply(traffic.step(0.5), False)
        if step == 40:
            apply(traffic.snapshot(), True)  # for another view
    assert page.evaluate("() => store.flows.size") == 50
    assert len(told) > 180
    rows = list(told.values())
    since = (traffic.now - 300) // 10 * 10
    for filter_, mine in (
        ("", rows),
        ("service:postgres.shop:5432", [row for row in rows if service_of(row) == "postgres.shop:5432"]),
        ("service:cat -service:8001", [row for row in rows if "cat" in service_of(row)]),
    ):
        found = page.evaluate(BINS, [filter_, since, 10])
        assert found == expected(mine, since, 10)
        assert len(found) > 3
    assert page.evaluate(
        "() => ['service:a -service:b', 'service:a cell:3', 'x'].map((one) => predicate(one).ofServices)"
    ) == [
        True,
        False,
        False,
    ]


def check_too_many(page: Page) -> None:
    """Of more flows than are kept an even part is; percentiles stay what they are, and what is old is forgotten."""
    draw = random.Random(1)
    rows = [(number, 1000 + number / 300, draw.lognormvariate(-5, 1)) for number in range(90_000)]
    page.evaluate(
        """(rows) => {
            globalThis.samples = new Samples();
            for (const [id, opened, connect] of rows) {
                samples.take({ id, opened, target: "a:1", get: (name) => (name === "connect" ? connect : -1) });
                if (id % 500 === 0) samples.prune(opened);
            }
        }""",
        rows,
    )
    kept = page.evaluate("() => { samples.prune(1300); return samples.byFlow.size; }")
    assert 10_000 <= kept <= 20_000
    found = page.evaluate("() => percentiles(samples.matching(null), 1000, 100)")
    assert [bin_["at"] for bin_ in found] == [1050, 1150, 1250]
    for bin_, part in zip(found, (rows[:30_000], rows[30_000:60_000], rows[60_000:]), strict=True):
        connects = sorted(connect for *_, connect in part)
        below = [
            sum(value <= bin_["connect"][name] for value in connects) / len(connects)
            for name in ("p50", "p99")
        ]
        assert abs(below[0] - 0.5) < 0.03
        assert abs(below[1] - 0.99) < 0.006
    left = page.evaluate(
        "() => { samples.prune(1250 + 960); return samples.matching(null).map((one) => one.opened); }"
    )
    assert left
    assert min(left) >= 1250
    page.evaluate("() => samples.prune(9999)")
    assert page.evaluate("() => samples.byFlow.size") == 0
