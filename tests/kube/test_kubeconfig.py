"""Several kubeconfigs as one; what ApiAccess makes of a context is in test_access.py."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telehelper.errors import KubeconfigError
from telehelper.kube.kubeconfig import Entry, read_context

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, **doc: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({key.replace("_", "-"): value for key, value in doc.items()}))
    return path


def named(singular: str, **entries: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, singular: body} for name, body in entries.items()]


def test_the_first_file_that_says_something_is_right(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one" / "config",
        contexts=named("context", a={"cluster": "c", "user": "u", "namespace": "first"}),
        users=named("user", u={"token": "first"}),
    )
    two = write(
        tmp_path / "two" / "config",
        current_context="a",
        contexts=named("context", a={"cluster": "other"}),
        clusters=named("cluster", c={"server": "https://two", "certificate-authority": "ca.crt"}),
        users=named("user", u={"token": "second"}),
    )
    found = read_context(f"{one}:{two}")
    assert (found.name, found.namespace) == ("a", "first")
    assert found.user.text("token") == "first"
    assert found.cluster.text("server") == "https://two"
    assert found.cluster.path("certificate-authority") == tmp_path / "two" / "ca.crt"


def test_files_that_are_not_there_are_passed_over(tmp_path: Path) -> None:
    one = write(
        tmp_path / "config",
        contexts=named("context", a={"cluster": "c"}),
        clusters=named("cluster", c={"server": "https://one"}),
    )
    found = read_context(f"{tmp_path / 'none'}::{one}", "a")
    assert found.namespace == "default"
    assert found.user.fields == {}


@pytest.mark.parametrize("value", ["", ":", "/nowhere/at/all"])
def test_no_file_at_all(value: str) -> None:
    with pytest.raises(KubeconfigError, match="missing or empty"):
        read_context(value)


def test_data_goes_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from the file")
    fields = {"key": "key", "key-data": base64.b64encode(b"inline").decode()}
    assert Entry("u", fields, tmp_path).data("key") == b"inline"
    assert Entry("u", {"key": "key"}, tmp_path).data("key") == b"from the file"
    assert Entry("u", {}, tmp_path).data("key") == b""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key-data": "no base64!"}, "key-data is no base64"),
        ({"key": "missing"}, "missing: No such file"),
        ({"key": "."}, "Is a directory"),
        ({"key": 3}, "is no text"),
        ({"key-data": ["x"]}, "is no text"),
        ({"key-data": "é"}, "key-data is no base64"),
        ({"key": "a\0b"}, "is no text"),
        ({"key": "\ud800"}, "is no text"),
    ],
)
def test_data_that_is_none(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(KubeconfigError, match=words) as caught:
        Entry("u", fields, tmp_path).data("key")
    assert caught.value.hint


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
)
keys = st.sampled_from(
    ["current-context", "contexts", "clusters", "users", "name", "context", "cluster", "user"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.dictionaries(keys, trees | st.lists(st.dictionaries(keys, trees, max_size=4), max_size=3)))
def test_any_yaml_is_a_context_or_an_error_of_ours(tmp_path: Path, doc: dict[str, Any]) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(doc))
    with contextlib.suppress(KubeconfigError):
        read_context(str(path))
