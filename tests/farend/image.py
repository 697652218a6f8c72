"""A container image of the manager, made of what is installed here: what the Containerfile makes of a registry's parts.

The Python that runs the tests stands for the base image, the environment's packages for what pip would download: those
of pyproject.toml's dependency group `manager` and what they require, nothing else. So a module that the manager needs
and that the group does not bring is missing in the container, too.

A second image shares the layer and does nothing: it holds a pod's namespaces, as Kubernetes' `pause` does.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPOSITORY: Final = Path(__file__).parents[2]
CONTAINERFILE: Final = REPOSITORY / "helper/telehelper/manager/Containerfile"
MANIFESTS: Final = CONTAINERFILE.with_name("manifests")
MANAGER: Final = (
    "docker.io/telemagic/manager:dev"  # how containerd spells the manifests' telemagic/manager:dev
)
PAUSE: Final = "docker.io/telemagic/pause:dev"
ARCHIVE: Final = "images.tar"
_LEFT_OUT: Final = frozenset(
    {
        *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"),
        *("lib2to3", "pydoc_data"),
    }
)
_ACCOUNTS: Final = {
    "etc/passwd": "root:x:0:0::/:/bin/false\nnonroot:x:65532:65532::/:/bin/false\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_HOLD_ON: Final = "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"


def requirements() -> list[str]:
    """Return what the image installs besides our own wheel."""
    found: list[str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"][
        "manager"
    ]
    return found


def closure(wanted: Iterable[str]) -> list[metadata.Distribution]:
    """Return the installed distributions that satisfy requirements, and what they require in turn."""
    todo = [Requirement(text) for text in wanted]
    found: dict[str, metadata.Distribution] = {}
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        todo += [Requirement(text) for text in found[name].requires or ()]
    return list(found.values())


def build(folder: Path) -> Path:
    """Make the images in a folder; return an archive as `docker save` writes it, with both."""
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for target, source in sorted(_files().items()):
            entry = tar.gettarinfo(source, target)
            _add(tar, entry, source)
        for target, text in _ACCOUNTS.items():
            entry = tarfile.TarInfo(target)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for target in ("etc/resolv.conf", "etc/hosts", "etc/hostname"):
            tar.addfile(tarfile.TarInfo(target))
        _add_link(tar, "usr/local/bin/python", _interpreter())
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    unfinished = folder / "unfinished.tar"
    with tarfile.open(unfinished, "w") as tar:
        tar.add(layer, f"{digest}/layer.tar")
        manifest = [
            _describe(tar, digest, MANAGER, ["python", "-P", "-m", "telehelper.manager"]),
            _describe(tar, digest, PAUSE, ["python", "-I", "-S", "-c", _HOLD_ON]),
        ]
        _add_text(tar, "manifest.json", json.dumps(manifest))
    layer.unlink()
    return unfinished.rename(folder / ARCHIVE)


def _describe(tar: tarfile.TarFile, layer: str, name: str, entrypoint: list[str]) -> dict[str, Any]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}
    config = {
        "architecture": machine.get(_machine(), _machine()),
        "os": "linux",
        "config": {
            "Entrypoint": entrypoint,
            "User": "65532:65532",
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
    }
    text = json.dumps(config)
    file = f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    _add_text(tar, file, text)
    return {"Config": file, "RepoTags": [name], "Layers": [f"{layer}/layer.tar"]}


def _machine() -> str:
    return sysconfig.get_platform().rpartition("-")[2]


def _files() -> dict[str, Path]:
    """Return all files of the layer by their path in it, without a leading slash."""
    base = _base_paths()
    found = {_inside(path): path for path in _standard_library(base)}
    packages = Path(base["purelib"])
    for distribution in closure(requirements()):
        for file in distribution.files or ():
            if ".." not in file.parts:
                found[_inside(packages / file)] = Path(distribution.locate_file(file))
    for source in (REPOSITORY / "telemagic", REPOSITORY / "helper/telehelper"):
        for path in source.rglob("*.py"):
            found[_inside(packages / source.name / path.relative_to(source))] = path
    own = metadata.distribution("telemagic")
    info = next(file for file in own.files or () if file.name == "METADATA")
    found[_inside(packages / info)] = Path(own.locate_file(info))
    found[_inside(_interpreter())] = _interpreter()
    found |= {_inside(path): path for path in _libraries(found.values())}
    return {target: path for target, path in found.items() if path.is_file()}


def _interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _base_paths() -> dict[str, str]:
    """Return the paths of the Python that the environment was made with; within it they are the environment's own."""
    code = "import json, sysconfig; print(json.dumps(sysconfig.get_paths()))"
    done = subprocess.run([_interpreter(), "-I", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _standard_library(base: dict[str, str]) -> Iterator[Path]:
    for root in {base["stdlib"], base["platstdlib"]}:
        for path in Path(root).rglob("*"):
            parts = path.relative_to(root).parts
            is_useless = parts[0].startswith("config-") or ".opt-" in path.name or "_tkinter" in path.name
            if not (_LEFT_OUT & {*parts} or is_useless):
                yield path


def _libraries(files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that programs and libraries among the files are linked with, and the loader."""
    binaries = [path for path in files if ".so" in path.suffixes or path == _interpreter()]
    done = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False)
    words = (
        line.split("=>")[-1].split(" (")[0].strip() for line in done.stdout.splitlines() if "(0x" in line
    )
    return {Path(word) for word in words if word.startswith("/")}


def _inside(path: Path) -> str:
    return str(path.absolute()).lstrip("/")


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, source: Path) -> None:
    with source.open("rb") as file:  # a link to a file becomes that file
        status = source.stat()
        entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", status.st_size
        entry.mode = (
            0o755 if status.st_mode & 0o111 else 0o644
        )  # whoever owns it here, anybody may read it there
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        tar.addfile(entry, file)


def _add_link(tar: tarfile.TarFile, name: str, target: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, str(target)
    tar.addfile(entry)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    tar.addfile(entry, io.BytesIO(text.encode()))
