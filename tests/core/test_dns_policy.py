"""Whose a name is."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from telehelper.core.dns_message import from_text, to_text
from telehelper.core.dns_policy import DnsPolicy, link_domains, reverse_domains, reverse_network, search_list

POLICY = DnsPolicy(
    domain="cluster.local",
    namespace="shop",
    namespaces=frozenset({"shop", "dev", "kube-system"}),
    cluster_cidrs=(ip_network("198.18.0.0/16"), ip_network("fd12::/48")),
)


def decide(name: str, policy: DnsPolicy = POLICY) -> tuple[list[str], bool]:
    decision = policy.decide(from_text(name))
    return [to_text(asked) for asked in decision.cluster], decision.upstream


@pytest.mark.parametrize(
    ("name", "cluster", "upstream"),
    [
        # what works inside a pod
        ("postgres", ["postgres.shop.svc.cluster.local"], False),
        ("postgres.shop", ["postgres.shop.svc.cluster.local"], True),
        ("postgres.shop.svc", ["postgres.shop.svc.cluster.local"], False),
        ("postgres.shop.svc.cluster.local", ["postgres.shop.svc.cluster.local"], False),
        ("cluster.local", ["cluster.local"], False),
        ("db-0.db.shop", ["db-0.db.shop.svc.cluster.local"], True),
        ("10-1-2-3.shop.pod", ["10-1-2-3.shop.pod.cluster.local"], False),
        ("_pg._tcp.postgres", ["_pg._tcp.postgres.shop.svc.cluster.local"], False),
        ("_pg._tcp.postgres.shop", ["_pg._tcp.postgres.shop.svc.cluster.local"], True),
        ("_pg._tcp.postgres.shop.svc", ["_pg._tcp.postgres.shop.svc.cluster.local"], False),
        # what does not concern us
        ("", [], True),
        ("example.com", [], True),
        ("www.example.com", [], True),
        ("_dmarc.example.com", [], True),
        ("_sip._tcp.example.com", [], True),
        ("_foo._bar.example", [], True),
        # by labels, not by characters
        ("mycluster.local", [], True),
        ("foo.xshop", [], True),
        ("foo.shop.example.com", [], True),
        ("foo.mysvc", [], True),
        # a namespace called like a top-level domain
        ("foo.dev", ["foo.dev.svc.cluster.local"], True),
        ("www.foo.dev", ["www.foo.dev.svc.cluster.local"], True),
        # reverse names
        ("4.3.18.198.in-addr.arpa", ["4.3.18.198.in-addr.arpa"], False),
        ("18.198.in-addr.arpa", ["18.198.in-addr.arpa"], False),
        ("198.in-addr.arpa", [], True),
        ("8.8.8.8.in-addr.arpa", [], True),
        ("1.0.0.0." + "0." * 20 + "0.0.0.0.2.1.d.f.ip6.arpa", ["1.0.0.0." + "0." * 20 + "0.0.0.0.2.1.d.f.ip6.arpa"], False),
        ("1." + "0." * 30 + "f.ip6.arpa", [], True),
        ("in-addr.arpa", [], True),
        ("lb._dns-sd._udp.0.0.19.198.in-addr.arpa", [], True),
    ],
)  # fmt: skip
def test_decisions(name: str, cluster: list[str], upstream: bool) -> None:
    assert decide(name) == (cluster, upstream)


def test_the_connected_namespace_is_known_even_if_none_may_be_listed() -> None:
    assert decide("postgres.shop", DnsPolicy("cluster.local", "shop"))[0] == [
        "postgres.shop.svc.cluster.local"
    ]
    assert decide("redis.other", DnsPolicy("cluster.local", "shop")) == ([], True)


def test_a_namespace_called_svc_or_pod_has_its_services() -> None:
    policy = DnsPolicy("cluster.local", "shop", frozenset({"svc"}))
    assert decide("web.svc", policy) == (["web.svc.cluster.local", "web.svc.svc.cluster.local"], False)


def test_another_cluster_domain_with_a_final_dot() -> None:
    policy = DnsPolicy("K8s.Example.Com.", "shop")
    assert decide("postgres", policy)[0] == ["postgres.shop.svc.k8s.example.com"]
    for name in ("db.shop.svc.k8s.example.com", "10-1-2-3.shop.pod.k8s.example.com", "svc.k8s.example.com"):
        assert decide(name, policy) == ([name], False)
    assert decide("a.example.com", policy) == ([], True)


@pytest.mark.parametrize("domain", ["mybank.com", "com", "corp.example", "local", "uk.", "shop.internal"])
def test_a_cluster_that_says_it_has_a_domain_of_others_gets_no_names_of_theirs(domain: str) -> None:
    policy = DnsPolicy(domain, "shop", frozenset({"shop"}))
    plain = domain.strip(".")
    for name in (
        plain,
        f"www.{plain}",
        f"a.b.{plain}",
        f"_dmarc.{plain}",
        f"notsvc.{plain}",
        f"svc.x.{plain}",
    ):
        assert decide(name, policy) == ([], True), name
    assert decide("postgres.shop", policy)[0] == [f"postgres.shop.svc.{plain}"]


def test_a_name_too_long_for_the_cluster_is_not_asked_there() -> None:
    long = ".".join(["x" * 60] * 4)[:235]
    assert decide(f"{long}.dev") == ([], True)
    assert POLICY.decide((b"x" * 63,)).cluster


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4/32"),
        ("2.1.in-addr.arpa", "1.2.0.0/16"),
        ("256.1.1.1.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("x.1.1.1.in-addr.arpa", None),
        ("0001.1.1.1.in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::/32"),
        ("g.ip6.arpa", None),
        ("10.ip6.arpa", None),
        ("1." * 33 + "ip6.arpa", None),
        ("ip6.arpa", None),
        ("example.com", None),
    ],
)
def test_reverse_names(name: str, network: str | None) -> None:
    assert reverse_network(from_text(name)) == (None if network is None else ip_network(network))


def test_the_search_list_is_a_pods() -> None:
    assert search_list("shop", "cluster.local.") == (
        "shop.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("postgres.shop.svc.cluster.local", "postgres.shop"),
        ("10-1-2-3.shop.pod.cluster.local", "10-1-2-3.shop.pod.cluster.local"),
        ("svc.cluster.local", "svc.cluster.local"),
    ],
)
def test_names_for_people(name: str, shown: str) -> None:
    assert POLICY.display(from_text(name)) == shown


# --- what systemd-resolved is told -------------------------------------------------------------------------------


def test_what_is_sent_to_the_link() -> None:
    networks = (ip_network("198.18.0.0/15"), ip_network("10.1.2.0/24"))
    assert link_domains("shop", "cluster.local", ("dev", "shop"), networks) == (
        "shop.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "~svc",
        "~shop",
        "~dev",
        "~18.198.in-addr.arpa",
        "~19.198.in-addr.arpa",
        "~2.1.10.in-addr.arpa",
    )


def test_a_cluster_domain_of_one_label_is_only_routed() -> None:
    assert link_domains("shop", "k8s", (), ())[:3] == ("shop.svc.k8s", "svc.k8s", "~k8s")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("postgres.shop.svc.cluster.local", True),
        ("postgres.dev.svc.cluster.local", True),
        ("postgres.nowhere.svc.cluster.local", False),
        ("example.com.shop.svc.cluster.local", False),
        ("postgres.shop.pod.cluster.local", False),
        ("postgres.shop.svc.other.local", False),
        ("shop.svc.cluster.local", False),
    ],
)
def test_names_that_services_have(name: str, is_one: bool) -> None:
    policy = DnsPolicy("cluster.local", "shop", frozenset({"dev"}))
    assert policy.names_service(from_text(name)) is is_one


@pytest.mark.parametrize(
    ("network", "domains"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.32.0.0/14", [f"{i}.10.in-addr.arpa" for i in range(32, 36)]),
        ("10.32.0.0/11", []),  # 32 domains
        ("10.1.2.3/32", []),
        ("0.0.0.0/0", []),
        ("fd12::/16", ["2.1.d.f.ip6.arpa"]),
        ("fd12::/15", ["2.1.d.f.ip6.arpa", "3.1.d.f.ip6.arpa"]),
        ("fd12::1/128", []),
    ],
)
def test_the_domains_of_a_networks_reverse_names(network: str, domains: list[str]) -> None:
    assert list(reverse_domains(ip_network(network))) == domains
