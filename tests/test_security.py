"""SECURITY.md lists exactly what netd accepts, so that the review of it cannot grow old unnoticed."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from telehelper.codec import MAX_NETD_MESSAGE, Envelope
from telehelper.netd import permits

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()


def reviewed() -> list[tuple[str, str]]:
    table = TEXT.partition("## Root equivalence")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]*) \| ([^|]*)\|", table, re.MULTILINE)
    return [(request.strip(), field.strip()) for request, field in rows][1:]  # without the head


def test_every_field_that_netd_accepts_is_reviewed_and_no_other() -> None:
    accepted = [("envelope", field.name) for field in fields(Envelope) if field.name != "body"]
    for request in permits.PERMITS:
        names = [field.name for field in fields(request)]
        accepted += [(request.__name__, name) for name in names] or [(request.__name__, "")]
    assert sorted(reviewed()) == sorted(accepted)


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"at most {MAX_NETD_MESSAGE // 1024} KiB per message" in TEXT
    for words in (
        f"at most {permits.MAX_ADDRESSES}, host addresses",
        f"at most {permits.MAX_ROUTES:,}, each",
        f"at most {permits.MAX_SEARCH} names",
        f"at most {permits.MAX_DOMAINS} names",
        f"{permits.MTU_RANGE.start} to {permits.MTU_RANGE.stop - 1}",
        f"wide as /{permits.WIDEST}",
        f"/{permits.SHORTEST[4]} (IPv6: /{permits.SHORTEST[6]})",
    ):
        assert words in TEXT, words
    for pool in permits.HOST_POOLS:
        assert str(pool) in TEXT
    shown = re.search(r"none of (0/8[^;]*);", TEXT)
    assert shown is not None
    written = [str(network) for network in permits.FORBIDDEN]
    short = [re.sub(r"(\.0)+/", "/", text) for text in written]
    assert shown[1].split(", ") == short


def test_the_files_that_it_names_exist() -> None:
    for path in re.findall(r"`?((?:helper/)?[\w/]+\.py|helper/[\w/]+)`?", TEXT):
        assert list(ROOT.rglob(path)) or (ROOT / path).exists(), path


def test_it_is_about_a_page() -> None:
    assert len(TEXT.splitlines()) <= 100
