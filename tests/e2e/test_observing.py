"""What a kernel is told of real traffic: flows chosen, latencies, events, and watch() on a loop of the user's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import UsageError

from tests.e2e.inside import Untouched, inside, wait_until

if TYPE_CHECKING:
    from telemagic.watching import Change


@inside()
def test_tables_of_real_traffic() -> None:
    import pandas as pd
    import psycopg

    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        with psycopg.connect("postgresql://shop@postgres.shop:5432/shop") as db:
            rows = db.execute("select * from orders limit 20000").fetchall()
            held = tele.flows(service="postgres", state="open")
        for _ in range(3):
            urllib.request.urlopen("http://catalog.shop:8000/products", timeout=10).read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("postgres.shop", 9), timeout=10).close()
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("postgrs.shop.svc.cluster.local", 80)
        assert len(rows) == 20_000
        assert held.closed.isna().all()
        assert held.dport.tolist() == [5432]
        check_flows(tele, pd)
        check_latencies(tele)
        check_events(tele)
    untouched.check()


def check_flows(tele: Any, pd: Any) -> None:
    assert wait_until(lambda: len(tele.flows(service="catalog.shop:8000", state="closed")) == 3)
    everything = tele.flows("5m")
    assert set(tele.flows(service="*.shop").flow) <= set(everything.flow)
    most = tele.flows(service="*.shop", top=1).iloc[0]
    assert most.service == "postgres.shop"
    assert most.bytes_down == everything.bytes_down.max()
    slowest = tele.flows(sort="connect_ms").connect_ms.dropna()
    assert slowest.is_monotonic_decreasing
    catalog = tele.flows(service="catalog.shop:8000")
    for column in ("connect_ms", "tunnel_ms", "queue_ms", "first_byte_ms", "transfer_ms"):
        assert (catalog[column] >= 0).all(), (column, catalog.T)
    assert (catalog.first_byte_ms < 10_000).all()
    assert catalog.dns_ms.notna().any()  # the lookup that led there
    assert tele.flows(datetime_of(pd, everything.opened.max())).flow.max() == everything.flow.max()
    assert everything.attrs["telemagic"]["units"]["connect_ms"] == "ms"
    with pytest.raises(UsageError, match="did you mean 'bytes_down'"):
        tele.flows(sort="bytes_dwn")


def datetime_of(pd: Any, when: Any) -> Any:
    return pd.Timestamp(when).to_pydatetime()


def check_latencies(tele: Any) -> None:
    latency = tele.latency().set_index("service")
    assert latency.index[0] == "tunnel"
    assert latency.connect_p50_ms["tunnel"] > 0
    assert latency.flows["catalog.shop:8000"] == 3
    assert 0 < latency.connect_p50_ms["catalog.shop:8000"] <= latency.connect_p99_ms["catalog.shop:8000"]
    assert latency.failed["postgres.shop:9"] >= 1, latency.T.to_string()


def check_events(tele: Any) -> None:
    events = tele.events("5m")
    assert events.kind.iloc[0] == "connected"
    assert events.number.is_monotonic_increasing
    refused = events[events.kind == "refused"].iloc[-1]
    assert refused.subject == "postgres.shop:9"
    assert refused.detail
    assert len(events[events.kind == "DNS failed"]) >= 1, events
    assert len(tele.events(0.0)) == 0


@inside()
def test_watching_real_traffic() -> None:
    """On `asyncio.run`'s loop, while the control connection lives on another; until the connection ends."""
    import telemagic

    untouched = Untouched()
    tele = telemagic.connect()
    seen: list[Change] = []

    def traffic() -> None:
        for _ in range(5):
            urllib.request.urlopen("http://catalog.shop:8000/products", timeout=10).read()
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("postgres.shop", 9), timeout=10).close()

    async def follow() -> None:
        busy = None
        async for change in tele.watch(0.1):
            seen.append(change)
            if busy is None:
                busy = asyncio.create_task(asyncio.to_thread(traffic))
            elif busy.done() and any(event.kind == "refused" for event in change.events):
                await asyncio.to_thread(tele.disconnect)

    async def main() -> None:
        async with asyncio.timeout(40):
            await follow()

    asyncio.run(main())
    first, *later = seen
    assert first.is_first
    assert first.status["state"] == "connected"
    last: dict[int, str] = {}
    for change in later:
        assert not change.is_first
        assert change.at >= first.at
        flows = change.flows.query("dport == 8000")
        last |= dict(zip(flows.flow.tolist(), flows.state.tolist(), strict=True))
    assert len(last) == 5
    assert not tele.is_open
    untouched.check()
