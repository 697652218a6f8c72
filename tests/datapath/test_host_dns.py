"""The machine's own DNS, as its files say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from telehelper.core.resolv_conf import ResolvConf
from telehelper.datapath.host_dns import find_layer, read_host_dns
from telehelper.messages import Configure, SetDns
from telehelper.netd.permits import check_configure, check_dns

if TYPE_CHECKING:
    from pathlib import Path

OURS = "198.19.240.2"


def read(folder: Path, text: str, uplinks: str | None = None) -> ResolvConf:
    (folder / "resolv.conf").write_text(text)
    if uplinks is not None:
        (folder / "uplinks").write_text(uplinks)
    return read_host_dns(OURS, folder / "resolv.conf", folder / "uplinks")


def test_nameservers_and_search_names_but_never_ourselves(tmp_path: Path) -> None:
    text = f"nameserver 10.0.0.1\nnameserver {OURS}\nsearch Corp.example. lab\n"
    assert read(tmp_path, text) == ResolvConf(("10.0.0.1",), ("corp.example", "lab"))


def test_no_file_is_no_dns(tmp_path: Path) -> None:
    assert read_host_dns(OURS, tmp_path / "missing") == ResolvConf()


def test_resolveds_stub_is_replaced_by_what_it_uses(tmp_path: Path) -> None:
    stub = "nameserver 127.0.0.53\nsearch corp.example\n"
    assert read(tmp_path, stub).nameservers == ("127.0.0.53",), "nothing better is known"
    both = read(tmp_path, stub, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n")
    assert both == ResolvConf(("10.0.0.1", "10.0.0.2"), ("corp.example",))


@pytest.mark.parametrize(
    "name", [".", "-a", "a-", "a..b", "a" * 64, ".".join(["a" * 63] * 4), "é", "_ldap.corp"]
)
def test_netd_permits_what_is_left(tmp_path: Path, name: str) -> None:
    search = read(tmp_path, f"search {name} corp.example\n").search
    assert search[-1] == "corp.example"
    config = check_configure(Configure((), (f"{OURS}/32",)))
    check_dns(SetDns("auto", OURS, search), config)


def layer(server: str, below: str, kind: str = "file") -> str:
    was = json.dumps({"kind": kind, "text": below})
    return f"# telemagic netd 1 2 a-b\n# was {was}\nnameserver {server}\n"


def test_what_our_file_replaced_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    company = "nameserver 10.0.0.1\n"
    path.write_text(layer("198.19.240.9", layer("198.19.240.1", company)))
    assert find_layer("198.19.240.1", path) == company
    assert find_layer("198.19.240.5", path) is None
    assert read_host_dns("198.19.240.1", path).nameservers == ("10.0.0.1",)
    assert read_host_dns("198.19.240.9", path).nameservers == ("198.19.240.1",)
    assert read_host_dns("198.19.240.5", path).nameservers == ("198.19.240.9",)


def test_what_our_file_replaced_was_a_link(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    (tmp_path / "stub").write_text("nameserver 10.0.0.7\n")
    path.write_text(layer("198.19.240.1", "stub", "link"))
    assert read_host_dns("198.19.240.1", path).nameservers == ("10.0.0.7",)


@pytest.mark.parametrize("was", ["{broken}", "{}", '{"kind": 1, "text": 2}'])
def test_an_edited_file_is_nobodys(tmp_path: Path, was: str) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(f"# telemagic netd 1 2 a-b\n# was {was}\nnameserver 10.0.0.1\n")
    assert find_layer("198.19.240.1", path) is None
