"""The manager's image: the Containerfile says what the tests' own image is made of, and what the manifests run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from itertools import pairwise
from typing import Final

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.farend import image

PROJECT: Final = tomllib.loads((image.REPOSITORY / "pyproject.toml").read_text())
_IMPORTED: Final = """
import json, sys
import telehelper.manager.main, telehelper.manager.certificate
print(json.dumps([m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]))
"""


def instructions() -> list[list[str]]:
    """Return the Containerfile's instructions as words."""
    text = image.CONTAINERFILE.read_text()
    lines = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ").splitlines()
    return [shlex.split(line, posix="[" not in line) for line in lines if line.strip()]


def arguments(name: str) -> list[list[str]]:
    return [words[1:] for words in instructions() if words[0] == name]


def test_the_image_has_the_projects_own_requirements_and_few_of_them() -> None:
    wanted = image.requirements()
    assert set(wanted) < set(PROJECT["project"]["dependencies"])
    assert not {"pandas", "ipython", "kubernetes", "pyroute2"} & {Requirement(text).name for text in wanted}


def test_the_image_has_every_package_that_the_manager_imports() -> None:
    found = json.loads(
        subprocess.run([sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True).stdout
    )
    owners = metadata.packages_distributions()
    inside = (path.partition("site-packages/")[2] for path in found)  # empty for the standard library
    names = {path.split("/")[0].split(".")[0] for path in inside if path}
    imported = {canonicalize_name(owner) for name in names for owner in owners.get(name, ())}
    brought = {canonicalize_name(each.metadata["Name"]) for each in image.closure(image.requirements())}
    assert imported - brought <= {
        "telemagic",
        "setuptools",
        "grpcio-tools",
    }  # what an environment loads by itself
    assert {"aiohttp", "grpcio", "uvloop"} <= imported & brought


@pytest.mark.parametrize("words", [words for words in arguments("COPY") if not words[0].startswith("--from")])
def test_what_is_copied_is_there(words: list[str]) -> None:
    for source in words[:-1]:
        assert (image.REPOSITORY / source).exists()


def test_what_pip_is_told_exists() -> None:
    (script,) = arguments("RUN")
    (group,) = [word for before, word in pairwise(script) if before == "--group"]
    file, _, name = group.partition(":")
    assert file in [word for words in arguments("COPY") for word in words]
    assert PROJECT["dependency-groups"][name] == image.requirements()
    assert script.count("--no-deps") == 1  # the wheel's own requirements are the notebook's


def test_the_image_runs_as_the_manifests_run_it() -> None:
    template = yaml.safe_load((image.MANIFESTS / "deployment.yaml").read_text())["spec"]["template"]
    (container,) = template["spec"]["containers"]
    security = template["spec"]["securityContext"]
    (user,) = arguments("USER")
    assert user == [f"{security['runAsUser']}:{security['runAsGroup']}"]
    (entrypoint,), (command,) = (
        [" ".join(words) for words in arguments(name)] for name in ("ENTRYPOINT", "CMD")
    )
    assert json.loads(entrypoint) == container["command"]
    assert json.loads(command) == container["args"]
    assert f"docker.io/{container['image']}" == image.MANAGER


def test_the_base_image_is_a_python_that_the_project_takes() -> None:
    bases = {words[0] for words in arguments("FROM")}
    (version,) = {re.fullmatch(r"docker\.io/library/python:(\d+\.\d+)-slim", base)[1] for base in bases}  # type: ignore[index]
    assert tuple(map(int, version.split("."))) >= (3, 11)
    assert PROJECT["project"]["requires-python"] == ">=3.11"
