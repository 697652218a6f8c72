"""A connection's secrets are nowhere but in the memory of who needs them: real connects, looked at from all sides.

Recognisable secrets are put in: a token, a client key, a password, that of a proxy, a login plugin's token. Then they are
searched for in all that is printed, drawn, written, logged and dumped, and in what /proc shows of every process, all the
time. The session's token of the traffic manager cannot be chosen: it is looked for by its shape. sudo's password is in
tests/netd_sudo.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import gc
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nbformat
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.e2e import inside
from tests.e2e.inside import helpers, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from telemagic.demo.client import Demo

PASSWORD: Final = "correct-horse-battery-staple"
PROXY_PASSWORD: Final = "another-horse-another-battery"
SESSION_TOKEN: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")  # manager.TOKEN_BYTES in hex
LOOK_EVERY: Final = 0.02  # seconds
NOTEBOOKS: Final = Path(__file__).parents[2] / "notebooks"
SPEAKING_LOUDLY: Final = """
from tests.e2e.test_secrets import connect_and_tell
connect_and_tell({folder!r})
"""
CELLS: Final = (
    "%load_ext telemagic",
    "tele = %tele connect",
    "tele",
    "%tele status",
    "%config TeleMagics",
    "%tele doctor",
    "%tele flows",
    "%%tele\nimport urllib.request\nurllib.request.urlopen('http://catalog.shop:8000/products', timeout=20).read()[:20]",
    "[vars(one) for one in get_ipython().configurables if 'Tele' in type(one).__name__]",
    "%config TeleMagics.short_errors = False\n%tele connect --context nowhere",
    "raise tele.last_error or RuntimeError('none')",
    "%tele disconnect",
)
PLUGIN: Final = """#!/bin/sh
sleep 0.5  # as one that asks somebody
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}' "$(cat TOKEN)"
"""


# --- what is looked for ------------------------------------------------------------------------------------------


def middle(text: str, length: int = 40) -> str:
    """A piece by which a secret is known, however it is wrapped."""
    return text[len(text) // 2 - length // 2 :][:length]


def key_of(folder: Path) -> str:
    """A client's key in PEM: made once, and kept where the kubeconfig is."""
    path = folder / "client.key"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path.read_text()


def token_of(kubeconfig: Path) -> str:
    """The secret of the kubeconfig's user."""
    (user,) = yaml.safe_load(kubeconfig.read_text())["users"]
    token = str(user["user"]["token"])
    assert len(token) >= 16, "short enough to be met by chance"
    return token


def needles(token: str, key: str) -> dict[str, bytes]:
    """What must be found nowhere, in each form that it takes."""
    body = key.splitlines()[1]
    basic = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    return {
        name: text.encode()
        for name, text in {
            "token": token,
            "client key": middle(body),
            "client key in a kubeconfig": middle(base64.b64encode(key.encode()).decode()),
            "password": PASSWORD,
            "password in a header": middle(basic),
            "proxy's password": PROXY_PASSWORD,
        }.items()
    }


def leaks(where: str, text: bytes, wanted: dict[str, bytes]) -> set[str]:
    found = {f"{name} in {where}" for name, secret in wanted.items() if secret in text}
    return found | ({f"a session's token in {where}"} if SESSION_TOKEN.search(text) else set())


# --- kubeconfigs -------------------------------------------------------------------------------------------------


def changed(source: Path, target: Path, *, proxy: str = "", **user: object) -> Path:
    document = yaml.safe_load(source.read_text())
    document["users"][0]["user"] = user
    if proxy:
        document["clusters"][0]["cluster"]["proxy-url"] = proxy
    target.write_text(yaml.safe_dump(document))
    return target


def write_kubeconfigs(source: Path, folder: Path) -> None:
    """Those whose secrets are looked for: one that works with a token and a key, a plugin, and some that fail."""
    token, key = token_of(source), key_of(folder)
    public = certificate_for(key)
    pair = {
        "client-certificate-data": base64.b64encode(public).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    changed(source, folder / "both", token=token, **pair)
    plugin = folder / "plugin"
    (folder / "plugins-token").write_text(token)
    plugin.write_text(PLUGIN.replace("TOKEN", str(folder / "plugins-token")))
    plugin.chmod(0o700)
    run_it = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    changed(source, folder / "exec", exec=run_it)
    changed(source, folder / "wrong", token=f"{token}-and-wrong", **pair)
    changed(source, folder / "basic", username="ada", password=PASSWORD)
    changed(source, folder / "broken-key", **{**pair, "client-key-data": pair["client-key-data"][:-8]})
    changed(source, folder / "proxy", token=token, proxy=f"http://ada:{PROXY_PASSWORD}@127.0.0.1:9")
    changed(source, folder / "socks", token=token, proxy=f"socks5://ada:{PROXY_PASSWORD}@127.0.0.1:9")


def certificate_for(key: str) -> bytes:
    """A certificate for a key, which the API server has never heard of: it asks for none."""
    private = load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ada")])
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number(), now, until)
    return made.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


