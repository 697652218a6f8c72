"""What can be wrong between a notebook and the API server, on the whole chain: one clear error each, soon, and nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.e2e.inside import Untouched, inside, wait_until
from tests.e2e.kernels import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

SOON: Final = 10.0  # seconds for a fault to be told, of which connecting itself takes one or two
FORWARD: Final = {"verb": "get", "resource": "pods/portforward"}


@contextlib.contextmanager
def broken(demo: Demo, fault: str, **options: str) -> Iterator[None]:
    demo.fault(fault, **options)
    try:
        yield
    finally:
        demo.fault("clear")


def refusal(kind: str, *words: str, kubeconfig: Path | None = None, **options: Any) -> None:
    """Connecting fails soon, with an error of this kind that has these words and a hint, in one line each."""
    from telehelper.errors import TelemagicError

    import telemagic

    began = time.monotonic()
    with pytest.raises(TelemagicError) as caught:
        telemagic.connect(kubeconfig=kubeconfig, via="manager", **options)
    assert time.monotonic() - began < SOON
    error = caught.value
    assert type(error).__name__ == kind, repr(error)
    assert all(word in error.message for word in words), error.message
    assert "\n" not in error.message + error.hint
    assert len(error.message) < 400
    assert error.hint, error


@inside(timeout=90)
def test_what_the_api_server_does_wrong() -> None:
    import telemagic
    from telemagic.demo import client

    untouched = Untouched()
    with client.find() as demo:
        break_it(demo)
    untouched.check()
    with telemagic.connect() as tele:  # and nothing of it lasts
        assert tele.status.state == "connected"
    untouched.check()


def break_it(demo: Demo) -> None:
    """Connect under each of its faults."""
    with broken(demo, "api-html"):
        refusal("ApiServerUnavailable", "a proxy or login page answers instead", "'Sign in to the network'")
    with broken(demo, "api-truncated"):
        refusal("ApiServerUnavailable", "truncated JSON")
    with broken(demo, "websocket-refused"):
        refusal("ApiServerUnavailable", "does not do the WebSocket", "502")
    with broken(demo, "token-expired"):
        refusal("CredentialsRefused", "(401)")
    with broken(demo, "forbid", **FORWARD):
        refusal("CredentialsRefused", "you lack get on pods/portforward", "'telemagic'")
    with broken(demo, "forbid", verb="list", resource="pods"):
        refusal("CredentialsRefused", "may not list pods in namespace 'telemagic'", "cannot be found")
    with broken(demo, "api-stop"):
        refusal("ApiServerUnavailable", "Connection refused")


@inside(timeout=90)
def test_what_is_frozen_for_a_moment_goes_on_and_nothing_is_lost() -> None:
    import socket

    import telemagic
    from telemagic.demo import client

    untouched = Untouched()
    with client.find() as demo:
        with telemagic.connect() as tele, socket.create_connection(("tally.shop", 7000), timeout=15) as sock:
            tally = sock.getpeername()[:2]
            for fault in ("carriers-frozen", "manager-frozen"):
                with broken(demo, fault):
                    sock.sendall(b"some bytes")
                    with pytest.raises(TimeoutError):
                        socket.create_connection(tally, timeout=0.5)
                socket.create_connection(tally, timeout=SOON).close()
            sock.shutdown(socket.SHUT_WR)
            assert b'"count": 20' in sock.recv(1000)
            assert (tele.status.state, tele.status.last_error) == ("connected", "")
        with broken(demo, "carriers-frozen"):  # and connecting does not hang
            refusal("ConnectTimeout", "2 s", timeout=2)
    untouched.check()


# --- credentials ---------------------------------------------------------------------------------------------------


def with_plugin(folder: Path, script: str, **fields: Any) -> Path:
    """Write a kubeconfig that logs in by a script."""
    doc = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "IfAvailable",
        **fields,
    }
    for user in doc["users"]:
        user["user"] = {"exec": plugin}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(doc))
    return path


PRINT_TOKEN: Final = """
import datetime, json
open({count!r}, "a").write("x")
until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds={life})
status = {{"token": open({token!r}).read().strip(), "expirationTimestamp": until.strftime("%Y-%m-%dT%H:%M:%SZ")}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


@inside(timeout=90)
def test_login_plugins_that_fail() -> None:
    untouched = Untouched()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fails = "import sys; print('SSO session has expired', file=sys.stderr); sys.exit(255)"
        refusal(
            "CredentialsRefused",
            "failed with status 255: SSO session has expired",
            kubeconfig=with_plugin(folder, fails),
        )
        missing = with_plugin(folder, "", command="no-such-login", installHint="see example.com")
        refusal("CredentialsRefused", "'no-such-login'", "not installed", kubeconfig=missing)
        refusal(
            "KubeconfigError",
            "wants a terminal",
            kubeconfig=with_plugin(folder, "", interactiveMode="Always"),
        )
    untouched.check()


@inside(timeout=90)
def test_a_login_plugin_that_hangs_does_not_outlive_an_interrupt() -> None:
    untouched = Untouched()
    with tempfile.TemporaryDirectory() as name, Kernel() as kernel:
        pid_file = Path(name) / "pid"
        script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
        path = with_plugin(Path(name), script)
        kernel.start("import telemagic", f"telemagic.connect(kubeconfig={str(path)!r})")
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text(), 15)
        os.killpg(kernel.pid, signal.SIGINT)
        assert kernel.answer(10).error == "KeyboardInterrupt"
        pid = int(pid_file.read_text())
        assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
        untouched.check()


@inside(timeout=120)
def test_a_token_that_expires_is_renewed_under_open_flows() -> None:
    import socket

    import telemagic
    from telemagic.demo import client

    untouched = Untouched()
    with client.find() as demo, tempfile.TemporaryDirectory() as name:
        count = Path(name) / "count"
        script = PRINT_TOKEN.format(count=str(count), life=3600, token=str(demo.token_file))
        path = with_plugin(Path(name), script)
        with telemagic.connect(kubeconfig=path) as tele:
            assert count.read_text() == "x"  # for all the requests of a connect
            with socket.create_connection(("tally.shop", 7000), timeout=15) as sock:
                sock.sendall(b"before")
                demo.fault("token-expired")
                demo.renew_token()
                sock.sendall(b"after")
                sock.shutdown(socket.SHUT_WR)
                assert b'"count": 11' in sock.recv(1000)
            assert len(tele.pods()) > 1  # asks the API server
            assert count.read_text() == "xx"
        demo.fault("clear")
    untouched.check()
