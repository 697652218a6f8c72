"""Kubeconfigs and service accounts: what is understood, and what is refused with which words."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import tempfile
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from multidict import CIMultiDict
from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube.access import ApiAccess, Identity
from telehelper.kube.exec_plugin import Credential, PluginSpec
from telehelper.kube.kubeconfig import read_context

from tests.kube.api_server import TOKEN, Pki, kubeconfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVER = "https://127.0.0.1:6443"


def lowered(headers: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


@pytest.fixture
def read(tmp_path: Path, pki: Pki) -> Callable[..., ApiAccess]:
    """Write a kubeconfig with these changes and read it."""

    def do(**changes: Any) -> ApiAccess:
        return ApiAccess.from_kubeconfig(str(kubeconfig(tmp_path, pki, SERVER, **changes)))

    return do


# --- what is understood ------------------------------------------------------------------------------------------


def test_a_token(read: Callable[..., ApiAccess]) -> None:
    access = read()
    assert (access.server, access.host, access.context, access.namespace) == (
        SERVER,
        "127.0.0.1",
        "here",
        "shop",
    )
    assert lowered(access.headers()) == {"authorization": f"Bearer {TOKEN}"}
    assert (access.server_hostname, access.proxy) == ("", "")
    assert access.ssl_context is not None
    assert access.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert access.ssl_context.check_hostname


def test_the_namespace_is_default_unless_named(read: Callable[..., ApiAccess]) -> None:
    assert read(context={"namespace": None}).namespace == "default"


def test_tls_server_name_and_proxy_url_are_kept(read: Callable[..., ApiAccess]) -> None:
    access = read(cluster={"tls-server-name": "api.internal", "proxy-url": "http://127.0.0.1:3128"})
    assert access.server_hostname == "api.internal"
    assert access.proxy == "http://127.0.0.1:3128"


def test_a_trailing_slash_of_the_server_is_no_part_of_it(read: Callable[..., ApiAccess]) -> None:
    assert read(cluster={"server": SERVER + "/k8s/clusters/c-1/"}).server == SERVER + "/k8s/clusters/c-1"


def test_a_server_without_tls_has_no_context(read: Callable[..., ApiAccess]) -> None:
    assert read(cluster={"server": "http://127.0.0.1:8001"}).ssl_context is None


def test_insecure_skip_tls_verify_is_obeyed(read: Callable[..., ApiAccess]) -> None:
    access = read(cluster={"insecure-skip-tls-verify": True, "certificate-authority": None})
    assert access.ssl_context is not None
    assert access.ssl_context.verify_mode is ssl.CERT_NONE


def test_a_client_certificate_needs_no_token(read: Callable[..., ApiAccess], pki: Pki) -> None:
    access = read(user={"client-certificate": str(pki.client_cert), "client-key": str(pki.client_key)})
    assert access.headers() == {}


def test_certificates_in_the_file_itself(
    read: Callable[..., ApiAccess], pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(nowhere))

    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    access = read(
        cluster={"certificate-authority": None, "certificate-authority-data": inline(pki.ca)},
        user={
            "client-certificate-data": inline(pki.client_cert),
            "client-key-data": inline(pki.client_key),
        },
    )
    assert access.ssl_context is not None
    assert [entry["subject"] for entry in access.ssl_context.get_ca_certs()] == [
        ((("commonName", "test ca"),),)
    ]
    assert list(nowhere.iterdir()) == []  # a private key that a killed process would leave there


def test_a_token_file_is_read_anew_each_time(read: Callable[..., ApiAccess], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    access = read(user={"tokenFile": "token"})  # relative to the kubeconfig
    assert lowered(access.headers()) == {"authorization": "Bearer first"}
    token.write_text("second\n")
    assert lowered(access.headers()) == {"authorization": "Bearer second"}


def test_a_token_file_goes_before_a_token(read: Callable[..., ApiAccess], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file")
    access = read(user={"tokenFile": str(tmp_path / "token"), "token": "old"})
    assert lowered(access.headers()) == {"authorization": "Bearer from the file"}


def plugin(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig's user whose login plugin prints this."""
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", f"print({json.dumps(answer)!r})"],
            "interactiveMode": "Never",
        }
    }


