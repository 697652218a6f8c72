"""Made-up traffic for the dashboard: what a data plane would tell of a busy notebook. Used beside the real one only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from telehelper.messages import CidrRow, RouteRow
from telehelper.observing import EventRow, FlowRow, FlowTable, LatencyRow

from telemagic import control_fake, session
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.connection import Connection

ROOT: Final = Path(__file__).parent.parent.parent
FAMILIAR: Final = (
    ("postgres.shop", 5432, "psycopg", 0.003, 0.004),
    ("catalog.shop", 8000, "python3", 0.002, 0.035),
    ("feature-store.ml", 6566, "python3", 0.004, 0.012),
    ("mlflow.ml", 5000, "python3", 0.006, 0.180),
    ("redis.cache", 6379, "python3", 0.001, 0.001),
    ("trino.warehouse", 8080, "python3", 0.008, 1.400),
)
CIDRS: Final = (
    CidrRow("10.96.0.0/16", "services", "ServiceCIDR kubernetes", "certain"),
    CidrRow("10.244.0.0/16", "pods", "spec.podCIDR of 6 nodes", "certain"),
    CidrRow("172.20.0.0/16", "pods", "addresses of 14 pods", "guess"),
    CidrRow("10.50.3.0/24", "user", "--also-proxy", "certain"),
)
ROUTES: Final = (
    RouteRow("10.96.0.0/16", "tele0", "services", "ServiceCIDR kubernetes", "applied"),
    RouteRow("10.244.0.0/16", "tele0", "pods", "spec.podCIDR of 6 nodes", "applied"),
    RouteRow(
        "172.20.0.0/16",
        "docker0",
        "pods",
        "addresses of 14 pods",
        "conflict",
        "docker0 has it; --on-conflict says more",
    ),
    RouteRow("10.50.3.0/24", "tele0", "user", "--also-proxy", "applied"),
    RouteRow("10.97.4.2/32", "tele0", "address", "ledger.finance", "resolved"),
)


@dataclass
class Traffic:
    """Flows of some services; `changing` is the share of them that changes in a step. Same seed, same traffic."""

    flows: int = 200
    services: int = 6
    changing: float = 0.1
    failing: float = 0.06
    history: int = 600  # seconds of series
    context: str = "staging-eu"
    seed: int = 7
    state: str = "connected"
    rows: list[FlowRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = time.time()
        self.total = self.up = self.down = 0
        more = [(f"svc-{n:02}.team-{n % 5}", 8000 + n, "python3", 0.003, 0.02) for n in range(self.services)]
        self.places = [*FAMILIAR, *more][: self.services]
        self.series = [self._point(self.now - ago) for ago in range(self.history, 0, -1)]
        for number in range(self.flows):
            age = self.random.expovariate(1) * self.history / 3
            self._open(self.now - min(age, self.history) * (1 - number / max(1, self.flows)))
        if self.failing:
            self._tell("connected", self.context, "tunnel up, 2 carriers", 1, 580)
            self._tell("DNS failed", "ledgr.finance", "NXDOMAIN: no such service", 3, 300)
            self._tell("refused", "catalog.shop:8001", "connection refused by the service", 2, 240)
            self._tell("tunnel down", self.context, "no answer from the manager for 10 s", 1, 180)
            self._tell("tunnel up", self.context, "back after 1.4 s", 1, 178)

    def _tell(self, kind: str, subject: str, detail: str, count: int, ago: float) -> EventRow:
        self.events.append(EventRow(len(self.events) + 1, self.now - ago, kind, subject, detail, count))
        return self.events[-1]

    def _point(self, at: float) -> list[float]:
        wave = 1 + 0.8 * ((at / 70) % 1)
        burst = 6 if self.random.random() < 0.06 else 1
        rtt = (
            -1
            if 176 < self.now - at < 181 and self.failing
            else 0.0014 * self.random.uniform(0.8, 1.3) * burst
        )
        moved = 0.0 if rtt < 0 else 1.0
        return [
            at,
            rtt,
            int(60_000 * wave * moved * self.random.uniform(0.4, 1.2)),
            int(1_900_000 * wave * moved * self.random.uniform(0.3, 1.2)),
        ]

    def _open(self, at: float) -> FlowRow:
        self.total += 1
        place, port, process, dial, wait = self.random.choice(self.places)
        draw = self.random.lognormvariate
        failed = self.random.random() < self.failing * (3 if place.startswith("mlflow") else 0.4)
        tunnel, dial, wait = 0.0014 * draw(0, 0.2), dial * draw(0, 0.5), wait * draw(0, 0.7)
        number = self.places.index((place, port, process, self.places_dial(place), self.places_wait(place)))
        row = FlowRow(
            flow=self.total,
            protocol="TCP",
            src="198.19.240.1",
            sport=32768 + self.total % 28000,
            dst=f"10.96.{number}.{10 + self.total % 3}",
            dport=port,
            name=place,
            state="DIALING" if failed else "ESTABLISHED",
            opened_at=at,
            dns=0.0021 if self.total % 5 == 0 else -1,
            queue=0.0001 * draw(0, 0.6),
            tunnel=tunnel,
            service=place,
            namespace=place.partition(".")[2],
            pod=f"{place.partition('.')[0]}-7c9d4-{self.total % 4}x2k",
            node=f"node-{self.total % 6}",
            uid=1000,
            pid=4242,
            process=process,
            notebook="churn-model.ipynb",
            cell=1 + self.total // 40 if self.total % 9 else -1,
        )
        if failed:
            reason = self.random.choice(
                ["connection refused", "reset by the service", "timed out", "no route to host: unreachable"]
            )
            row = replace(row, state="CLOSED", reason=reason, closed_at=at + 0.2)
        else:
            up, down = int(draw(7, 1)), int(draw(10, 1.8))
            row = replace(
                row, dial=dial, connect=row.queue + tunnel + dial, first_byte=wait + tunnel, wait=wait
            )
            row = replace(row, transfer=abs(draw(-1, 2)), bytes_up=up, bytes_down=down)
            row = replace(row, packets_up=9, packets_down=1 + down // 60_000)
            self.up += up
            self.down += down
        self.rows.append(row)
        return row

    def places_dial(self, place: str) -> float:
        """Return a service's usual dial."""
        return next(one[3] for one in self.places if one[0] == place)

    def places_wait(self, place: str) -> float:
        """Return a service's usual wait."""
        return next(one[4] for one in self.places if one[0] == place)

    def _latency(self) -> list[list[Any]]:
        rows = [LatencyRow("tunnel", 0, 0, 0.0014, 0.0031, -1, -1, -1, -1, -1, -1)]
        for place, port, *_ in self.places:
            mine = [row for row in self.rows if row.service == place]
            if not mine:
                continue
            failed = sum(row.connect < 0 for row in mine)
            spread = [
                value
                for name in ("connect", "dial", "first_byte", "wait")
                for value in _percentiles([getattr(row, name) for row in mine if row.connect >= 0])
            ]
            rows.append(LatencyRow(f"{place}:{port}", len(mine), failed, *spread))
        return [_list(row) for row in rows]

    def _status(self) -> dict[str, Any]:
        status = asdict(control_fake.STATUS)
        for name in ("cidrs", "phases", "notices"):
            status.pop(name)
        return status | {
            "state": self.state,
            "context": self.context,
            "connected_at": self.now - self.history - 20,
            "rtt": self.series[-1][1] if self.series else 0.0014,
            "flows_open": sum(row.state == "ESTABLISHED" for row in self.rows),
            "flows_total": self.total,
            "bytes_up": self.up,
            "bytes_down": self.down,
            "last_error": "no answer from the manager for 10 s" if self.state == "reconnecting" else "",
        }

    def snapshot(self) -> str:
        """Return everything, as the text of a Snapshot."""
        return json.dumps(
            {
                "at": self.now,
                "status": self._status(),
                "cidrs": [_list(row) for row in CIDRS],
                "routes": [_list(row) for row in ROUTES],
                "flows": [_list(row) for row in self.rows],
                "series": self.series,
                "latency": self._latency(),
                "events": [_list(row) for row in self.events],
            }
        )

    def step(self, seconds: float) -> str:
        """Let time pass; return what changed, as the text of a SnapshotChanged."""
        before, self.now = self.now, self.now + seconds
        changed: dict[int, FlowRow] = {}
        for index in self.random.sample(range(len(self.rows)), int(len(self.rows) * self.changing)):
            row = self.rows[index]
            if row.state != "ESTABLISHED":
                continue
            more = int(self.random.lognormvariate(9, 1.5))
            row = replace(row, bytes_down=row.bytes_down + more, bytes_up=row.bytes_up + more // 30)
            if self.random.random() < 0.03:
                row = replace(row, state="CLOSED", reason="closed", closed_at=self.now)
            self.rows[index] = changed[row.flow] = row
        for _ in range(self.random.randrange(4) if self.rows else 0):
            row = self._open(self.now)
            changed[row.flow] = row
        gone = [row.flow for row in self.rows[: max(0, len(self.rows) - max(self.flows, 50))]]
        del self.rows[: len(gone)]
        series = [self._point(self.now)] if int(before) != int(self.now) else []
        self.series += series
        told = {
            "at": self.now,
            "status": self._status(),
            "flows": [_list(row) for row in changed.values()],
            "gone": gone,
            "series": series,
            "events": [],
        }
        if series:
            told["latency"] = self._latency()
        return json.dumps(told)


def _percentiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]) if ordered else (-1.0, -1.0)


