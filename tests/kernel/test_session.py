from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import (
    AlreadyConnected,
    CidrConflict,
    ConnectTimeout,
    HelperLost,
    HelperMissing,
    KubeconfigError,
    NotConnected,
    SudoDenied,
    TelemagicError,
    UndoIncomplete,
    UsageError,
)
from telehelper.messages import PHASES, Connect, Disconnect, Failed, PhaseChanged, TunnelChanged
from telehelper.observing import GetLatency

import telemagic
from telemagic import config, connecting, live, target
from telemagic.config import ConfigError
from telemagic.control_fake import FakeLauncher, Script
from telemagic.parser import Line, Tree
from telemagic.target import ConnectOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemagic.session import Session

    MakeSession = Callable[[FakeLauncher], Session]


def left(runtime: Path) -> list[str]:
    return os.listdir(runtime) if runtime.exists() else []


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_connect_ask_disconnect(
    session: Session, launcher: FakeLauncher, runtime: Path, kubeconfig: Path
) -> None:
    seen: list[PhaseChanged] = []
    with telemagic.connect(on_phase=seen.append) as connection:
        assert [c.phase for c in seen if c.state == "done"] == list(PHASES)
        assert launcher.started[0].requests[1] == Connect(
            str(kubeconfig), "demo", "shop", pytest.approx(30.0, abs=2.0), "telemagic"
        )
        assert connection.status.state == "connected"
        assert len(connection.flows()) == 0
        assert len(connection.routes()) == 0
        assert session.current() is connection
        assert len(left(runtime)) == 1
    assert session.connection is None
    wait_for(lambda: not left(runtime))
    with pytest.raises(NotConnected, match="the connection to demo is over"):
        connection.flows()
    assert "over" in repr(connection)


def test_options_reach_the_data_plane(session: Session, launcher: FakeLauncher) -> None:
    telemagic.connect(
        "staging",
        "ml",
        timeout=7.0,
        also_proxy=["10.9.0.0/16"],
        never_proxy=("10.9.1.0/24",),
        dns="none",
        carrier="tls://10.0.0.5:8083",
    )
    request = launcher.started[0].requests[1]
    assert isinstance(request, Connect)
    assert (request.context, request.namespace, request.dns) == ("staging", "ml", "none")
    assert (request.also_proxy, request.never_proxy) == (("10.9.0.0/16",), ("10.9.1.0/24",))
    assert request.carrier == "tls://10.0.0.5:8083"
    assert 5.0 < request.timeout <= 7.0


def test_scripts_have_the_user_s_defaults_as_command_lines_do(
    session: Session, launcher: FakeLauncher, tmp_path: Path
) -> None:
    (tmp_path / "xdg" / "telemagic").mkdir(parents=True)
    (tmp_path / "xdg" / "telemagic" / "config.toml").write_text(
        'dns = "none"\nmanager_namespace = "team"\ntimeout = 9\nvia = "manager"\non_conflict = "map"\n'
    )
    asked: list[Connect] = []
    with telemagic.connect():
        pass
    with telemagic.connect(timeout=7, via="auto", dns="auto", on_conflict="refuse"):  # what is given wins
        pass
    asked += [fake.requests[1] for fake in launcher.started if isinstance(fake.requests[1], Connect)]
    assert [(one.dns, one.manager_namespace, one.via, one.on_conflict) for one in asked] == [
        ("none", "team", "manager", "map"),
        ("auto", "team", "auto", "refuse"),
    ]
    assert [one.timeout for one in asked] == pytest.approx([9, 7], abs=2)
    (tmp_path / "xdg" / "telemagic" / "config.toml").write_text("dns = 1")
    with pytest.raises(ConfigError, match="dns must be one of"):
        telemagic.connect()


def test_one_network_need_not_be_in_a_list(session: Session, launcher: FakeLauncher) -> None:
    telemagic.connect(cidr="10.8.0.0/16", also_proxy="10.9.0.0/16", never_proxy=["10.9.1.0/24"])
    request = launcher.started[0].requests[1]
    assert isinstance(request, Connect)
    assert (request.cidrs, request.also_proxy) == (("10.8.0.0/16",), ("10.9.0.0/16",))
    assert request.never_proxy == ("10.9.1.0/24",)