def credential(**status: str) -> dict[str, Any]:
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }


def test_a_login_plugin_gives_a_token(read: Callable[..., ApiAccess]) -> None:
    access = read(user={**plugin(credential(token="from-the-plugin")), "as": "ann"})
    assert access.headers() == {"Impersonate-User": "ann"}
    identity = asyncio.run(access.identity())
    assert identity.headers == {"Impersonate-User": "ann", "Authorization": "Bearer from-the-plugin"}
    assert identity.ssl_context is access.ssl_context
    assert "from-the-plugin" not in repr(identity)


def test_a_login_plugin_gives_a_certificate(read: Callable[..., ApiAccess], pki: Pki) -> None:
    pem = {"clientCertificateData": pki.client_cert.read_text(), "clientKeyData": pki.client_key.read_text()}
    access = read(user=plugin(credential(**pem)))

    async def two() -> list[Identity]:
        return [await access.identity(), await access.identity()]

    first, second = asyncio.run(two())
    assert first == second  # the same connections may be used
    assert first.ssl_context is not access.ssl_context
    assert first.headers == {}


def test_a_certificate_of_a_login_plugin_that_is_none(read: Callable[..., ApiAccess]) -> None:
    access = read(user=plugin(credential(clientCertificateData="x", clientKeyData="y")))
    with pytest.raises(CredentialsRefused, match="gave a certificate that cannot be used"):
        asyncio.run(access.identity())


def test_a_token_in_the_file_goes_before_the_plugin(read: Callable[..., ApiAccess]) -> None:
    assert read(user={**plugin(credential(token="x")), "token": TOKEN}).login is None


def test_a_plugin_is_told_of_the_cluster_if_it_wants(read: Callable[..., ApiAccess], pki: Pki) -> None:
    user = plugin(credential(token="x"))
    user["exec"]["provideClusterInfo"] = True
    login = read(user=user).login
    assert login is not None
    assert login.spec.cluster == {
        "server": SERVER,
        "certificate-authority-data": base64.b64encode(pki.ca.read_bytes()).decode(),
    }


def test_basic_authentication(read: Callable[..., ApiAccess]) -> None:
    access = read(user={"username": "ann", "password": "secret"})
    assert access.headers() == {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}


