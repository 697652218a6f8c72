"""Names in the kernel process: the hook on a scripted resolver, the DNS client on a real socket, and bypasses."""

from __future__ import annotations

import _socket
import asyncio
import os
import socket
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from telehelper.messages import Status

from telemagic import names
from telemagic.names import ask as asking
from telemagic.names import bypass, glibc, hook
from telemagic.names.ask import Found, ask
from telemagic.names.bypass import Fixes
from telemagic.names.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DOMAINS = ("shop.svc.cluster.local", "cluster.local", "~svc", "~shop", "~dev")
KNOWN = {"postgres.shop": ("fd12::9", "198.18.0.9"), "postgres": ("198.18.0.9",), "v6.shop": ("fd12::9",)}
NXDOMAIN, SERVFAIL = 3, 2


class Resolver:
    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.error: Exception | None = None
        self.rcode = NXDOMAIN

    def __call__(self, server: str, device: str, name: str, rtypes: tuple[int, ...]) -> Found:
        assert (server, device) == ("198.19.240.1", "tele0")
        self.asked.append((name, rtypes))
        if self.error is not None:
            raise self.error
        if name not in KNOWN:
            return Found((), self.rcode)
        wanted = {1: ".", 28: ":"}
        return Found(tuple(a for a in KNOWN[name] if any(wanted[t] in a for t in rtypes)), 0)