def _list(row: Any) -> list[Any]:
    return list(asdict(row).values())


KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
current-context: {context}
contexts: [{{name: {context}, context: {{cluster: made-up, user: ada, namespace: shop}}}}]
clusters: [{{name: made-up, cluster: {{server: "https://127.0.0.1:6443"}}}}]
users: [{{name: ada, user: {{token: secret}}}}]
"""


class Stage:
    """A connection to a data plane of its own process that tells made-up traffic; `options` are those of Traffic."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.child: asyncio.subprocess.Process | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="tele-s-")
        config = Path(self._folder.name, "config")
        config.write_text(KUBECONFIG.format(context=options.get("context", Traffic.context)))
        self._session = session.Session(self._launch)
        session.use(self._session)
        self.connection: Connection = self._session.connect(ConnectOptions(kubeconfig=str(config)))

    async def _launch(self, path: Path, *, on_phase: Callable[[str, str, str], None], **_: Any) -> Any:
        command = [sys.executable, "-m", "tests.browser.traffic", str(path), json.dumps(self.options)]
        self.child = await asyncio.create_subprocess_exec(*command, start_new_session=True, cwd=ROOT)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(path)
                writer.close()
                break
            await asyncio.sleep(0.02)
        return SimpleNamespace(datapath_pid=self.child.pid, netd_pid=self.child.pid)

    def hang(self) -> None:
        """Have the data plane stand still."""
        assert self.child is not None
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a hang."""
        assert self.child is not None
        self.child.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """Kill the data plane."""
        assert self.child is not None
        self.child.kill()


async def _play(path: Path, traffic: Traffic) -> None:
    """Be the data plane until the kernel has gone."""
    script = control_fake.Script(status=replace(control_fake.STATUS, context=traffic.context))

    async def now() -> None:
        script.snapshot = traffic.snapshot()
        script.flows = FlowTable(traffic.now, json.dumps([_list(row) for row in traffic.rows]))

    script.before_snapshot = now
    fake = control_fake.FakeDatapath(path, script)
    await fake.start()
    told = time.monotonic()
    while not fake.over.is_set():
        due = told + min(fake.intervals, default=0.5) - time.monotonic()
        with contextlib.suppress(TimeoutError):  # what is watched may change meanwhile
            await asyncio.wait_for(fake.over.wait(), min(max(due, 0.0), 0.1))
        if due <= 0:
            before, told = told, time.monotonic()
            if fake.intervals:
                await fake.change(traffic.step(told - before))


if __name__ == "__main__":
    asyncio.run(_play(Path(sys.argv[1]), Traffic(**json.loads(sys.argv[2]))))