def test_the_docs_name_every_method_there_is(session: Session) -> None:
    """What `telemagic.Connection?` lists is there, and all tables are in it."""
    doc = telemagic.Connection.__doc__ or ""
    named = set(re.findall(r":(?:meth|attr):`(\w+)`", doc))
    assert {"flows", "latency", "events", "routes", "services", "pods", "resolve", "ping"} <= named
    assert all(hasattr(telemagic.Connection, name) for name in named)
    assert all(getattr(telemagic.Connection, name).__doc__ for name in named)


def test_async_both_ways(session: Session, runtime: Path) -> None:
    async def main() -> None:
        async with telemagic.aconnect() as connection:
            assert connection.status.context == "demo"  # the sync API works under a running loop
        assert session.connection is None
        connection = await telemagic.aconnect()
        with telemagic.connect() as same:
            assert same is connection
        async with connection:
            pass
        assert session.connection is None

    asyncio.run(main())
    wait_for(lambda: not left(runtime))


def test_async_cancel_leaves_nothing(make_session: MakeSession, runtime: Path) -> None:
    launcher = FakeLauncher(Script(hang_at="tunnel"))
    session = make_session(launcher)

    async def main() -> None:
        task = asyncio.ensure_future(session.aconnect(ConnectOptions()))
        while not (launcher.started and len(launcher.started[0].requests) == 2):  # noqa: ASYNC110  # a list, no event
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert session.connection is None
    assert left(runtime) == []


@pytest.mark.parametrize("at", ["elevate", "tunnel"])
def test_interrupt_leaves_nothing(make_session: MakeSession, runtime: Path, at: str) -> None:
    launcher = FakeLauncher(Script(hang_at=at))
    launcher.elevate_hangs = at == "elevate"
    session = make_session(launcher)

    def interrupt_when_there(change: PhaseChanged) -> None:
        if (change.phase, change.state) == (at, "started"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        session.connect(ConnectOptions(), viewer=live.Silent(interrupt_when_there))
    assert session.connection is None
    assert launcher.cancelled == (at == "elevate")
    assert left(runtime) == []  # at once, not some time later


def test_failure_keeps_its_type_and_leaves_nothing(make_session: MakeSession, runtime: Path) -> None:
    conflict = CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "wg0")
    make_session(FakeLauncher(Script(hang_at="routes", failure=conflict)))
    with pytest.raises(CidrConflict, match="overlaps"):
        telemagic.connect()
    assert left(runtime) == []


def test_timeout(make_session: MakeSession, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "GRACE", 0.05)
    make_session(FakeLauncher(Script(hang_at="CIDRs")))
    with pytest.raises(
        ConnectTimeout, match=r"demo \(https://127.0.0.1:6443\) was not connected within 0.2 s"
    ):
        telemagic.connect(timeout=0.2)
    assert left(runtime) == []


def test_typing_a_password_takes_no_time(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "GRACE", 0.05)
    monkeypatch.setattr(live, "can_ask", lambda _: True)

    def slow(prompt: str) -> str:
        assert threading.current_thread() is threading.main_thread()
        asked.append(prompt)
        threading.Event().wait(0.5)
        return "wrong" if len(asked) == 1 else "right"

    asked: list[str] = []
    monkeypatch.setattr("getpass.getpass", slow)
    make_session(FakeLauncher(password="right"))
    telemagic.connect(timeout=0.3)
    assert asked == ["[sudo] password for ada: "] * 2


def test_nobody_to_ask(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    monkeypatch.setattr(live, "can_ask", lambda _: False)
    make_session(FakeLauncher(password="right"))
    with pytest.raises(SudoDenied, match="nobody can be asked") as raised:
        telemagic.connect()
    assert "first, in a terminal: telemagic connect; " in str(raised.value.hint)
    assert left(runtime) == []


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (ConnectOptions(), "telemagic connect"),
        (ConnectOptions(context="demo", timeout=3), "telemagic connect --context demo"),
        (
            ConnectOptions("my own", "ml", "/home/a b/config"),
            "telemagic connect --context 'my own' --namespace ml --kubeconfig '/home/a b/config'",
        ),
        (ConnectOptions("demo", "shop", "/gone/with/the/demo", demo=True), "telemagic connect --demo"),
    ],
)
def test_the_command_that_does_the_same_in_a_terminal(options: ConnectOptions, command: str) -> None:
    assert options.command == command


