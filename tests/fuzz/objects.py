"""Fuzz targets for what comes as objects: the API's JSON, answers of its server, kubeconfigs, and what netd is asked."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from functools import cache
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Final

import yaml
from hypothesis import strategies as st
from telehelper.codec import MAX_NETD_MESSAGE, Decoder, encode
from telehelper.core.frames import Proto
from telehelper.core.resolv_conf import parse_resolv_conf
from telehelper.datapath import inventory
from telehelper.datapath.agentless import objects
from telehelper.datapath.agentless.index import Index
from telehelper.datapath.joining import join
from telehelper.discovery.conclusions import conclude
from telehelper.discovery.message import to_message
from telehelper.errors import ClusterError, ControlError, KubeconfigError, TelemagicError
from telehelper.kube.access import ApiAccess
from telehelper.kube.answers import Answer, json_object, raise_for_status
from telehelper.kube.exec_plugin import PluginSpec, parse_credential
from telehelper.kube.kubeconfig import read_context
from telehelper.kube.watch import Watch
from telehelper.messages import PROTOCOL_VERSION, Configure, OpenVif, SetDns, Undo
from telehelper.netd.fakes import RecordingNet, RecordingResolver
from telehelper.netd.monitor import Monitor
from telehelper.netd.permits import FORBIDDEN, HOST_POOLS, SHORTEST
from telehelper.netd.vif import Vif
from telehelper.views import PodTable, ServiceTable

from telemagic import kubeconfig
from tests.discovery import sample
from tests.fuzz.junk import edges, junk, mutated, spoiled

# --- objects of the API ------------------------------------------------------------------------------------------

_META: Final = {"name": "web", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
_OBJECTS: Final = [
    {"metadata": _META, "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
     "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "selector": {"a": "b"},
     "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]}},
    {"metadata": _META, "spec": {"type": "ExternalName", "externalName": "example.com"}},
    {"metadata": _META, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
     "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": True}, "hostname": "web-0",
                    "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"}}]},
    {"metadata": _META, "subsets": [{"addresses": [{"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "web-0"}}],
                                     "notReadyAddresses": [{"ip": "10.1.0.2"}], "ports": [{"port": 8080}]}]},
    {"metadata": {**_META, "ownerReferences": [{"kind": "ReplicaSet", "name": "r"}]}, "spec": {"nodeName": "n",
     "hostNetwork": False, "containers": [{"image": "i", "ports": [{"containerPort": 80, "name": "x"}]}]},
     "status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}],
                "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{"ready": True, "restartCount": 3}]}},
]  # fmt: skip
api_objects: Final = st.lists(
    mutated(_OBJECTS) | st.dictionaries(st.text(max_size=8), junk, max_size=3), max_size=4
)


def check_api_objects(items: list[dict[str, Any]]) -> None:
    """Any JSON objects are rows that the control socket can carry, and services, slices and pods of an index, or left out."""
    counts = inventory.Endpoints()
    for item in items:
        counts.add(item)
    rows = tuple(counts.of(inventory.service_row(item)) for item in items)
    for table in (ServiceTable(rows, ()), PodTable(tuple(map(inventory.pod_row, items)), ())):
        assert Decoder().feed(encode(table))[0].body == table
    index = Index()
    readers = (objects.read_service, objects.read_slice, objects.read_endpoints, objects.read_pod)
    found = [each for item in items for read in readers if (each := read(item)) is not None]
    for each in found:
        index.put(each)
        for address in getattr(each, "addresses", ()):
            index.find(Proto.TCP, address, address, 80, 0.0)
    for each in found:
        index.remove(type(each), each.key)
    assert not any(index.keys(kind) for kind in (objects.Service, objects.EndpointSlice, objects.Pod))


@cache
def _clusters() -> list[dict[str, Any]]:
    return [sample.answers(name) for name in sample.NAMES]


discovery: Final = st.tuples(
    st.deferred(lambda: mutated(_clusters())), st.text("nameserver search svc.0123456789:\n%", max_size=60)
).map(list)


def check_discovery(item: list[Any]) -> None:
    """Any answers of an API server and any resolv.conf give networks of a cluster, as a message, and never the whole internet."""
    answers, resolv = item
    found = conclude(answers, {}, parse_resolv_conf(resolv))
    for one in found.cidrs:
        network = ip_network(one.cidr)
        assert network.prefixlen > 0, one
    assert join(to_message(found), found).cluster_domain


# --- answers of an API server ------------------------------------------------------------------------------------

_STATUS: Final = (
    b'{"kind":"Status","metadata":{"resourceVersion":"7"},"message":"no","reason":"Forbidden","code":403}'
)
_EVENT: Final = b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"resourceVersion":"8"}}}'
_ERROR: Final = b'{"type":"ERROR","object":{"code":410,"message":"gone"}}'
_CREDENTIAL: Final = b'{"apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t","expirationTimestamp":"2026-01-01T00:00:00Z"}}'
_BODIES: Final = [_STATUS, _EVENT, _ERROR, _CREDENTIAL, b"<html><title>Log in</title>", b""]
_DOCS: Final = [json.loads(body) for body in (_STATUS, _EVENT, _ERROR, _CREDENTIAL)]
_bodies: Final = (
    spoiled(_BODIES)
    | mutated(_DOCS).map(lambda doc: json.dumps(doc).encode())
    | st.integers(1, 200_000).map(lambda depth: b"[" * depth)
)
_headers: Final = st.dictionaries(
    st.sampled_from(["Content-Type", "Location", "Retry-After"]),
    st.sampled_from(["text/html", "https://[::1", "http://a/b", "//", "9" * 400, "-1", "٣", "3"])
    | st.text(max_size=20),
    max_size=3,
)
answers: Final = st.tuples(st.integers(200, 599), _headers, _bodies)
_SPEC: Final = PluginSpec("login", (), {}, "client.authentication.k8s.io/v1", "", None)


class _Api:
    access = ApiAccess("https://api", dict, None)


def check_answer(item: tuple[int, dict[str, str], bytes]) -> None:
    """Any answer of an API server, event of a watch or output of a login plugin is taken, or is one ClusterError of one line."""
    status, headers, body = item
    answer = Answer(status, headers, body)
    assert answer.retry_after is None or answer.retry_after >= 0
    watch = Watch(_Api(), "/api/v1/pods", {})  # type: ignore[arg-type]  # its server's name is all that is used
    for take in (
        lambda: raise_for_status(answer, "/x", "https://api"),
        lambda: json_object(answer, "/x", "https://api"),
        lambda: watch._read(body),
        lambda: parse_credential(body, _SPEC),
    ):
        try:
            take()
        except ClusterError as error:
            assert "\n" not in error.message, error.message  # noqa: PT017


# --- kubeconfigs -------------------------------------------------------------------------------------------------

_CONFIG: Final = {
    "apiVersion": "v1", "kind": "Config", "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}}],
    "clusters": [{"name": "k", "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority-data": "aGk=",
                                           "proxy-url": "http://p:1", "tls-server-name": "x"}}],
    "users": [{"name": "u", "user": {"token": "t", "client-certificate-data": "aGk=", "client-key-data": "aGk=", "as": "me",
                                     "as-groups": ["g"], "as-user-extra": {"k": ["v"]}}}],
}  # fmt: skip
_USERS: Final[list[dict[str, Any]]] = [
    {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "login", "args": ["a"], "provideClusterInfo": True,
              "env": [{"name": "A", "value": "b"}], "installHint": "get it"}},
    {"auth-provider": {"name": "gcp", "config": {"access-token": "t"}}},
    {"username": "a", "password": "b"},
    {"tokenFile": "/nonexistent"},
]  # fmt: skip
_CONFIGS: Final = [_CONFIG, *({**_CONFIG, "users": [{"name": "u", "user": user}]} for user in _USERS)]
_SNIPPETS: Final = ("a: !!int ''", "x: 2026-13-45", "x: !!bool y", "x: !!binary é", "? [a]\n: b", "- " * 3000, "&a [*a]", "x: 1:99:1e5",
                    "x: !!timestamp z", "x: 0b", "x: .inf", '"\\ud800": 1')  # fmt: skip
kubeconfigs: Final = (
    mutated(_CONFIGS).map(lambda doc: json.dumps(doc))
    | spoiled([json.dumps(_CONFIG).encode(), yaml.safe_dump(_CONFIG).encode()]).map(
        lambda data: data.decode("latin-1")
    )
    | st.sampled_from(_SNIPPETS)
    | st.text("[]{}:-?!&*|>'\"%@ \n\tax0:", max_size=40)
)


def check_kubeconfig(text: str) -> None:
    """Any text is a kubeconfig with a context that can be used, or a TelemagicError of one line: in the kernel and in the data plane."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = Path(folder) / "config"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for read in (
            lambda: kubeconfig.read(str(path)).choose(),
            lambda: read_context(str(path)),
            lambda: _log_in(str(path)),
        ):
            try:
                read()
            except TelemagicError as error:
                assert isinstance(error, KubeconfigError), error  # noqa: PT017
                assert "\n" not in error.message + error.hint, error.message  # noqa: PT017


