"""What can be wrong with what users give us or with their machine: a short error that says what to do, nothing left."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.e2e.inside import Untouched, inside
from tests.e2e.kernels import CONNECT, Answer, kubeconfig_for, silent_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telehelper.errors import TelemagicError

WITHIN: Final = 5.0  # seconds
# An ordinary user, as far as the processes can tell.
ORDINARY: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
PODS: Final = "/api/v1/namespaces/telemagic/pods"


def check_form(error: TelemagicError) -> None:
    """One line that says what, and one line that says what to do."""
    Answer(None, type(error).__name__, error.message, error.hint).check_error(type(error).__name__)


def refused(
    kind: type[TelemagicError], *said: str, seconds: float = WITHIN, **options: Any
) -> TelemagicError:
    """Connect, which must fail with this very error, soon, and leave nothing behind."""
    import telemagic

    untouched = Untouched()
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        telemagic.connect(**options)
    assert time.monotonic() - began < seconds
    error = caught.value
    assert type(error) is kind
    check_form(error)
    for text in said:
        assert text in error.message + error.hint, (text, error.message, error.hint)
    untouched.check()
    return error


@contextlib.contextmanager
def changed_kubeconfig(change: Any) -> Iterator[Path]:
    """Write a changed copy of $KUBECONFIG."""
    found = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    change(found)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config"
        path.write_text(yaml.safe_dump(found))
        yield path


# --- the API server ----------------------------------------------------------------------------------------------


@inside()
def test_api_server_down() -> None:
    from telehelper.errors import ApiServerUnavailable

    with tempfile.TemporaryDirectory() as directory:
        path = kubeconfig_for("https://127.0.0.1:9", Path(directory) / "config")
        refused(ApiServerUnavailable, "https://127.0.0.1:9", "refused", kubeconfig=path)


@inside()
def test_api_server_that_never_answers() -> None:
    from telehelper.errors import ConnectTimeout

    with silent_server() as path:
        refused(ConnectTimeout, "within 2 s", "'tunnel'", seconds=2 + WITHIN, kubeconfig=path, timeout=2.0)


@inside()
def test_api_server_with_an_untrusted_certificate() -> None:
    from telehelper.errors import ApiServerUnavailable

    def forget_authority(config: dict[str, Any]) -> None:
        del config["clusters"][0]["cluster"]["certificate-authority-data"]

    with changed_kubeconfig(forget_authority) as path:
        refused(ApiServerUnavailable, "certificate", kubeconfig=path)


@inside()
def test_refused_token() -> None:
    from telehelper.errors import CredentialsRefused

    def spoil(config: dict[str, Any]) -> None:
        config["users"][0]["user"]["token"] = "expired"

    with changed_kubeconfig(spoil) as path:
        refused(CredentialsRefused, "401", kubeconfig=path)


@inside()
def test_user_who_may_not_forward_ports() -> None:
    from telehelper.errors import CredentialsRefused

    viewer = Path(os.environ["KUBECONFIG"]).with_name("viewer.kubeconfig")
    refused(CredentialsRefused, "you may not forward ports", "pods/portforward", kubeconfig=viewer)
    refused(CredentialsRefused, "pods/portforward", kubeconfig=viewer, via="manager")
    refused(CredentialsRefused, "pods/portforward", kubeconfig=viewer, via="agentless")


# --- the manager -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def api_server_with(pods: list[dict[str, Any]]) -> Iterator[Path]:
    """Run an API server that knows the traffic manager's pods, and nothing else; gives a kubeconfig for it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, RUF100  # the base class's name
            found = self.path.partition("?")[0] == PODS
            body = json.dumps({"kind": "PodList", "items": pods} if found else {"message": "no"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        tempfile.TemporaryDirectory() as directory,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield kubeconfig_for(f"http://127.0.0.1:{server.server_port}", Path(directory) / "config")
        finally:
            server.shutdown()
            thread.join()


def manager_pod(*, ready: bool) -> dict[str, Any]:
    """Describe a traffic manager's pod."""
    ports = [{"name": "grpc", "containerPort": 8081}, {"name": "carrier", "containerPort": 8082}]
    return {
        "metadata": {"name": "manager-1"},
        "spec": {"containers": [{"name": "manager", "ports": ports}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


@inside()
def test_no_manager() -> None:
    from telehelper.errors import ManagerUnavailable

    with api_server_with([]) as path:
        refused(
            ManagerUnavailable,
            "no traffic manager",
            "'telemagic'",
            "%tele install",
            kubeconfig=path,
            via="manager",
        )


@inside()
def test_manager_that_is_not_ready() -> None:
    from telehelper.errors import ManagerUnavailable

    with api_server_with([manager_pod(ready=False)]) as path:
        refused(ManagerUnavailable, "telemagic/manager-1 is not ready", kubeconfig=path, via="manager")


@inside()
def test_manager_without_port_forward() -> None:
    from telehelper.errors import ManagerUnavailable

    with api_server_with([manager_pod(ready=True)]) as path:
        refused(ManagerUnavailable, "telemagic/manager-1 has just gone", kubeconfig=path, via="manager")


# --- this machine ------------------------------------------------------------------------------------------------


@inside()
def test_cidr_that_overlaps_a_route() -> None:
    from telehelper.errors import CidrConflict

    import telemagic

    with telemagic.connect() as tele:
        cidrs = [ip_network(row["cidr"]) for row in tele.status.to_dict()["cidrs"]]
    for wanted in cidrs:
        inner = str(next(wanted.subnets(prefixlen_diff=1)))
        route = ("ip", "route", "add", inner, "dev", "lo")
        subprocess.run(route, check=True)
        error = refused(CidrConflict, inner, "lo", "nothing was changed", "--never-proxy")
        assert error.data == {"wanted": str(wanted), "existing": inner, "device": "lo"}
        with telemagic.connect(never_proxy=[str(wanted)]):
            pass  # the hint is true
        subprocess.run([*route[:2], "del", *route[3:]], check=True)


@inside()
def test_no_tun_device() -> None:
    from telehelper.errors import HelperMissing

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
    refused(HelperMissing, "/dev/net/tun", "modprobe tun")


@inside()
def test_tun_device_that_is_none() -> None:
    from telehelper.errors import VifError

    subprocess.run(["mount", "--bind", "/dev/null", "/dev/net/tun"], check=True)
    refused(VifError, "/dev/net/tun")


def try_as(*command: str, path: str | None = None) -> Answer:
    """Connect in a Python started by `command`, which must fail."""
    code = f"""
import json, sys
code = {CONNECT!r}
try:
    for statement in code:
        exec(statement)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error), getattr(error, "hint", "")]))
"""
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    untouched = Untouched()
    began = time.monotonic()
    done = subprocess.run(
        [*command, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert time.monotonic() - began < WITHIN
    assert done.returncode == 0, done.stderr
    untouched.check()
    return Answer(None, *json.loads(done.stdout))


@inside()
def test_no_new_privs() -> None:
    answer = try_as(*ORDINARY, "setpriv", "--no-new-privs")
    answer.check_error("HelperMissing")
    assert "no_new_privs" in answer.message
    assert "telemagic demo shell" in answer.hint


@inside()
def test_no_sudo() -> None:
    import shutil

    unshare = shutil.which("unshare")
    assert unshare is not None
    answer = try_as(unshare, *ORDINARY[1:], path="/nonexistent")
    answer.check_error("HelperMissing")
    assert "no sudo" in answer.message


@inside()
def test_kubeconfig_of_somebody_else() -> None:
    with changed_kubeconfig(lambda _: None) as path:
        path.chmod(0)
        os.environ["KUBECONFIG"] = str(path)
        answer = try_as(*ORDINARY)
    answer.check_error("KubeconfigError")
    assert "Permission denied" in answer.message


# --- the kubeconfig ----------------------------------------------------------------------------------------------


@inside()
def test_kubeconfigs_that_are_none() -> None:
    from telehelper.errors import KubeconfigError

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config"
        refused(KubeconfigError, f"no kubeconfig at {path}", "--demo", kubeconfig=path)
        refused(KubeconfigError, "cannot be read", kubeconfig=directory)
        for text in ("clusters: [", "just words", "contexts: 7", "\x00", "apiVersion: v1\nkind: Config\n"):
            path.write_text(text)
            refused(KubeconfigError, str(path), kubeconfig=path)
        path.write_bytes(b"\xff\xfe\x00")
        refused(KubeconfigError, str(path), kubeconfig=path)


@inside()
def test_unknown_context() -> None:
    from telehelper.errors import KubeconfigError

    name = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["current-context"]
    error = refused(KubeconfigError, f"no context '{name}o'", name, context=f"{name}o")
    assert name in error.hint
    refused(KubeconfigError, "no context 'zzz'", name, context="zzz")


# --- options and states ------------------------------------------------------------------------------------------


@inside()
def test_options_that_make_no_sense() -> None:
    from telehelper.errors import UsageError

    for cidr, instead in (
        ("10.0.0.0/99", "10.1.0.0/16"),
        ("ten", "10.1.0.0/16"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("", "10.1.0.0/16"),
    ):
        refused(UsageError, repr(cidr), instead, never_proxy=[cidr])
        refused(UsageError, repr(cidr), also_proxy=[cidr])
    for timeout in (0.0, -1.0, float("inf"), float("nan")):
        refused(UsageError, "timeout", timeout=timeout)
    refused(UsageError, "'magic'", "resolvconf", dns="magic")


@inside()
def test_connect_twice_and_disconnect_twice() -> None:
    from telehelper.errors import AlreadyConnected, NotConnected

    import telemagic
    from telemagic.session import session

    untouched = Untouched()
    with pytest.raises(NotConnected) as not_yet:
        session().disconnect()
    check_form(not_yet.value)
    tele = telemagic.connect()
    assert telemagic.connect() is tele
    for options in (
        {"namespace": "kube-system"},
        {"never_proxy": ["10.0.0.0/8"]},
        {"dns": "none"},
        {"demo": True},
    ):
        with pytest.raises(AlreadyConnected) as caught:
            telemagic.connect(**options)  # type: ignore[arg-type]  # each fits its parameter
        check_form(caught.value)
        assert tele.status  # still there
    tele.disconnect()
    for again in (tele.disconnect, tele.flows, tele.routes, lambda: tele.status, session().disconnect):
        with pytest.raises(NotConnected) as over:
            again()
        check_form(over.value)
    untouched.check()


# --- the command line and the magic ------------------------------------------------------------------------------

WRONG_LINES: Final = {
    "conect": "did you mean 'connect'?",
    "connect --kontext x": "did you mean '--context'?",
    "connect --timeout soon": "--timeout",
    "connect --dns magic": "--dns",
    "connect postgres": "no argument 'postgres'",
    "flows --nonsense": "no flag '--nonsense'",
    "--verbose": "unknown flag",
    "connect --never-proxy ten": "'ten' is no CIDR",
}


@inside()
def test_wrong_command_lines() -> None:
    untouched = Untouched()
    for line, said in WRONG_LINES.items():
        command = [str(Path(sys.executable).with_name("telemagic")), *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)
        assert (done.returncode, done.stdout) == (2, ""), (line, done)
        what, remedy = done.stderr.splitlines()
        assert said in what, (line, what)
        assert remedy.startswith("  try: "), (line, remedy)
    for line in ("status", "disconnect", "flows", "connect --context zzz"):
        command = [str(Path(sys.executable).with_name("telemagic")), *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2), (line, done)
    untouched.check()


@inside()
def test_wrong_magic_lines() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    with tempfile.TemporaryDirectory() as directory:
        os.environ["IPYTHONDIR"] = directory
        shell = InteractiveShell.instance()
        shell.history_manager.enabled = False
        shell.run_line_magic("load_ext", "telemagic")
        for line, said in WRONG_LINES.items():
            error = shell.run_cell(f"%tele {line}").error_in_exec
            what, remedy = str(error).splitlines()
            assert type(error).__name__ == "UsageError"
            assert said in what, (line, what)
            assert remedy.startswith("  try: "), (line, remedy)
        for line, kind in (("status", "NotConnected"), ("connect --context zzz", "KubeconfigError")):
            error = shell.run_cell(f"%tele {line}").error_in_exec
            assert type(error).__name__ == kind
            assert len(error._render_traceback_()) == 2
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()
