"""Each way to tell where services are, on the samples and on what nobody should answer."""

from __future__ import annotations

from typing import Any

import pytest
from telehelper.discovery import questions, services
from telehelper.discovery.claims import CERTAIN, LIKELY, Claim

from tests.discovery.sample import answers


def networks(found: list[Claim]) -> list[str]:
    return [str(network) for one in found for network in one.networks]


def component(name: str, *words: Any, key: str = "command") -> dict[str, Any]:
    labels = {"component": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{key: list(words)}]}}
    return {questions.COMPONENTS: {"items": [pod]}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("kubeadm", ["10.96.0.0/12"]), ("dual-stack", ["10.96.0.0/16", "fd00:10:96::/112"]), ("eks", [])],
)
def test_service_cidrs(name: str, expected: list[str]) -> None:
    found = services.service_cidrs(answers(name))
    assert networks(found) == expected
    assert {(one.source, one.alone) for one in found} <= {("ServiceCIDR kubernetes", CERTAIN)}


def test_several_service_cidrs_are_named() -> None:
    listed = [
        {"metadata": {"name": name}, "spec": {"cidrs": [cidr]}}
        for name, cidr in (("kubernetes", "10.96.0.0/28"), ("more\n", "10.97.0.0/24"))
    ]
    (found,) = services.service_cidrs({questions.SERVICE_CIDRS: {"items": listed}})
    assert found.source == r"ServiceCIDR kubernetes, more\n"
    assert networks([found]) == ["10.96.0.0/28", "10.97.0.0/24"]


def test_flags_of_the_api_server() -> None:
    assert networks(services.apiserver_flags(answers("kubeadm-old"))) == ["10.96.0.0/12"]
    assert services.apiserver_flags(answers("gke")) == []


@pytest.mark.parametrize("key", ["command", "args"])
@pytest.mark.parametrize(
    "words",
    [
        ("kube-apiserver", "--service-cluster-ip-range=10.0.0.0/16,fd00::/108"),
        ("kube-apiserver", "--v=2", "--service-cluster-ip-range", "10.0.0.0/16,fd00::/108"),
        ("/bin/sh", "-c", "exec kube-apiserver --service-cluster-ip-range=10.0.0.0/16,fd00::/108 >log"),
    ],
)
def test_flags_are_found_however_they_are_written(words: tuple[str, ...], key: str) -> None:
    assert networks(services.apiserver_flags(component("kube-apiserver", *words, key=key))) == [
        "10.0.0.0/16",
        "fd00::/108",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("--service-cluster-ip-range",),
        ("--service-cluster-ip-range=",),
        ("--service-cluster-ip-range=x",),
        (7, None),
        ("--service-cluster-ip-ranges=10.0.0.0/8",),
    ],
)
def test_flags_without_a_value_tell_nothing(words: tuple[Any, ...]) -> None:
    assert services.apiserver_flags(component("kube-apiserver", *words)) == []
    assert services.apiserver_flags(component("other", "--service-cluster-ip-range=10.0.0.0/8")) == []


def test_kubeadms_configuration() -> None:
    (found,) = services.kubeadm_services(answers("dual-stack"))
    assert (networks([found]), found.alone) == (["10.96.0.0/16", "fd00:10:96::/112"], LIKELY)


BILLION = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nnetworking: {serviceSubnet: 10.0.0.0/8, dnsDomain: *b}\n"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "[",
        "- networking",
        "networking: 7",
        "networking: {serviceSubnet: [10.0.0.0/8]}",
        "!!python/object/apply:os.system [true]",
        "2020-99-99",
        BILLION,
        "{" * 10_000,
        "x" * 100_000 + "\nnetworking: {serviceSubnet: 10.0.0.0/8}",
        "networking: {serviceSubnet: nonsense}",
    ],
)
def test_a_configuration_that_is_none_tells_nothing(written: str) -> None:
    found = {questions.KUBEADM: {"data": {"ClusterConfiguration": written}}}
    assert services.kubeadm_services(found) == []


def test_openshift() -> None:
    (found,) = services.openshift_services(answers("openshift"))
    assert (networks([found]), found.alone) == (["172.30.0.0/16"], CERTAIN)
    wish = {questions.OPENSHIFT: {"spec": {"serviceNetwork": ["10.0.0.0/8"]}}}
    assert services.openshift_services(wish) == [], "the spec is a wish, the status is what is"


def test_arguments_of_k3s() -> None:
    def node(arguments: Any) -> dict[str, Any]:
        return {questions.NODES: {"items": [{"metadata": {"annotations": {"k3s.io/node-args": arguments}}}]}}

    written = '["server","--service-cidr","10.53.0.0/16","--cluster-cidr=10.52.0.0/16,fd00:52::/56"]'
    (found,) = services.k3s_services(node(written))
    assert (networks([found]), found.source) == (["10.53.0.0/16"], "k3s --service-cidr")
    for odd in (
        '["agent","--service-cidr","10.53.0.0/16"]',
        "[",
        '{"server":1}',
        7,
        None,
        "[" * 20_000,
        '["server"]',
    ):
        assert services.k3s_services(node(odd)) == []
    assert services.k3s_services(answers("k3s")) == [], "the defaults are not noted"


def test_the_refused_service() -> None:
    (found,) = services.refused_service(
        {questions.REFUSED_SERVICE: {"ranges": ["10.0.0.0/16", "fd00::/108"]}}
    )
    assert (networks([found]), found.alone) == (["10.0.0.0/16", "fd00::/108"], LIKELY)
    assert services.refused_service({questions.REFUSED_SERVICE: {"ranges": []}}) == []


def test_addresses_of_services() -> None:
    listed = {
        "items": [
            {"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}},
            {"spec": {"clusterIP": "10.0.0.2"}},
            {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}},
            {"spec": {"clusterIP": ""}},
            {"spec": {"clusterIP": 7}},
            {"spec": None},
            {},
            7,
        ]
    }
    assert list(map(str, services.service_addresses(listed))) == ["10.0.0.1", "fd00::1", "10.0.0.2"]


def test_the_order_is_that_of_belief() -> None:
    assert [read.__name__ for read in services.HEURISTICS] == [
        "service_cidrs",
        "openshift_services",
        "apiserver_flags",
        "refused_service",
        "kubeadm_services",
        "k3s_services",
    ]