def test_impersonation(read: Callable[..., ApiAccess]) -> None:
    extra = {"Scopes": ["a", "b"], "acme.com/project": "p"}
    user = {"token": TOKEN, "as": "ann", "as-uid": "7", "as-groups": ["dev", "ops"], "as-user-extra": extra}
    headers = read(user=user).headers()
    assert isinstance(headers, CIMultiDict)
    assert list(headers.items()) == [
        ("Impersonate-User", "ann"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-scopes", "a"),
        ("Impersonate-Extra-scopes", "b"),
        ("Impersonate-Extra-acme.com%2Fproject", "p"),
        ("Authorization", f"Bearer {TOKEN}"),
    ]


@pytest.mark.parametrize("key", ["id-token", "access-token"])
def test_the_token_that_kubectl_left_for_an_auth_provider(read: Callable[..., ApiAccess], key: str) -> None:
    access = read(user={"auth-provider": {"name": "oidc", "config": {key: "left"}}})
    assert access.headers() == {"Authorization": "Bearer left"}


def test_reading_again_reads_the_same_context(tmp_path: Path, pki: Pki) -> None:
    path = kubeconfig(tmp_path, pki, SERVER)
    access = ApiAccess.from_kubeconfig(str(path))
    doc = yaml.safe_load(path.read_text())
    doc["current-context"] = "elsewhere"
    doc["users"][0]["user"]["token"] = "fresh"
    path.write_text(yaml.safe_dump(doc))
    assert access.again is not None
    fresh = access.again()
    assert (fresh.context, fresh.headers()) == ("here", {"Authorization": "Bearer fresh"})


def test_who_we_connect_to_is_the_proxy_if_there_is_one(read: Callable[..., ApiAccess]) -> None:
    assert read().peer == "127.0.0.1"
    assert read(cluster={"proxy-url": "http://user:pass@proxy.corp:3128"}).peer == "proxy.corp"


def test_several_files_are_merged(tmp_path: Path, pki: Pki) -> None:
    first = kubeconfig(tmp_path, pki, SERVER, name="one")
    second = tmp_path / "two"
    doc = yaml.safe_load(first.read_text())
    doc["contexts"] = [{"name": "there", "context": {"cluster": "c2", "user": "u"}}]
    doc["clusters"] = [{"name": "c2", "cluster": {"server": "https://127.0.0.2:6443"}}]
    doc["users"] = []
    doc["current-context"] = "there"
    second.write_text(yaml.safe_dump(doc))
    value = f"{first}:{tmp_path / 'not-there'}:{second}"
    assert ApiAccess.from_kubeconfig(value, "here").server == SERVER
    access = ApiAccess.from_kubeconfig(value, "there")
    assert access.server == "https://127.0.0.2:6443"
    assert lowered(access.headers()) == {"authorization": f"Bearer {TOKEN}"}


def test_the_addresses_of_who_we_connect_to(read: Callable[..., ApiAccess]) -> None:
    assert set(asyncio.run(read().addresses())) == {IPv4Address("127.0.0.1")}
    with pytest.raises(OSError, match="not known"):
        asyncio.run(read(cluster={"server": "https://api.nowhere.invalid"}).addresses())


# --- what is refused ---------------------------------------------------------------------------------------------


def refusal(path: Path | str, context: str = "") -> str:
    with pytest.raises(KubeconfigError) as caught:
        ApiAccess.from_kubeconfig(str(path), context)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "missing or empty" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "missing or empty"),
        ("a: [", "cannot read"),
        ("a: b: c", "cannot read"),
        ("\x00\x01", "cannot read"),
        ("[1, 2]", "is no kubeconfig"),
        ("just words", "is no kubeconfig"),
        ("contexts: 3", "is no kubeconfig"),
        ("users: {a: b}", "is no kubeconfig"),
        ("contexts: [3]", "no current context"),
        ("contexts: [{context: {}}]", "no current context"),
        ("apiVersion: v1", "no current context"),
        ("{current-context: a, contexts: [{name: a, context: 3}]}", "no context 'a'"),
        ("{current-context: a, contexts: [{name: a}]}", "no current cluster"),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    assert words in refusal(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"\xff\xfe\xff\xff")
    assert "cannot read" in refusal(path)


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path)


def test_an_unknown_context(tmp_path: Path, pki: Pki) -> None:
    assert (
        refusal(kubeconfig(tmp_path, pki, SERVER), "elsewhere") == "the kubeconfig has no context 'elsewhere'"
    )


@pytest.mark.parametrize("what", ["cluster", "user"])
def test_a_context_of_what_is_not_there(tmp_path: Path, pki: Pki, what: str) -> None:
    path = kubeconfig(tmp_path, pki, SERVER, context={what: "lost"})
    assert refusal(path) == f"the kubeconfig has no {what} 'lost'"


@pytest.mark.parametrize(
    "fields",
    [
        {"as-uid": "7"},
        {"as-groups": ["system:masters"]},
        {"as-user-extra": {"a": ["b"]}},
        {"as": "ann", "as-groups": "dev"},
        {"as": "ann", "as-user-extra": ["a"]},
    ],
)
def test_impersonation_that_is_incomplete(tmp_path: Path, pki: Pki, fields: dict[str, Any]) -> None:
    path = kubeconfig(tmp_path, pki, SERVER, user={"token": TOKEN, **fields})
    assert "impersonates nobody" in refusal(path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks5://ann:secret@127.0.0.1:1080", "'socks5://127.0.0.1:1080' is a SOCKS proxy"),
        ("socks5h://proxy", "is a SOCKS proxy"),
        ("ftp://proxy", "is no URL of a proxy"),
        ("http://", "is no URL of a proxy"),
        ("http://proxy:port", "is no URL of a proxy"),
        ("just words", "is no URL of a proxy"),
    ],
)
def test_a_proxy_that_is_none_for_us(tmp_path: Path, pki: Pki, url: str, words: str) -> None:
    message = refusal(kubeconfig(tmp_path, pki, SERVER, cluster={"proxy-url": url}))
    assert words in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "server", ["127.0.0.1:6443", "ftp://127.0.0.1", "https://", "https://[::1", "https://a:b"]
)
def test_a_server_that_is_no_url(tmp_path: Path, pki: Pki, server: str) -> None:
    assert "is no URL" in refusal(kubeconfig(tmp_path, pki, server))


