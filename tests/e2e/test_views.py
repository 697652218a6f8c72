"""Services, pods, names and connects of a real connection, and the doctor on each fault."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from telehelper.errors import CredentialsRefused, UsageError

from tests.e2e.inside import Untouched, inside

if TYPE_CHECKING:
    from telemagic.doctor.diagnosis import Diagnosis


@inside()
def test_looking_around() -> None:
    import telemagic

    untouched = Untouched()
    with telemagic.connect() as tele:
        services = tele.services(everywhere=True).set_index("dns_name")
        assert {"postgres.shop", "catalog.shop", "kube-dns.kube-system"} <= set(services.index)
        assert services.url["postgres.shop"] == "postgresql://postgres.shop:5432"
        assert (services.ready["postgres.shop"], services.endpoints["postgres.shop"]) == (1, 1)
        assert services.type["catalog-pods.shop"] == "Headless"
        assert set(tele.services().namespace) == {"shop"}
        pods = tele.pods(everywhere=True)
        assert {"shop", "kube-system"} <= set(pods.namespace)
        assert set(pods.ready) == {"1/1"}
        postgres = pods[pods.name.str.startswith("postgres")].iloc[0]
        assert postgres.owner.startswith("ReplicaSet/postgres-")

        check_lookups(tele, services.cluster_ip["postgres.shop"])
        check_pings(tele, postgres)
        assert telemagic.url("postgres.shop") == "postgres.shop:5432"
        host, port = telemagic.url("tally.shop").split(":")
        socket.create_connection((host, int(port)), timeout=10).close()
        with pytest.raises(UsageError) as caught:
            telemagic.url("postgrs.shop")
        assert caught.value.hint == "did you mean postgres.shop?"
        with pytest.raises(UsageError, match="no namespace 'shp'"):
            tele.services("shp")
    untouched.check()


def check_lookups(tele: Any, address: str) -> None:
    first, again = tele.resolve("postgres.shop").iloc[0], tele.resolve("postgres").iloc[0]
    assert (first.answer, first.answered_by, again.answered_by) == (address, "cluster", "cache")
    assert first.asked == again.asked == "postgres.shop.svc.cluster.local"
    assert bool(first.system) is bool(again.system) is True
    missing = tele.resolve("postgrs.shop")
    assert missing.note[0] == "no such service in namespace shop: postgrs; did you mean postgres.shop?"
    assert missing.attrs["telemagic"]["agree"] is True
    assert "did you mean postgres.shop?" in tele.resolve("postgres.default").note[0]
    service = tele.resolve("_http._tcp.catalog.shop", "SRV").iloc[0]
    assert service.answer.endswith("8000 catalog.shop.svc.cluster.local.")
    assert tele.resolve(address).iloc[0].answer == "postgres.shop.svc.cluster.local."
    # The sandbox has no nameserver of its own: a public name is not the cluster's, and nobody else answers.
    public = tele.resolve("www.example.com").iloc[0]
    assert public.note.startswith("a public name, and this machine's own DNS did not answer")


def check_pings(tele: Any, postgres: Any) -> None:
    frame = tele.ping("postgres.shop", count=3)
    assert list(frame.state) == ["connected"] * 3
    assert (frame.connect_ms > 0).all()
    assert (frame.tunnel_ms > 0).all()
    assert frame.port[0] == 5432
    assert (
        tele.flows().query("dport == 5432").service == "postgres.shop"
    ).sum() >= 3  # it went through the tunnel
    assert tele.ping(f"{postgres['name']}:5432", count=1).iloc[0].address == postgres.ip
    refused = tele.ping(f"{postgres['name']}:9", count=1).iloc[0]
    assert (refused.state, refused.reason) == ("refused", "refused: nothing listens on this port")
    black = tele.ping("blackhole.shop", count=1, timeout=0.5).iloc[0]
    assert black.state in ("timeout", "refused", "unreachable"), black
    with pytest.raises(UsageError, match="UDP"):
        tele.ping("kube-dns.kube-system:dns")


@inside()
def test_with_rights_in_one_namespace_only() -> None:
    import telemagic

    config = Path(os.environ["KUBECONFIG"]).with_name("namespaced.kubeconfig")
    with telemagic.connect(kubeconfig=config) as tele:
        services = tele.services(everywhere=True)
        assert set(services.namespace) == {"shop"}
        assert "postgres" in set(services.name)
        assert services.ready.notna().all()
        assert "may not list services of all namespaces" in services.attrs["telemagic"]["notices"][0]
        assert set(tele.pods(everywhere=True).namespace) == {"shop"}
        with pytest.raises(CredentialsRefused, match="kube-system"):
            tele.pods("kube-system")
        assert tele.url("postgres") == "postgres:5432"
        assert tele.ping("postgres", count=1).iloc[0].state == "connected"


def doctor(*words: str) -> Diagnosis:
    """Run the doctor as `%tele doctor` does."""
    from telemagic.parser import Tree
    from telemagic.session import session

    tree = Tree("%tele")
    line: Any = tree.parse(["doctor", *words])
    found: Any = tree.run(session(), line)
    return found  # type: ignore[no-any-return]  # the only result that doctor has


def check_named(found: Diagnosis, check: str, text: str, level: str = "problem") -> None:
    """The doctor finds this, and says what to do about it."""
    finding = found[check]
    assert (finding.level.value, text in finding.found) == (level, True), found
    assert finding.remedy, finding


@inside(timeout=100)
def test_the_doctor_names_each_fault() -> None:
    from telemagic.demo import client

    assert doctor().is_healthy, doctor()
    folder = Path(os.environ["KUBECONFIG"]).parent
    with client.ensure(owned=True) as demo:
        for fault, check, text in (
            ("token-expired", "credentials", "(401)"),
            ("api-html", "API server", "proxy or login page answers"),
            ("api-truncated", "API server", "truncated JSON"),
            ("api-stop", "API server", "Connection refused"),
        ):
            demo.fault(fault)
            check_named(doctor(), check, text)
            demo.fault("clear")
        demo.fault("forbid", verb="create", resource="pods/portforward")
        found = doctor()
        check_named(found, "rights: manager", "you may not create pods/portforward in telemagic", "warning")
        check_named(found, "way in", "your rights to it are not enough")
        demo.fault("clear")
    check_named(doctor("--kubeconfig", str(folder / "viewer.kubeconfig")), "way in", "none")
    found = doctor("--kubeconfig", str(folder / "namespaced.kubeconfig"), "--manager-namespace", "nowhere")
    check_named(found, "rights: names", "list namespaces", "warning")
    check_named(found, "traffic manager", "nowhere", "warning")
    check_named(doctor("--context", "nowhere"), "kubeconfig", "no context 'nowhere'")
    check_this_machine()


def check_this_machine() -> None:
    """Faults of the machine, not of the cluster."""
    for command in (
        "ip tuntap add vpn0 mode tun",
        "ip link set vpn0 up",
        "ip route add 198.18.8.0/24 dev vpn0",
    ):
        subprocess.run(command.split(), check=True)
    path = Path("/etc/resolv.conf")
    before = path.read_text()
    path.write_text(f'# telemagic netd 999999999 1 0-0\n# was {{"kind": "absent", "text": ""}}\n{before}')
    found = doctor()
    check_named(found, "networks", "overlaps 198.18.8.0/24 on vpn0")
    check_named(found, "leftovers", "netd 999999999 has gone", "warning")
    assert "a VPN (vpn0)" in found["other VPNs"].found
    path.write_text(before)
    subprocess.run(["ip", "link", "delete", "vpn0"], check=True)
    assert doctor().is_healthy


@inside()
def test_the_doctor_sees_where_lookups_really_go() -> None:
    import telemagic

    with telemagic.connect():
        healthy = doctor()
        assert healthy.is_healthy, healthy
        assert "programs ask telemagic's resolver" in healthy["DNS path"].found
        # resolv.conf would be repaired at once. glibc reads this one again when it has changed (2.33).
        path = Path("/etc/nsswitch.conf")
        before = path.read_text() if path.exists() else None
        path.write_text("hosts: files\n")
        found = doctor()
        check_named(found, "names", "no name server is ever asked")
        check_named(found, "DNS path", "programs do not ask telemagic's resolver")
        path.unlink() if before is None else path.write_text(before)
    with telemagic.connect(dns="none"):
        assert doctor()["DNS path"].level.value == "warning"