class Original:
    """What was there before: answers one address to names, and leaves addresses to the C library."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.real = _socket.getaddrinfo

    def __call__(self, host: object, *rest: object) -> list[tuple[object, ...]]:
        if isinstance(host, str) and (":" in host or host.replace(".", "").isdigit()):
            return self.real(host, *rest)  # type: ignore[arg-type, return-value]  # as given
        self.asked.append(host)
        return [(2, 1, 6, "", ("203.0.113.1", 80))]


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Original:
    made = Original()
    monkeypatch.setattr(_socket, "getaddrinfo", made)
    return made


@pytest.fixture
def resolver() -> Resolver:
    return Resolver()


@pytest.fixture
def hooked(original: Original, resolver: Resolver) -> Iterator[Hook]:
    made = Hook("198.19.240.1", "tele0", DOMAINS, resolver)
    made.install()
    yield made
    made.remove()
    assert _socket.getaddrinfo is original


def addresses(host: str, family: int = 0) -> list[str]:
    return [str(item[4][0]) for item in socket.getaddrinfo(host, 80, family, socket.SOCK_STREAM)]


# --- the hook ----------------------------------------------------------------------------------------------------


def test_names_of_the_cluster_are_asked_of_us(hooked: Hook, resolver: Resolver, original: Original) -> None:
    assert addresses("Postgres.shop") == ["fd12::9", "198.18.0.9"]
    assert addresses("postgres.shop.", socket.AF_INET) == ["198.18.0.9"]
    assert addresses("postgres.shop", socket.AF_INET6) == ["fd12::9"]
    assert resolver.asked == [("postgres.shop", (28, 1)), ("postgres.shop", (1,)), ("postgres.shop", (28,))]
    assert socket.gethostbyname("postgres") == "198.18.0.9"
    assert socket.gethostbyname_ex("postgres.shop") == ("postgres.shop", [], ["198.18.0.9"])
    assert socket.getaddrinfo(b"postgres", "http", proto=6)[0][4] == ("198.18.0.9", 80)
    (first, *_) = socket.getaddrinfo("postgres", 80, flags=socket.AI_CANONNAME)
    assert first[3] == "postgres"
    assert original.asked == []


def test_asyncio_asks_us_too(hooked: Hook, resolver: Resolver) -> None:
    async def look() -> object:
        return await asyncio.get_running_loop().getaddrinfo("postgres", 80, type=socket.SOCK_STREAM)

    assert asyncio.run(look()) == [(2, 1, 6, "", ("198.18.0.9", 80))]
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    "name",
    [
        "www.example.com",
        "foo.devx",
        "shop.com",
        "cluster.local.example.com",
        "localhost",
        "a.localhost",
        "grüße",
    ],
)
def test_all_other_names_go_where_they_went(
    hooked: Hook, resolver: Resolver, original: Original, name: str
) -> None:
    assert addresses(name) == ["203.0.113.1"]
    assert original.asked == [name]
    assert resolver.asked == []


def test_addresses_and_what_this_machine_knows_by_itself(
    hooked: Hook, resolver: Resolver, original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.1 build.dev build  # cache.shop\n")
    monkeypatch.setattr(hook, "HOSTS", hosts)
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    for name in ("build", "build.dev", "laptop", "127.0.0.1", "127.1", "::1", "fe80::1%lo"):
        assert hooked.is_ours(name) == "", name
    for name in ("cache.shop", "postgres", "a.svc", "x.y.cluster.local"):
        assert hooked.is_ours(name) == name
    assert hooked.is_ours(None) == hooked.is_ours("") == hooked.is_ours(7) == ""
    monkeypatch.setattr(hook, "HOSTS", tmp_path / "none")
    assert hooked.is_ours("build") == "build"
    socket.getaddrinfo("postgres.shop", 80, flags=socket.AI_NUMERICHOST)
    assert resolver.asked == []


def test_no_such_name_no_such_address_and_nobody_knows(hooked: Hook, resolver: Resolver) -> None:
    with pytest.raises(socket.gaierror) as caught:
        addresses("nosuch.shop")
    assert caught.value.errno == socket.EAI_NONAME
    with pytest.raises(socket.gaierror) as caught:
        addresses("v6.shop", socket.AF_INET)
    assert caught.value.errno == socket.EAI_NONAME
    resolver.rcode = SERVFAIL
    with pytest.raises(socket.gaierror) as caught:
        socket.gethostbyname("nosuch.shop")
    assert caught.value.errno == socket.EAI_AGAIN
    resolver.error = ValueError("too long")
    with pytest.raises(socket.gaierror):
        addresses(f"{'x' * 70}.shop")


def test_a_name_without_a_dot_that_the_cluster_has_not_is_the_machines(
    hooked: Hook, original: Original
) -> None:
    assert addresses("wiki") == ["203.0.113.1"]
    assert original.asked == ["wiki"]


def test_when_the_interface_is_gone_names_are_looked_up_as_before(
    hooked: Hook, resolver: Resolver, original: Original
) -> None:
    resolver.error = OSError(19, "No such device")
    assert addresses("postgres.shop") == ["203.0.113.1"]


def test_a_resolver_that_is_silent_sends_our_names_to_nobody_else(
    hooked: Hook, resolver: Resolver, original: Original
) -> None:
    for error in (TimeoutError(), OSError(111, "Connection refused")):
        resolver.error = error
        with pytest.raises(socket.gaierror) as caught:
            addresses("postgres.dev")
        assert caught.value.errno == socket.EAI_AGAIN
    assert original.asked == []


def test_installed_twice_and_removed_twice(hooked: Hook, resolver: Resolver) -> None:
    hooked.install()
    assert addresses("postgres") == ["198.18.0.9"]
    hooked.remove()
    hooked.remove()
    assert addresses("postgres") == ["203.0.113.1"]


def test_names_resolve_at_each_step_of_the_removal(hooked: Hook, original: Original) -> None:
    """Another thread may ask at any moment: each line of the removal is such a one."""
    lines: list[int] = []

    def ask_now(frame: types.FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is not Hook.remove.__code__:
            return None
        assert socket.getaddrinfo("postgres.shop", 80)
        assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
        lines.append(frame.f_lineno)
        return ask_now

    before = sys.gettrace()
    sys.settrace(ask_now)
    try:
        hooked.remove()
    finally:
        sys.settrace(before)
    assert len(lines) > len(set(lines)) > 5
    assert _socket.getaddrinfo is original


def test_what_somebody_put_over_ours_stays_and_works(
    original: Original, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Hook("198.19.240.1", "tele0", DOMAINS, resolver)
    made.install()
    ours = _socket.getaddrinfo
    theirs = lambda *what: ours(*what)  # noqa: E731
    monkeypatch.setattr(_socket, "getaddrinfo", theirs)
    made.remove()
    assert _socket.getaddrinfo is theirs
    assert addresses("postgres.shop") == ["203.0.113.1"]  # through ours, which is nobody's any more
    monkeypatch.setattr(_socket, "getaddrinfo", original)


def test_a_forked_child_has_it_too(hooked: Hook) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, ",".join(addresses("postgres")).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"198.18.0.9"
    os.close(reading)
    os.close(writing)


# --- asking by DNS -----------------------------------------------------------------------------------------------


class Server:
    """A nameserver on 127.0.0.1, over UDP and TCP, that does as the name says."""

    def __init__(self) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.seen = 0
        self.threads = [
            threading.Thread(target=serve, daemon=True) for serve in (self.serve_udp, self.serve_tcp)
        ]
        for thread in self.threads:
            thread.start()

    def answer(self, data: bytes, address: str) -> dns.message.Message:
        query = dns.message.from_wire(data)
        made = dns.message.make_response(query)
        name = query.question[0].name.to_text()
        if query.question[0].rdtype == 1 and not name.startswith("no"):
            made.answer = [dns.rrset.from_text(name, 5, "IN", "A", address)]
        if name.startswith("no"):
            made.set_rcode(dns.rcode.NXDOMAIN)
        if name.startswith("big"):
            made.flags |= dns.flags.TC
        return made

    def serve_udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(4096)
            if client[1] == self.port:
                return
            self.seen += 1
            if b"lost" in data and self.seen == 1:
                continue
            if b"mute" in data:
                continue
            wire = self.answer(data, "198.18.0.1").to_wire()
            if b"liar" in data:
                self.udp.sendto(b"junk", client)
                self.udp.sendto(bytes([wire[0] ^ 1]) + wire[1:], client)
            self.udp.sendto(wire, client)

    def serve_tcp(self) -> None:
        while True:
            connection, _ = self.tcp.accept()
            with connection:
                data = connection.recv(4096)
                if not data:
                    return
                if b"half" in data:
                    continue
                made = self.answer(data[2:], "198.18.0.2")
                made.flags &= ~dns.flags.TC
                wire = made.to_wire()
                connection.sendall(len(wire).to_bytes(2, "big") + wire)

    def close(self) -> None:
        self.udp.sendto(b"", ("127.0.0.1", self.port))
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self.threads:
            thread.join(10)  # nobody may be reading a socket that is closed
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(asking, "DNS_PORT", made.port)
    yield made
    made.close()


def test_both_families_in_one_go(server: Server) -> None:
    assert ask("127.0.0.1", "lo", "postgres.shop", (28, 1)) == Found(("198.18.0.1",), 0)
    assert ask("127.0.0.1", "lo", "nosuch.shop", (28, 1)) == Found((), 3)
    assert ask("127.0.0.1", "lo", "liar.shop", (1,)) == Found(("198.18.0.1",), 0)


def test_a_long_answer_comes_over_tcp_or_as_it_is(server: Server) -> None:
    assert ask("127.0.0.1", "lo", "big.shop", (1,)) == Found(("198.18.0.2",), 0)
    assert ask("127.0.0.1", "lo", "bighalf.shop", (1,)) == Found(("198.18.0.1",), 0)


def test_a_lost_question_is_sent_again_and_silence_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "RESEND", 0.05)
    monkeypatch.setattr(asking, "PATIENCE", 0.2)
    assert ask("127.0.0.1", "lo", "lost.shop", (1,)) == Found(("198.18.0.1",), 0)
    with pytest.raises(TimeoutError):
        ask("127.0.0.1", "lo", "mute.shop", (1,))


def test_an_interface_that_is_gone_is_no_way_out() -> None:
    with pytest.raises(OSError, match="No such device"):
        ask("127.0.0.1", "tele999", "postgres.shop", (1,))


@pytest.mark.parametrize("name", ["", ".", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        ask("127.0.0.1", "lo", name, (1,))


# --- glibc -------------------------------------------------------------------------------------------------------


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glibc, "_glibc", lambda: None)
    resolver = glibc.ThreadResolver("198.19.240.1")
    assert not resolver.point()
    resolver.restore()


def test_this_thread_is_pointed_and_put_back() -> None:
    resolver = glibc.ThreadResolver("198.19.240.1")
    assert resolver.point()
    library = glibc._glibc()
    assert library is not None
    state = library.res_state()
    assert bytes((glibc.ctypes.c_char * 4).from_address(state + 24)) == socket.inet_aton("198.19.240.1")
    resolver.restore()
    assert bytes((glibc.ctypes.c_char * 4).from_address(library.res_state() + 24)) != socket.inet_aton(
        "198.19.240.1"
    )


def test_another_thread_puts_the_main_one_back() -> None:
    resolver = glibc.ThreadResolver("198.19.240.1")
    library = glibc._glibc()
    assert library is not None
    library.res_init()
    state = library.res_state()
    before = glibc.ctypes.string_at(state + 16, 20)  # how many servers, and the first
    assert resolver.point()
    assert glibc.ctypes.string_at(state + 16, 20) != before
    thread = threading.Thread(target=resolver.restore)
    thread.start()
    thread.join()
    assert glibc.ctypes.string_at(state + 16, 20) == before
    resolver.restore()  # again does nothing


# --- what bypasses the operating system --------------------------------------------------------------------------


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have none of the libraries loaded."""
    for name in list(sys.modules):
        if name.partition(".")[0] in (
            "grpc",
            "pycares",
            "aiodns",
            "jpype",
            "pyspark",
            "py4j",
            "uvloop",
            "pyarrow",
            "pycurl",
        ):
            monkeypatch.delitem(sys.modules, name)
    for name in ("dns.resolver", "dns.asyncresolver"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv(bypass.GRPC_RESOLVER, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.mark.usefixtures("clean")
def test_grpc_loaded_later_uses_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    fixes = Fixes("resolved", "198.19.240.1")
    fixes.apply()
    assert os.environ[bypass.GRPC_RESOLVER] == "native"
    assert fixes.bypasses() == []
    load(monkeypatch, "grpc", "grpc._cython.cygrpc")
    assert [(b.library, b.state, b.remedy) for b in fixes.bypasses()] == [("grpc", "fixed", "")]
    fixes.undo()
    assert bypass.GRPC_RESOLVER not in os.environ


@pytest.mark.usefixtures("clean")
def test_grpc_loaded_before_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, "grpc", "grpc._cython.cygrpc")
    fixes = Fixes("resolvconf", "198.19.240.1")
    fixes.apply()
    assert bypass.GRPC_RESOLVER not in os.environ
    (found,) = fixes.bypasses()
    assert (found.state, "restart the kernel" in found.remedy) == ("open", True)


@pytest.mark.usefixtures("clean")
def test_the_users_own_choice_for_grpc_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bypass.GRPC_RESOLVER, "ares")
    fixes = Fixes("resolved", "198.19.240.1")
    fixes.apply()
    fixes.undo()
    assert os.environ[bypass.GRPC_RESOLVER] == "ares"