def _log_in(path: str) -> None:
    access = ApiAccess.from_kubeconfig(path)
    if access.login is not None:
        access.login.spec.environment()
    else:
        with contextlib.suppress(
            FileNotFoundError
        ):  # tokenFile; read anew with each request, and reported there
            dict(access.headers())


# --- netd --------------------------------------------------------------------------------------------------------

_OPEN: Final = OpenVif(PROTOCOL_VERSION, 65_000)
_CONFIGURE: Final = Configure(("198.19.240.1/32",), ("10.96.0.0/16", "198.19.240.2/32"))
_DNS: Final = SetDns("auto", "198.19.240.2", ("shop.svc.cluster.local",), 2, ("~shop", "cluster.local"))
_SESSION: Final = [json.loads(encode(each, 1)[4:]) for each in (_OPEN, _CONFIGURE, _DNS, _CONFIGURE, Undo())]
_cidrs: Final = st.builds(
    lambda address, length: f"{ip_interface(f'{address}/{length % (address.max_prefixlen + 1)}').network}",
    st.ip_addresses(),
    st.integers(0, 128),
)
_routes: Final = st.lists(
    st.builds(lambda cidr, mtu: {"cidr": cidr, "mtu": mtu}, _cidrs, st.sampled_from([0, 1400, 5])), max_size=3
)
_asked: Final = st.builds(
    lambda addresses, routes: {
        "type": "Configure",
        "id": 1,
        "body": {"addresses": addresses, "routes": routes},
    },
    st.lists(_cidrs | edges, max_size=2),
    _routes,
)
requests: Final = (
    mutated([_SESSION], most=3)
    | st.lists(st.sampled_from(_SESSION) | _asked, max_size=6).map(lambda more: [_SESSION[0], *more])
    | st.permutations(_SESSION)
)


