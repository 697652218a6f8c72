"""What a resolv.conf says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from telehelper.core.resolv_conf import ResolvConf, parse_resolv_conf

POD = (
    "nameserver 10.96.0.10\nsearch shop.svc.Cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
)


def test_a_pods_file_tells_of_its_cluster() -> None:
    found = parse_resolv_conf(POD)
    assert found.nameservers == ("10.96.0.10",)
    assert found.search == ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert found.cluster_domain == "cluster.local"
    assert found.cluster_dns == "10.96.0.10"


def test_a_machines_file_tells_of_no_cluster() -> None:
    found = parse_resolv_conf("nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.com\n")
    assert found.nameservers == ("192.0.2.1", "192.0.2.2")
    assert (found.cluster_domain, found.cluster_dns) == ("", "")


def test_a_node_local_cache_is_passed_over() -> None:
    local = parse_resolv_conf(f"nameserver 169.254.20.10\nnameserver 127.0.0.1\n{POD}")
    assert local.cluster_dns == "10.96.0.10"
    assert ResolvConf(("169.254.20.10",), ("svc.cluster.local",)).cluster_dns == ""


def test_an_entry_svc_without_a_domain_is_no_cluster() -> None:
    assert ResolvConf((), ("svc.",)).cluster_domain == ""


def test_what_is_not_understood_is_skipped() -> None:
    assert (
        parse_resolv_conf("nameserver\nnameserver nine\n# nameserver 192.0.2.9\n;x y\nsortlist 1 2\n")
        == ResolvConf()
    )


def test_the_last_search_counts() -> None:
    assert parse_resolv_conf("search one\nsearch Two three\n").search == ("two", "three")


def test_a_domain_is_a_search_of_one_name() -> None:
    assert parse_resolv_conf("search a b\ndomain corp.example\n").search == ("corp.example",)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    found = parse_resolv_conf(text)
    assert isinstance(found.cluster_dns, str)
