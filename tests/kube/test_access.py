"""Kubeconfigs and service accounts: what is understood, and what is refused with which words."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from telehelper.errors import CredentialsRefused, KubeconfigError
from telehelper.kube.access import ApiAccess

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


def plugin(tmp_path: Path, answer: dict[str, Any], code: int = 0) -> dict[str, Any]:
    script = tmp_path / "login.py"
    script.write_text(f"import sys\nprint({json.dumps(answer)!r})\nsys.exit({code})\n")
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "interactiveMode": "Never",
        }
    }


def credential(**status: str) -> dict[str, Any]:
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }


def test_a_login_plugin_gives_a_token(read: Callable[..., ApiAccess], tmp_path: Path) -> None:
    access = read(user=plugin(tmp_path, credential(token="from-the-plugin")))
    assert lowered(access.headers()) == {"authorization": "Bearer from-the-plugin"}


def test_an_expired_token_is_asked_for_again(read: Callable[..., ApiAccess], tmp_path: Path) -> None:
    past = "2020-01-01T00:00:00Z"
    access = read(user=plugin(tmp_path, credential(token="one", expirationTimestamp=past)))
    plugin(tmp_path, credential(token="two", expirationTimestamp=past))
    assert lowered(access.headers()) == {"authorization": "Bearer two"}


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


def test_reading_leaves_the_official_clients_defaults_alone(read: Callable[..., ApiAccess]) -> None:
    from kubernetes.client import Configuration

    before = Configuration.get_default_copy().host
    read()
    assert Configuration.get_default_copy().host == before != SERVER


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
        ("", "is empty"),
        ("a: [", "cannot read"),
        ("a: b: c", "cannot read"),
        ("\x00\x01", "cannot read"),
        ("[1, 2]", "is no kubeconfig"),
        ("just words", "is no kubeconfig"),
        ("contexts: 3", "is no kubeconfig"),
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
    [{"as": "admin"}, {"as-uid": "7"}, {"as-groups": ["system:masters"]}, {"as-user-extra": {"a": ["b"]}}],
)
def test_impersonation_is_refused_aloud(tmp_path: Path, pki: Pki, fields: dict[str, Any]) -> None:
    path = kubeconfig(tmp_path, pki, SERVER, user={"token": TOKEN, **fields})
    assert "impersonates" in refusal(path)


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


@pytest.mark.parametrize(
    ("answer", "code"), [(credential(token="x"), 1), (credential(), 0), ({"kind": "Nonsense"}, 0)]
)
def test_a_login_plugin_that_gives_nothing(
    read: Callable[..., ApiAccess], tmp_path: Path, answer: dict[str, Any], code: int
) -> None:
    with pytest.raises(CredentialsRefused, match="gave no credentials") as caught:
        read(user=plugin(tmp_path, answer, code))
    assert "kubectl get pods" in caught.value.hint


def test_a_login_plugin_that_is_not_installed(read: Callable[..., ApiAccess], tmp_path: Path) -> None:
    user = plugin(tmp_path, credential())
    user["exec"]["command"] = str(tmp_path / "no-such-login")
    with pytest.raises(CredentialsRefused, match="'u' gave no credentials"):
        read(user=user)


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