def test_front_end_without_stdin(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.error import StdinNotImplementedError

    def refuse(prompt: str) -> str:
        raise StdinNotImplementedError(
            "getpass was called, but this frontend does not support input requests."
        )

    monkeypatch.setattr(live, "can_ask", lambda _: True)
    monkeypatch.setattr("getpass.getpass", refuse)
    make_session(FakeLauncher(password="right"))
    with pytest.raises(
        SudoDenied, match=r"this front end cannot ask for one \(.* input requests\)\n"
    ) as raised:
        telemagic.connect(context="demo")
    assert "first, in a terminal: telemagic connect --context demo; " in str(raised.value.hint)


def test_twice_is_the_same(session: Session, launcher: FakeLauncher) -> None:
    first = telemagic.connect()
    assert telemagic.connect(context="demo", namespace="shop") is first
    assert "already connected to demo" in repr(first)
    assert len(launcher.started) == 1


def test_with_ends_what_it_has_begun_and_nothing_else(session: Session, launcher: FakeLauncher) -> None:
    outer = telemagic.connect()
    with telemagic.connect() as inner:
        assert inner is outer
    assert outer.is_open

    async def work() -> None:
        async with telemagic.aconnect() as again:
            assert again is outer

    asyncio.run(work())
    assert outer.is_open
    outer.disconnect()
    with telemagic.connect() as new:
        with telemagic.connect(), new:
            pass
        assert telemagic.connect() is new  # as a function called here may do, and leave it so
        assert new.is_open
    assert new.is_over
    later = telemagic.connect()
    with later:
        pass
    assert later.is_over
    assert len(launcher.started) == 3


def test_disconnecting_ends_it_whoever_has_begun(session: Session) -> None:
    telemagic.connect()
    telemagic.connect().disconnect()
    assert session.connection is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ConnectOptions(context="staging"), "connected to demo already, not to staging"),
        (ConnectOptions(namespace="ml"), "connected to demo already, with another namespace"),
        (ConnectOptions(dns="none", also_proxy=("10.0.0.0/8",)), "with another also-proxy, dns"),
        (ConnectOptions(carrier="tcp://10.0.0.5:8084"), "with another carrier"),
        (ConnectOptions(share=True), "with another share"),
    ],
)
def test_twice_but_different(session: Session, options: ConnectOptions, message: str) -> None:
    telemagic.connect()
    with pytest.raises(AlreadyConnected, match=message) as caught:
        session.connect(options)
    assert "disconnect" in caught.value.hint
    assert session.current().is_open


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (ConnectOptions(context="demmo"), KubeconfigError, "no context 'demmo'"),
        (ConnectOptions(context="broken"), KubeconfigError, "names the cluster 'nowhere'"),
        (ConnectOptions(kubeconfig="/nonexistent"), KubeconfigError, "no kubeconfig at /nonexistent"),
        (ConnectOptions(also_proxy=("10.0.0.1/8",)), UsageError, "is no CIDR: it has host bits set"),
        (ConnectOptions(cidrs=("10.0.0.0/99",)), UsageError, "'10.0.0.0/99' is no CIDR\n"),
        (ConnectOptions(timeout=0), UsageError, "a timeout of 0 s makes no sense"),
        (ConnectOptions(timeout=float("nan")), UsageError, "a timeout of nan s"),
        (ConnectOptions(dns="magic"), UsageError, "unknown DNS mechanism"),
        (ConnectOptions(carrier="pigeon"), UsageError, "'pigeon' is no address for carriers"),
        (ConnectOptions(carrier="tls://manager"), UsageError, "does not end in a port"),
    ],
)
def test_bad_options_cost_no_password(
    session: Session,
    launcher: FakeLauncher,
    options: ConnectOptions,
    kind: type[TelemagicError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message) as caught:
        session.connect(options)
    assert caught.value.hint
    assert launcher.started == []


def test_two_sessions_share_a_data_plane(make_session: MakeSession, runtime: Path) -> None:
    launcher = FakeLauncher()
    one, two = make_session(launcher), make_session(launcher)
    first = one.connect(ConnectOptions())
    second = two.connect(ConnectOptions())
    assert len(launcher.started) == 1
    assert "shared" in repr(second)
    with pytest.raises(AlreadyConnected, match="with namespace shop, not ml"):
        make_session(launcher).connect(ConnectOptions(namespace="ml"))
    first.disconnect()
    assert second.status.state == "connected"  # the other one keeps it
    second.disconnect()
    wait_for(lambda: not left(runtime))


def test_other_clusters_and_contexts_get_their_own(make_session: MakeSession, runtime: Path) -> None:
    launcher = FakeLauncher()
    make_session(launcher).connect(ConnectOptions())
    make_session(launcher).connect(ConnectOptions(context="staging"))
    assert len(left(runtime)) == 2


def test_stale_socket_is_replaced(session: Session, launcher: FakeLauncher) -> None:
    path = target.resolve(ConnectOptions()).socket
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    assert telemagic.connect().status.state == "connected"


def test_one_at_a_time(session: Session, launcher: FakeLauncher, runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    held = os.open(runtime, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def let_go(change: PhaseChanged) -> None:
        details.append(change.detail)
        if "another notebook" in change.detail:
            assert launcher.started == []
            os.close(held)

    details: list[str] = []
    session.connect(ConnectOptions(), viewer=live.Silent(let_go))
    assert details[0] == "waiting for another notebook that is connecting"


def test_one_at_a_time_in_one_process(session: Session, launcher: FakeLauncher) -> None:
    async def main() -> list[object]:
        return await asyncio.gather(telemagic.aconnect(), telemagic.aconnect(), return_exceptions=True)

    connection, refused = asyncio.run(main())
    assert session.connection is connection
    assert isinstance(refused, AlreadyConnected)
    assert "is connecting already" in refused.message
    assert len(launcher.started) == 1
    assert telemagic.connect() is connection  # later it is the same, as ever


def test_a_failed_connect_is_no_reason_to_refuse_the_next(make_session: MakeSession) -> None:
    launcher = FakeLauncher(Script(failure=SudoDenied("no")))
    session = make_session(launcher)
    for _ in range(2):
        with pytest.raises(SudoDenied):
            session.connect(ConnectOptions())
        with pytest.raises(KubeconfigError):
            asyncio.run(session.aconnect(ConnectOptions("nowhere")))


def test_helper_lost_then_connect_again(session: Session, launcher: FakeLauncher) -> None:
    connection = telemagic.connect()
    session._loop.run(launcher.started[0].close())
    wait_for(lambda: connection.lost)
    with pytest.raises(HelperLost, match="has ended") as caught:
        connection.flows()
    assert caught.value.hint == "%tele connect again"
    assert "has ended" in repr(connection)
    again = telemagic.connect()
    assert again is not connection
    assert again.status.state == "connected"


def test_a_loss_reaches_everybody_though_a_front_end_refuses_its_card(
    session: Session, launcher: FakeLauncher
) -> None:
    class Gone:  # a DisplayHandle whose front end has gone
        def update(self, card: object) -> None:
            raise OSError("the front end has gone")

    connection = telemagic.connect()
    connection.standing.add(Gone())
    told: list[str] = []
    texts: list[str] = []
    faults: list[BaseException | None] = []
    connection.feed.subscribe(1.0, lambda text, _: texts.append(text), told.append)
    wait_for(lambda: texts)
    loop = session._loop._running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception")))
    session._loop.run(launcher.started[0].close())
    wait_for(lambda: told and faults)
    assert "has ended" in told[0]
    assert isinstance(faults[0], OSError)  # said, not swallowed


def test_a_request_under_way_while_we_leave_is_no_loss(make_session: MakeSession) -> None:
    launcher = FakeLauncher()
    session = make_session(launcher)
    connection = session.connect(ConnectOptions())
    launcher.script.mute = True
    raised: list[TelemagicError] = []

    def ask() -> None:
        with pytest.raises(TelemagicError) as caught:
            connection.latency()
        raised.append(caught.value)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: GetLatency() in launcher.started[0].requests)
    connection.leave()
    asking.join(5)
    assert isinstance(raised[0], NotConnected)
    assert connection.lost == ""


def test_phases_that_come_later_are_nobody_s(session: Session, launcher: FakeLauncher) -> None:
    seen: list[PhaseChanged] = []
    connection = asyncio.run(session.aconnect(ConnectOptions(), viewer=live.Silent(seen.append)))
    count = len(seen)
    session._loop.run(launcher.started[0].say(PhaseChanged("routes", "started", "", 0.0)))
    assert connection.status.state == "connected"  # the loop that was connected on is closed
    assert len(seen) == count


def test_disconnect_after_loss_only_forgets(session: Session, launcher: FakeLauncher) -> None:
    connection = telemagic.connect()
    session._loop.run(launcher.started[0].close())
    wait_for(lambda: connection.lost)
    assert "was lost before" in session.disconnect().text
    assert session.connection is None


def test_tunnel_down_is_noted(session: Session, launcher: FakeLauncher) -> None:
    connection = telemagic.connect()
    connection.notices = ("a library asks by itself",)
    session._loop.run(launcher.started[0].say(TunnelChanged(up=False, reason="pod is gone")))
    wait_for(lambda: len(connection.notices) == 2)
    assert "note: the tunnel is down: pod is gone" in repr(connection.status)
    session._loop.run(launcher.started[0].say(TunnelChanged(up=False, reason="again")))
    wait_for(lambda: connection.notices == ("a library asks by itself", "the tunnel is down: again"))
    session._loop.run(launcher.started[0].say(TunnelChanged(up=True, reason="")))
    wait_for(lambda: connection.notices == ("a library asks by itself",))


def test_not_connected(session: Session) -> None:
    with pytest.raises(NotConnected, match="not connected"):
        session.current()
    with pytest.raises(NotConnected):
        session.disconnect()
    telemagic.connect()
    with pytest.raises(NotConnected, match="connected to demo, not to staging"):
        session.current("staging")


def test_close_is_quick_even_if_nobody_answers(make_session: MakeSession) -> None:
    launcher = FakeLauncher()
    session = make_session(launcher)
    session.connect(ConnectOptions())
    launcher.started[0].script.mute = True
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 2.0


def test_an_interrupt_of_a_disconnect_leaves_no_half_connection(session: Session, runtime: Path) -> None:
    connection = session.connect(ConnectOptions())
    gate = threading.Event()

    def hold_up() -> None:  # the background loop, so that closing takes until the interrupt
        wait_for(lambda: not connection.is_open)
        gate.wait(0.1)  # now they wait for us
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        gate.wait(5)

    session._loop.post(hold_up)
    with pytest.raises(KeyboardInterrupt):
        connection.leave()
    gate.set()
    assert session.connection is None
    wait_for(lambda: not left(runtime))  # it was closed all the same: the data plane knows that we have gone
    assert session.connect(ConnectOptions()).status.state == "connected"


def test_an_exit_is_quiet_though_not_all_could_be_undone(make_session: MakeSession, runtime: Path) -> None:
    launcher = FakeLauncher(Script(answers={Disconnect: Failed("undo-incomplete", "a route is left")}))
    session = make_session(launcher)
    connection = session.connect(ConnectOptions())
    session.close()
    assert session.connection is None
    assert not connection.is_open
    wait_for(lambda: not left(runtime))
    with pytest.raises(UndoIncomplete, match="a route is left"):  # who asks for the end is told
        session.connect(ConnectOptions()).disconnect()
    assert session.connection is None


def test_refused_runtime_directory(session: Session, runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(HelperMissing, match="open to other users"):
        telemagic.connect()


FORKED = """
import os, sys
import telemagic
from telemagic.control_fake import FakeLauncher
from telemagic.session import Session, session, use
use(Session(FakeLauncher()))
connection = telemagic.connect()
number = connection._client.socket.fileno()
pid = os.fork()
if pid == 0:
    try:
        os.fstat(number)
        os._exit(3)
    except OSError:
        pass
    try:
        session().current()
    except telemagic.errors.NotConnected as error:
        os._exit(0 if "forked" in str(error) else 4)
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert connection.status.state == "connected"
pid = os.fork()
if pid == 0:
    sys.exit(0)  # with atexit
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert connection.status.state == "connected"
"""


def test_forked_child_lets_go_and_exit_disconnects(runtime: Path, kubeconfig: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert left(runtime) == []


class FakeDemo:
    """Stands for a demo cluster: the kubeconfig is a real file, the cluster behind it a fake data plane."""

    context = "demo"
    namespace = "shop"

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.calls: list[str] = []

    def attach(self) -> None:
        self.calls.append("attach")

    def close(self) -> None:
        self.calls.append("close")


def test_demo_is_held_while_connected(
    session: Session, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = FakeDemo(kubeconfig)
    monkeypatch.setattr("telemagic.demo.client.ensure", lambda **_: demo)
    seen: list[PhaseChanged] = []
    connection = telemagic.connect(demo=True, on_phase=seen.append)
    assert [(c.phase, c.state) for c in seen[:3]] == [
        ("demo", "started"),
        ("demo", "done"),
        ("elevate", "started"),
    ]
    assert telemagic.connect(demo=True) is connection
    assert demo.calls == ["attach"]
    connection.disconnect()
    assert demo.calls == ["attach", "close"]


def test_demo_has_its_manager_where_it_is_whatever_the_defaults(
    session: Session,
    launcher: FakeLauncher,
    kubeconfig: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("telemagic.demo.client.ensure", lambda **_: FakeDemo(kubeconfig))
    (tmp_path / "xdg" / "telemagic").mkdir(parents=True)
    (tmp_path / "xdg" / "telemagic" / "config.toml").write_text(
        'manager_namespace = "team"\ncontext = "prod"\n'
    )
    with telemagic.connect(demo=True):
        pass
    tree = Tree("%tele", config.current)
    line = tree.parse(["connect", "--demo"])
    assert isinstance(line, Line)
    tree.run(session, line)
    asked = [fake.requests[1] for fake in launcher.started]
    assert [one.manager_namespace for one in asked if isinstance(one, Connect)] == ["telemagic", "telemagic"]


def test_demo_is_kept_for_the_connect_after_a_loss(
    session: Session, launcher: FakeLauncher, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = FakeDemo(kubeconfig)
    monkeypatch.setattr("telemagic.demo.client.ensure", lambda **_: demo)
    first = telemagic.connect(demo=True)
    session._loop.run(launcher.started[0].close())
    wait_for(lambda: first.lost)
    second = telemagic.connect(demo=True)
    assert second is not first
    assert demo.calls == ["attach"]
    second.disconnect()
    assert demo.calls == ["attach", "close"]


def test_demo_is_let_go_when_connecting_fails(
    make_session: MakeSession, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = FakeDemo(kubeconfig)
    monkeypatch.setattr("telemagic.demo.client.ensure", lambda **_: demo)
    make_session(FakeLauncher(Script(failure=SudoDenied("no"))))
    with pytest.raises(SudoDenied):
        telemagic.connect(demo=True)
    assert demo.calls == ["attach", "close"]


def test_demo_that_starts_while_the_connect_is_cancelled_is_let_go(
    session: Session, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, begun, gate = FakeDemo(kubeconfig), threading.Event(), threading.Event()

    def ensure(**_: object) -> FakeDemo:
        begun.set()
        gate.wait(5)
        return demo

    monkeypatch.setattr("telemagic.demo.client.ensure", ensure)

    async def main() -> None:
        task = asyncio.ensure_future(session.aconnect(ConnectOptions(), demo=True))
        assert await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, gate.set)  # the thread goes on after the cancel
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert demo.calls == ["attach", "close"]
    assert session._demo is None


def test_demo_is_not_started_beside_another_connection(session: Session) -> None:
    telemagic.connect()
    with pytest.raises(AlreadyConnected, match="not to the demo cluster"):
        telemagic.connect(demo=True)