# --- inside the sandbox ------------------------------------------------------------------------------------------


def shown(error: BaseException) -> str:
    """A traceback as the chattiest tools show it: with all local variables."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(error) + repr(vars(error))


def ours() -> Iterator[str]:
    """Every object of ours in this process, as a debugger or `%whos` shows it."""
    for one in gc.get_objects():
        if str(type(one).__module__).partition(".")[0] in ("telemagic", "telehelper"):
            yield repr(one)


def logs() -> Iterator[bytes]:
    """The logs of what this process has started, which have no name in the file system."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if re.match(r"/memfd:|.* \(deleted\)$", os.readlink(link)):
                yield link.read_bytes()


def connect_and_tell(folder: str) -> None:
    """Connect by one kubeconfig after the other, and print everything there is to be seen of it."""
    from telehelper.errors import TelemagicError

    import telemagic
    from telemagic.session import session

    here = Path(folder)
    os.chdir(here / "cwd")
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name in ("both", "exec"):
        with telemagic.connect(kubeconfig=str(here / name)) as tele:
            import urllib.request

            urllib.request.urlopen(telemagic.url("http://catalog.shop/products"), timeout=20).read()
            frames: list[Any] = [tele.flows(), tele.routes(), tele.services(), tele.pods(), tele.events()]
            for frame in frames:
                print(frame.to_csv(), frame.attrs)  # noqa: T201
            status = tele.status
            for thing in (
                tele,
                vars(tele),
                status,
                status.to_dict(),
                vars(session()),
                status._repr_mimebundle_(),
            ):
                print(repr(thing))  # noqa: T201
            print(*ours(), *logs(), sep="\n")  # noqa: T201
            if name == "exec":
                abort_helpers()
    print("--- failing")  # noqa: T201
    failing: list[dict[str, Any]] = [
        {"context": "nowhere"},
        {"via": "manager", "manager_namespace": "nowhere"},
    ]
    failing += [
        {"kubeconfig": str(here / name)} for name in ("wrong", "basic", "broken-key", "proxy", "socks")
    ]
    for options in failing:
        try:
            telemagic.connect(timeout=20, **options)
        except TelemagicError as error:
            print(shown(error))  # noqa: T201
        else:
            raise AssertionError(f"{options} works")
        print(*logs(), sep="\n")  # noqa: T201


def abort_helpers() -> None:
    """Have the processes that know secrets, or run as root, crash, as with a bug in a C library; note their limits."""
    pids = helpers()
    limits = [line for pid in pids for line in Path(f"/proc/{pid}/limits").read_text().splitlines()]
    Path("../core-limits").write_text("\n".join(line for line in limits if "core file" in line))
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    crashing = [pid for pid in pids if parents[pid] not in pids]  # their children tidy up after them
    assert len(crashing) == 2, parents
    for pid in crashing:
        with contextlib.suppress(ProcessLookupError):  # the other one's end was its end
            os.kill(pid, signal.SIGABRT)
    assert wait_until(lambda: not helpers())


# --- from outside ------------------------------------------------------------------------------------------------


def started(process: Path) -> int:
    """When a process began, in ticks since the machine did (proc_pid_stat(5))."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[19])


class Onlooker(threading.Thread):
    """Looks at what all processes that are younger than the tests show of themselves, all the time."""

    def __init__(self, wanted: dict[str, bytes]) -> None:
        super().__init__()
        self.leaks: set[str] = set()
        self.programs: set[bytes] = set()
        self.looks = 0
        self._wanted = wanted
        self._over = threading.Event()
        self._since = started(Path("/proc/self"))

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):  # it has gone
                    if started(process) >= self._since:
                        self._look(process)

    def _look(self, process: Path) -> None:
        command = (process / "cmdline").read_bytes()
        self.programs.add(command)
        what = command.replace(b"\0", b" ")[:100].decode(errors="replace")
        for name in ("cmdline", "environ", "comm"):
            self.leaks |= leaks(f"{name} of {what}", (process / name).read_bytes(), self._wanted)

    def stop(self) -> None:
        self._over.set()
        self.join()


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for everything that is written: home, temporary files, the working directory, defaults."""
    with tempfile.TemporaryDirectory(prefix="tele-") as made:  # short: Unix sockets are made in it
        here = Path(made)
        for name in ("h", "t", "cwd", "secret"):
            (here / name).mkdir()
        monkeypatch.setenv("HOME", str(here / "h"))
        monkeypatch.setenv("TMPDIR", str(here / "t"))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "IPYTHONDIR"):
            monkeypatch.setenv(name, str(here / "h" / name.lower()))
        yield here


