"""notebooks/01-quickstart.ipynb, as `make demo` runs it: the whole chain from a cell to the cluster's services."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from telemagic.demo import seed
from tests.notebooks.executed import execute, shown

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

# The multiplier of the seed's hash: 2**32 divided by the golden ratio (Knuth, TAOCP 3 §6.4)
GOLDEN = 2654435761
REGIONS = ("north", "south", "east", "west", "overseas")


def sales_by_region() -> dict[str, Decimal]:
    """Compute what the query must return, without PostgreSQL."""
    total: Counter[str] = Counter()
    for number in range(1, seed.ORDERS + 1):
        value = number * GOLDEN % 2**32
        customer = 1 + value // 16 % seed.CUSTOMERS
        price = seed.PRODUCTS[value // 65536 % len(seed.PRODUCTS)][3]
        cents = (1 + value // 1048576 % 4) * round(price * 100)
        total[REGIONS[customer * GOLDEN % 2**32 // 8191 % 5]] += cents
    return {region: Decimal(cents) / 100 for region, cents in total.items()}


class _Table(HTMLParser):
    """Collects the cells of a DataFrame's HTML, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._text is not None:
            self.rows[-1].append("".join(self._text).strip())
            self._text = None


def table_of(cell: Any) -> list[dict[str, str]]:
    """Return a cell's DataFrame as one dictionary per row."""
    html = next(found.data["text/html"] for found in cell.outputs if "text/html" in found.get("data", {}))
    parser = _Table()
    parser.feed(html)
    header, *rows = parser.rows
    return [dict(zip(header, row, strict=True)) for row in rows]


def flow_to(flows: list[dict[str, str]], port: str) -> dict[str, str]:
    (found,) = [row for row in flows if row["dport"] == port]
    return found


@pytest.mark.netns
@pytest.mark.slow
def test_the_quickstart_shows_what_it_promises(
    tmp_path: Path, sandboxed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    cells, printed = execute("01-quickstart.ipynb", tmp_path / "executed.ipynb", sandboxed)

    sales = {row["region"]: Decimal(row["sum"]) for row in table_of(cells["query"])}
    assert sales == sales_by_region()
    assert [row["name"] for row in table_of(cells["catalog"])] == [product[1] for product in seed.PRODUCTS]

    flows = table_of(cells["flows"])
    postgres = flow_to(flows, "5432")
    assert "postgres" in postgres["service"]
    assert int(postgres["bytes_up"]) > len("select region, sum(amount) from orders group by 1")
    assert int(postgres["bytes_down"]) > sum(
        len(region) + len(str(amount)) for region, amount in sales.items()
    )
    assert int(flow_to(flows, "8000")["bytes_down"]) > sum(len(product[1]) for product in seed.PRODUCTS)

    # And people see all that in the terminal.
    for region, amount in sales.items():
        assert any(
            region in line and f"{amount:f}".rstrip("0").rstrip(".") in line for line in printed.splitlines()
        )
    assert any("5432" in line and postgres["bytes_down"] in line for line in printed.splitlines())
    # Afterwards no card goes on saying that we are connected.
    left = shown(cells["disconnect"])
    assert left.startswith("Disconnected from demo: ")
    assert "postgres.shop:5432  1 flow" in left