def check_netd(docs: list[Any]) -> None:
    """Whatever netd is asked, it changes its own interface only and no forbidden network, dies on surprise, and takes all back."""
    net = RecordingNet()
    monitor = Monitor(net, lambda: Vif(99, "tele0", 7, 0), RecordingResolver(net.deeds), lambda _: None)
    decoder = Decoder(MAX_NETD_MESSAGE)
    try:
        for doc in docs:
            data = json.dumps(doc).encode()
            for envelope in decoder.feed(len(data).to_bytes(4, "big") + data):
                encode(monitor.handle(envelope.body).message, envelope.id)
    except ControlError:
        pass  # it dies: what it has done is still taken back
    assert monitor.undo() is None
    _check_deeds(net.deeds, wide="'wide': True" in repr(docs))


def _check_deeds(deeds: list[str], *, wide: bool) -> None:
    touched = False
    for deed in deeds:
        verb, what, *rest = deed.split()
        if verb in ("add", "delete") and what != "7":
            assert rest[:2] == ["dev", "7"], deed
            network = ip_interface(what).network
            own = any(network.version == pool.version and network.subnet_of(pool) for pool in HOST_POOLS)  # type: ignore[arg-type]
            assert own or wide or network.prefixlen >= SHORTEST[network.version], deed
            assert not any(network.overlaps(each) for each in FORBIDDEN), deed
        touched |= verb == "resolver" and what != "back"
    if touched:
        assert "resolver back" in deeds
    if any(deed.startswith("up ") for deed in deeds):
        assert "delete 7 tele0" in deeds