@pytest.mark.netns
def test_a_kubeconfigs_secrets_are_shown_nowhere(cluster: Demo, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    write_kubeconfigs(Path(cluster.kubeconfig), tmp_path)
    wanted = needles(token_of(Path(cluster.kubeconfig)), key_of(tmp_path))
    onlooker = Onlooker(wanted)
    onlooker.start()
    try:
        printed = inside.run(cluster, SPEAKING_LOUDLY.format(folder=str(tmp_path)), timeout=240)
    finally:
        onlooker.stop()
    commands = b"\n".join(onlooker.programs)
    for part in (b"telehelper.netd", b"telehelper.datapath", b"telehelper.manager", b"plugin"):
        assert part in commands, "it was looked at while all of them ran"
    assert onlooker.looks > 50
    assert onlooker.leaks == set()
    assert "catalog" in printed
    works, failing = printed.split("--- failing")
    assert failing.count("Traceback") >= 7
    assert "ConnectOptions(" in works, "objects of ours were shown"
    assert leaks("what was printed", printed.encode(), wanted) == set()
    assert list((tmp_path / "cwd").iterdir()) == [], "no core file, and nothing else"
    limits = (tmp_path / "core-limits").read_text().splitlines()
    assert len(limits) >= 2
    assert {tuple(line.split()[-3:-1]) for line in limits} == {("0", "0")}


@pytest.mark.netns
def test_nothing_is_in_a_notebook_a_log_or_a_file(cluster: Demo, folder: Path) -> None:
    """A notebook that shows everything, its HTML, and all files that anybody has written meanwhile."""
    secret = folder / "secret"
    write_kubeconfigs(Path(cluster.kubeconfig), secret)
    wanted = needles(token_of(Path(cluster.kubeconfig)), key_of(secret))
    source, saved = folder / "loud.ipynb", folder / "saved.ipynb"
    notebook = nbformat.v4.new_notebook()
    for text in CELLS:
        cell = nbformat.v4.new_code_cell(text)
        cell.metadata["tags"] = ["raises-exception"]
        notebook.cells.append(cell)
    nbformat.write(notebook, source)
    command = [sys.executable, str(NOTEBOOKS / "run.py"), "--save", str(saved), str(source)]
    code = "import os, subprocess, sys\n"
    code += f"os.environ['KUBECONFIG'] = {str(secret / 'both')!r}\n"
    code += f"os.chdir({str(folder / 'cwd')!r})\n"
    code += f"done = subprocess.run({command!r}, capture_output=True, text=True)\n"
    code += "print(done.stdout, done.stderr); sys.exit(done.returncode)"
    onlooker = Onlooker(wanted)
    onlooker.start()
    try:
        printed = inside.run(cluster, code, timeout=240)
    finally:
        onlooker.stop()
    html = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--stdout", str(saved)],
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout
    for told in ("Connected to", "short_errors", "Doctor", "catalog.shop", "nowhere"):
        assert told in printed, f"{told}: it was shown\n{printed}"
    assert b"catalog.shop" in html
    found = leaks("what was printed", printed.encode(), wanted) | leaks("the HTML", html, wanted)
    known = {
        Path(cluster.kubeconfig),
        cluster.viewer_kubeconfig,
        cluster.namespaced_kubeconfig,
        cluster.token_file,
    }
    looked = 0
    for path in files(folder, cluster.directory):
        if secret not in path.parents and path not in known:
            looked += 1
            found |= leaks(str(path), path.read_bytes(), wanted)
    assert found | onlooker.leaks == set()
    assert looked >= 3, "two notebooks and the cluster's log"


def test_the_search_finds_what_it_searches_for(tmp_path: Path) -> None:
    """Each secret in each of its forms; else all that was said above would say nothing."""
    key = key_of(tmp_path)
    wanted = needles("a-token-that-is-long-enough", key)
    header = f"Authorization: Basic {base64.b64encode(f'ada:{PASSWORD}'.encode()).decode()}"
    for text in (
        "Bearer a-token-that-is-long-enough",
        key,
        repr(key),
        base64.b64encode(key.encode()).decode(),
        header,
        PASSWORD,
        f"http://ada:{PROXY_PASSWORD}@proxy",
        f"token: {secrets.token_hex(32)}",
    ):
        assert leaks("there", text.encode(), wanted), text
    assert leaks("there", b"nothing of it" + secrets.token_hex(31).encode(), wanted) == set()


def test_an_onlooker_sees_a_process_that_is_over_soon(tmp_path: Path) -> None:
    onlooker = Onlooker({"word": b"a-word-on-a-command-line"})
    onlooker.start()
    subprocess.run(
        ["sleep", "0.3"], env={"PATH": os.environ["PATH"], "WORD": "a-word-on-a-command-line"}, check=True
    )
    onlooker.stop()
    assert any("environ of sleep" in leak for leak in onlooker.leaks)