@pytest.mark.parametrize(
    ("provider", "plugin_name"),
    [
        ({"name": "gcp", "config": {"cmd-path": "gcloud"}}, "gke-gcloud-auth-plugin"),
        ({"name": "oidc"}, "kubelogin"),
        ({"name": "other", "config": 3}, "of your cluster"),
        ("nonsense", "of your cluster"),
    ],
)
def test_an_auth_provider_without_a_token(
    tmp_path: Path, pki: Pki, provider: object, plugin_name: str
) -> None:
    path = kubeconfig(tmp_path, pki, SERVER, user={"auth-provider": provider})
    assert "which kubectl gave up" in refusal(path)
    with pytest.raises(KubeconfigError) as caught:
        ApiAccess.from_kubeconfig(str(path))
    assert plugin_name in caught.value.hint


def test_a_cluster_without_server_is_not_taken_for_localhost(tmp_path: Path, pki: Pki) -> None:
    assert "has no server" in refusal(kubeconfig(tmp_path, pki, ""))


def test_a_server_that_is_no_text(tmp_path: Path, pki: Pki) -> None:
    assert "cannot be used" in refusal(kubeconfig(tmp_path, pki, SERVER, cluster={"server": 6443}))


def test_a_ca_file_that_is_missing(tmp_path: Path, pki: Pki) -> None:
    path = kubeconfig(tmp_path, pki, SERVER, cluster={"certificate-authority": "/nowhere/ca.crt"})
    assert "/nowhere/ca.crt" in refusal(path)


def test_a_ca_file_that_is_no_certificate(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "bad.crt").write_text("not a certificate")
    path = kubeconfig(tmp_path, pki, SERVER, cluster={"certificate-authority": str(tmp_path / "bad.crt")})
    assert "a certificate of the kubeconfig cannot be used" in refusal(path)


def test_a_client_key_that_does_not_fit(tmp_path: Path, pki: Pki) -> None:
    user = {"client-certificate": str(pki.client_cert), "client-key": str(pki.server_key)}
    assert "a certificate of the kubeconfig cannot be used" in refusal(
        kubeconfig(tmp_path, pki, SERVER, user=user)
    )


# --- inside a pod ------------------------------------------------------------------------------------------------


def test_a_service_account(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "ca.crt").write_bytes(pki.ca.read_bytes())
    token = tmp_path / "token"
    token.write_text("one\n")
    access = ApiAccess.in_cluster(tmp_path, "198.18.0.1", 443)
    assert access.server == "https://198.18.0.1:443"
    assert access.headers() == {"Authorization": "Bearer one"}
    token.write_text("two\n")
    assert access.headers() == {"Authorization": "Bearer two"}


def test_a_service_account_on_ipv6(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "ca.crt").write_bytes(pki.ca.read_bytes())
    access = ApiAccess.in_cluster(tmp_path, "fd00::1", 443)
    assert access.server == "https://[fd00::1]:443"
    assert access.host == "fd00::1"


def test_no_secret_is_in_a_repr(tmp_path: Path, pki: Pki) -> None:
    user = {"token": "tok-SECRET", "password": "pw-SECRET", "username": "me"}
    path = kubeconfig(
        tmp_path, pki, SERVER, user=user, cluster={"proxy-url": "http://me:pw-SECRET@proxy:3128"}
    )
    access = ApiAccess.from_kubeconfig(str(path))
    assert "SECRET" in str(access.headers())
    spec = PluginSpec("login", ("--password", "pw-SECRET"), {"KEY": "SECRET"}, "v1", "", {"token": "SECRET"})
    for thing in (access, read_context(str(path)), spec, Credential("SECRET", "", "SECRET")):
        assert "SECRET" not in repr(thing), thing