@pytest.mark.parametrize("mechanism", ["kernel", "resolved"])
def test_a_machine_without_nameservers_is_no_reason_not_to_connect(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:  # as dnspython does where resolv.conf names none
        raise dns.resolver.NoResolverConfiguration

    former = dns.resolver.Resolver(configure=False)
    monkeypatch.setattr(dns.resolver, "default_resolver", former)
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", refuse)
    fixes = Fixes(mechanism, "198.19.240.1")
    fixes.apply()
    changed = dns.resolver.default_resolver
    assert changed is None or changed.nameservers == ["198.19.240.1"]
    assert (changed is None) is (mechanism == "resolved")  # None: read again when it is needed
    fixes.undo()
    assert dns.resolver.default_resolver is former


def test_dnspythons_default_resolver_asks_us_and_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    former = dns.resolver.Resolver(configure=False)
    former.nameservers = ["10.0.0.1"]
    monkeypatch.setattr(dns.resolver, "default_resolver", former)
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", None)
    fixes = Fixes("kernel", "198.19.240.1")
    fixes.apply()
    for module in (dns.resolver, dns.asyncresolver):
        assert module.default_resolver is not None
        assert module.default_resolver.nameservers == ["198.19.240.1"]
    assert [b.state for b in fixes.bypasses() if b.library == "dnspython"] == ["fixed"]
    fixes.undo()
    assert dns.resolver.default_resolver is former
    assert dns.asyncresolver.default_resolver is None


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("mechanism", ["resolved", "kernel"])
def test_others_are_found_with_a_remedy(monkeypatch: pytest.MonkeyPatch, mechanism: str) -> None:
    load(monkeypatch, "pycares", "jpype", "uvloop", "dns.resolver", "grpc._cython.cygrpc")
    found = {b.library: b for b in Fixes(mechanism, "198.19.240.1").bypasses()}
    assert {"pycares", "jpype", "dnspython", "grpc"} <= set(found)
    assert ("uvloop" in found) is (mechanism == "kernel")
    assert all(b.remedy for b in found.values() if b.state == "open")


# --- a connection ------------------------------------------------------------------------------------------------


def status(mechanism: str, server: str = "198.19.240.1") -> Status:
    return Status(
        "connected", "c", "shop", "https://x", "manager", "m", "1", "tele0", "198.19.240.0", mechanism, server,
        "cluster.local", 0.0, 0.0, 1, 0, 0, 0, 0, domains=DOMAINS,
    )  # fmt: skip


@pytest.mark.parametrize(("mechanism", "hooks"), [("kernel", True), ("resolved", False), ("none", False)])
def test_the_hook_is_there_only_when_the_machine_is_untouched(mechanism: str, hooks: bool) -> None:
    before: Callable[..., object] = _socket.getaddrinfo
    names.connected(status(mechanism))
    names.connected(status(mechanism))
    assert (_socket.getaddrinfo is not before) is hooks
    names.disconnected()
    names.disconnected()
    assert _socket.getaddrinfo is before
    assert names.bypasses() == []
