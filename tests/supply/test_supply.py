"""What we need from others: pinned, licensed, listed; and the same source gives the same wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import telehelper
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply.closure import by_part, needed
from tests.supply.licences import EXCEPTED, is_allowed, licence_of
from tests.supply.sbom import LOCK, ROOT, Pin, bill, pins

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LICENCES = ROOT / "docs" / "licences.md"


# --- the lock ----------------------------------------------------------------------------------------------------


def test_all_that_is_declared_is_pinned_as_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = [
        Requirement(text)
        for text in (*PROJECT["dependencies"], *extras["demo"], *extras["manager"], *extras["test"])
    ]
    locked = {pin.name: pin for pin in pins()}
    for requirement in declared:
        name = canonicalize_name(requirement.name)
        if name != "telemagic":
            assert name in locked, f"{requirement}: run make lock"
            assert requirement.specifier.contains(locked[name].version, prereleases=True), (
                f"{requirement}: run make lock"
            )


def test_each_pin_has_hashes() -> None:
    found = pins()
    assert len(found) > 100
    assert [pin.name for pin in found if not pin.hashes] == []
    assert not re.search(
        r"^-e|://|@ ", LOCK.read_text(), re.MULTILINE
    )  # from the registry only, and from no file


def test_all_that_is_reached_is_pinned() -> None:
    assert needed("product") | needed("demo") <= {pin.name for pin in pins()}


def test_a_lock_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    digest = "0" * 64
    path.write_text(
        f"# by hand\nA.b==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:{digest}\n    # via c\n"
    )
    assert pins(path) == [Pin("a.b", "1.0", "python_full_version < '3.12'", (digest,))]


# --- licences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(by_part()))
def test_its_licence_is_one_of_those_allowed(name: str) -> None:
    assert is_allowed(licence_of(name)) or name in EXCEPTED, licence_of(name)


def test_nothing_is_excepted_in_vain() -> None:
    assert set(EXCEPTED) <= set(by_part())


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL", False),
        ("GPL OR Apache-2.0", True),
        ("MIT AND GPL", False),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", True),
        ("GPL AND (MIT OR BSD)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT License, see LICENSE", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


def test_the_list_in_docs_has_all_of_them() -> None:
    listed = {
        line.split(" | ")[0].removeprefix("| ")
        for line in LICENCES.read_text().splitlines()
        if line.startswith("| ")
    }
    missing = {name for name, part in by_part().items() if part != "test"} - listed
    assert not missing, "run: python -m tests.supply --licences"


# --- the bill of materials ---------------------------------------------------------------------------------------


def test_the_bill_of_materials_is_valid_and_always_the_same() -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    text = json.dumps(bill(telehelper.__version__))
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text) is None
    assert json.dumps(bill(telehelper.__version__)) == text


def test_the_bill_names_what_the_product_needs_and_no_test_tools() -> None:
    document: dict[str, Any] = bill("1.0")
    names = {each["name"] for each in document["components"]}
    assert names >= needed("product")
    assert not names & {"pytest", "ruff", "mypy"}
    assert {each["scope"] for each in document["components"]} == {"required", "optional"}
    (tree,) = document["dependencies"]
    assert set(tree["dependsOn"]) == {each["bom-ref"] for each in document["components"]}


# --- the wheel ---------------------------------------------------------------------------------------------------


def build(source: Path, folder: Path) -> bytes:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        command,
        cwd=source,
        env=env,
        check=True,
        capture_output=True,
        umask=0o077 if "b" in folder.name else 0o022,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel.read_bytes()


def test_the_same_source_gives_the_same_wheel(tmp_path: Path) -> None:
    for name in ("source", "other"):  # another folder, other times
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".ruff_cache")
        for part in ("telemagic", "helper"):
            shutil.copytree(
                ROOT / part, tmp_path / name / part, ignore=ignored, copy_function=shutil.copyfile
            )
        for part in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / part, tmp_path / name / part)
    assert build(tmp_path / "source", tmp_path / "a") == build(tmp_path / "other", tmp_path / "b")
