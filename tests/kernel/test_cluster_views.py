"""Services, pods, lookups and pings as users ask for them: through the magic, the API and a shell, with a fake helper."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from telehelper.errors import CredentialsRefused, NotConnected, UsageError
from telehelper.messages import Failed
from telehelper.views import (
    GetLookup,
    GetPods,
    GetServices,
    Lookup,
    PodTable,
    RecordRow,
    Resolve,
    Resolved,
    ServiceTable,
)

import telemagic
from telemagic import cluster_frames, looking, ping
from telemagic.control_fake import FakeLauncher, Script
from telemagic.frames import TIME
from tests.kernel.test_addresses import SERVICES
from tests.kernel.test_cards import EVIL, Tags
from tests.kernel.test_looking import POD

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.session import Session

NOTICE = "you may not list services of all namespaces: these are those of shop"
LOCAL = RecordRow("localhost", "A", 5, "127.0.0.1")
ANSWERS: dict[Any, Any] = {
    GetServices: ServiceTable(tuple(reversed(SERVICES)), (NOTICE,)),
    GetPods: PodTable((POD,)),
    Resolve: Resolved(
        "NOERROR", (LOCAL,), Lookup("cluster", "localhost.shop.svc.cluster.local"), 0.002, "198.19.0.2"
    ),
    GetLookup: Lookup("cluster", "x"),
}


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher(Script(answers=dict(ANSWERS)))


@pytest.fixture
def connection(session: Session) -> telemagic.Connection:
    return telemagic.connect()


def asked(launcher: FakeLauncher, kind: type) -> list[Any]:
    return [request for request in launcher.started[0].requests if isinstance(request, kind)]


def check_schema(frame: pd.DataFrame, schema: tuple[Any, ...]) -> None:
    assert list(frame.columns) == [column.name for column in schema]
    for column in schema:
        assert str(frame[column.name].dtype) == column.dtype, column.name
    units = {column.name: column.unit for column in schema if column.unit}
    assert frame.attrs["telemagic"]["units"] == units


def test_services(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    frame = connection.services()
    check_schema(frame, cluster_frames.SERVICE_SCHEMA)
    assert list(frame.dns_name) == ["redis.other", "catalog.shop", "postgres.shop", "redis.third"]
    postgres = frame[frame.name == "postgres"].iloc[0]
    assert (postgres.url, postgres.ports) == ("postgresql://postgres.shop:5432", "postgresql 5432/TCP")
    assert frame[frame.name == "catalog"].iloc[0].ports == "http 8000/TCP, tally 7000/TCP"
    assert frame.attrs["telemagic"]["notices"] == [NOTICE]
    assert frame.attrs["telemagic"]["context"] == "demo"
    connection.services("other")
    connection.services(everywhere=True)
    assert asked(launcher, GetServices) == [GetServices(), GetServices("other"), GetServices("", True)]


def test_endpoints_that_are_not_known_are_missing(
    connection: telemagic.Connection, launcher: FakeLauncher
) -> None:
    from dataclasses import replace

    row = replace(SERVICES[0], endpoints_ready=-1, endpoints_total=-1)
    launcher.script.answers[GetServices] = ServiceTable((row,))
    assert connection.services()[["ready", "endpoints"]].isna().all().all()
    launcher.script.answers[GetServices] = ServiceTable(())
    check_schema(connection.services(), cluster_frames.SERVICE_SCHEMA)


def test_pods(connection: telemagic.Connection) -> None:
    frame = connection.pods(everywhere=True)
    check_schema(frame, cluster_frames.POD_SCHEMA)
    assert str(frame.started.dtype) == TIME
    pod = frame.iloc[0]
    assert (pod["name"], pod.ready, pod.phase, pod.ip) == ("postgres-0", "1/1", "Running", "198.18.0.12")
    assert pd.isna(pod.started)


def test_ten_thousand_pods(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    launcher.script.answers[GetPods] = PodTable((POD,) * 10_000)
    assert len(connection.pods()) == 10_000


def test_a_lookup_beside_the_machines_own(connection: telemagic.Connection) -> None:
    frame = connection.resolve("localhost")
    check_schema(frame, cluster_frames.LOOKUP_SCHEMA)
    (row,) = frame.itertuples()
    assert (row.answer, row.answered_by, row.ttl_s, row.system) == ("127.0.0.1", "cluster", 5, True)
    facts = frame.attrs["telemagic"]
    assert (facts["agree"], facts["system"], facts["rcode"]) == (True, ["127.0.0.1"], "NOERROR")
    assert frame.time_ms[0] == pytest.approx(2.0)


def test_a_lookup_without_an_answer(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    missing = Resolved(
        "NXDOMAIN",
        (),
        Lookup("cluster", "postgrs.shop.svc.cluster.local"),
        0.1,
        "198.19.0.2",
        "no such service",
    )
    launcher.script.answers[Resolve] = missing
    frame = connection.resolve("postgrs.shop", "srv")
    assert frame.note[0] == "no such service; did you mean postgres.shop?"
    assert frame.attrs["telemagic"]["notices"] == [frame.note[0]]
    assert frame.attrs["telemagic"]["agree"] is None
    assert asked(launcher, Resolve)[-1] == Resolve("postgrs.shop", "SRV")


def test_a_ping(connection: telemagic.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "FIRST_BYTE", 0.01)
    monkeypatch.setattr(ping, "PAUSE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        frame = connection.ping(f"127.0.0.1:{port}", count=2)
    check_schema(frame, cluster_frames.PING_SCHEMA)
    assert list(frame["try"]) == [1, 2]
    assert set(frame.state) == {"connected"}
    assert frame.tunnel_ms[0] == pytest.approx(1.4)  # the fake's
    assert frame.first_byte_ms.isna().all()
    with pytest.raises(UsageError, match="tries make no sense"):
        connection.ping("127.0.0.1:1", count=0)


def test_url(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    assert telemagic.url("postgres.shop") == "postgres.shop:5432" == connection.url("postgres.shop")
    assert telemagic.url("catalog.shop", "http") == "catalog.shop:8000"
    assert telemagic.url("catalog", 7000) == "catalog:7000"
    assert telemagic.url("http://catalog.shop/products") == "http://catalog.shop:8000/products"
    with pytest.raises(UsageError, match="several ports"):
        telemagic.url("catalog.shop")
    launcher.script.answers[GetServices] = Failed.of(CredentialsRefused("services is forbidden"))
    with pytest.raises(CredentialsRefused, match="forbidden"):
        telemagic.url("postgres.shop")


@pytest.mark.usefixtures("session")
def test_url_needs_a_connection() -> None:
    with pytest.raises(NotConnected):
        telemagic.url("postgres.shop")


def test_whether_the_resolver_was_asked(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    assert connection.was_asked("x.shop")
    launcher.script.answers[GetLookup] = Lookup("")
    assert not connection.was_asked("x.shop")


# --- as commands -------------------------------------------------------------------------------------------------


def test_the_magics(session: Session, shell: Any, launcher: FakeLauncher) -> None:
    shell.run_cell("%tele connect").raise_error()
    for line, kind, request in (
        ("services -A", GetServices, GetServices("", True)),
        ("pods -n other", GetPods, GetPods("other")),
        ("resolve localhost --type aaaa", Resolve, Resolve("localhost", "AAAA")),
    ):
        found = shell.run_cell(f"%tele {line}")
        found.raise_error()
        assert isinstance(found.result, pd.DataFrame)
        assert asked(launcher, kind)[-1] == request


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("services -n a -A", "not allowed with"),
        ("resolve", "required"),
        ("ping", "required"),
        ("ping a --count x", "invalid int"),
        ("pods --everywhere", "no flag '--everywhere'"),
        ("services --namspace shop", "did you mean '--namespace'?"),
    ],
)
def test_bad_lines(
    session: Session, shell: Any, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell(f"%tele {line}")
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err


def test_notices_are_shown_beside_the_table(
    session: Session, shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%tele connect").raise_error()
    capsys.readouterr()
    shell.run_cell("frame = %tele services -A").raise_error()
    assert f"note: {NOTICE}" in capsys.readouterr().out
    shell.run_cell("frame = %tele pods").raise_error()
    assert capsys.readouterr().out == ""


def test_notices_in_a_terminal(connection: telemagic.Connection, capsys: pytest.CaptureFixture[str]) -> None:
    from telemagic import notes

    notes.shown(connection.services(everywhere=True))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"note: {NOTICE}\n")


def test_hostile_names_stay_text(connection: telemagic.Connection, launcher: FakeLauncher) -> None:
    from dataclasses import replace

    from telemagic import cards

    launcher.script.answers[GetServices] = ServiceTable(
        (replace(SERVICES[0], name=EVIL, namespace=EVIL),), (EVIL,)
    )
    frame = connection.services()
    assert not Tags(frame.to_html()).names & {"script", "img"}
    card = cards.notes(frame.attrs["telemagic"]["notices"])
    assert not Tags(card.html).names & {"script", "img"}
    assert "\x1b" not in card.text


def test_a_lookup_asks_the_real_machine(
    connection: telemagic.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[Any] = []
    real: Callable[..., Any] = looking.ask_system

    def spy(name: str, family: int) -> Any:
        names.append((name, family))
        return real(name, family)

    monkeypatch.setattr(looking, "ask_system", spy)
    connection.resolve("localhost")
    connection.resolve("_http._tcp.catalog", "SRV")  # there is no getaddrinfo for these
    assert names == [("localhost", socket.AF_INET)]
