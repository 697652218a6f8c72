"""The machine's own DNS, as its files say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from telehelper.core.resolv_conf import ResolvConf
from telehelper.datapath.host_dns import read_host_dns
from telehelper.messages import Configure, RouteSpec, SetDns
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
    config = check_configure(Configure((), (RouteSpec(f"{OURS}/32"),)))
    check_dns(SetDns("auto", OURS, search), config)
