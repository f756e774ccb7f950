"""What README, docs and examples import is public, and is there."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, EXAMPLES, README, ROOT, blocks, name_of, prose_of

# What users may rely on.
PUBLIC = frozenset(
    {
        "pool_bench.drivers.asyncpg",
        "pool_bench.errors",
        "pool_bench.pool",
        "pool_bench.pool.metrics",
        "pool_bench.servers",
        "pool_bench.surreal_pool",
        "pool_bench.targets",
    }
)
SOURCES = [
    *((name_of(path), path.read_text(encoding="utf-8")) for path in EXAMPLES),
    *((str(block), block.text) for block in blocks("python")),
]
CHANGES = ROOT / "CHANGELOG.md"
# In prose: a dotted name, or a module's file.
_NAME = re.compile(r"(?<![\w/])pool_bench(?:\.\w+)+(?!\w)")
_FILE = re.compile(r"`((?:[\w.]+/)+(?:[\w*]+\.\w+)?)`")
_CLASS = re.compile(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`")
_MODULE = re.compile(r"`([\w/]+\.py)`")
# Where results go.
_NOT_HERE = ("results/",)


def _imports(text: str) -> list[tuple[str, str]]:
    """The names that a program takes from the package: module and name, "" for the module itself."""
    names: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.module or "", alias.name) for alias in node.names]
    return [(module, name) for module, name in names if module.partition(".")[0] == "pool_bench"]


@pytest.mark.parametrize(("where", "text"), SOURCES, ids=[where for where, _ in SOURCES])
def test_programs_for_readers_import_what_is_public_and_is_there(where: str, text: str) -> None:
    for module, name in _imports(text):
        assert module in PUBLIC, f"{where} imports {module}"
        assert not name or hasattr(import_module(module), name), f"{where} imports {name} of {module}"


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_what_a_public_module_names_as_its_own_is_there(module: str) -> None:
    loaded = import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name)


def test_the_servers_have_no_other_names() -> None:
    with pytest.raises(AttributeError, match=r"pool_bench\.servers.*'EmbeddedOracle'"):
        _ = import_module("pool_bench.servers").EmbeddedOracle


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != CHANGES], ids=name_of)
def test_every_module_and_file_that_a_document_names_exists(path: Path) -> None:
    text = prose_of(path)
    for name in _NAME.findall(text):
        assert _resolves(name), name
    for name in _FILE.findall(text):
        # What is in the package is named as it is seen from there, or from one of its packages.
        assert any(ROOT.glob(name)) or any((ROOT / "pool_bench").rglob(name.rstrip("/"))), name


@pytest.mark.parametrize("name", ["CLAUDE.md", "docs/architecture.md"])
def test_every_class_that_is_spoken_of_exists(name: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pool_bench").rglob("*.py"))
    for spoken_of in _CLASS.findall(prose_of(ROOT / name)):
        assert re.search(rf"^class {spoken_of}\b", sources, re.MULTILINE), spoken_of


def _resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    try:
        import_module(name)
    except ModuleNotFoundError:
        parent, _, last = name.rpartition(".")
        return "." in name and hasattr(import_module(parent), last)
    return True


def test_every_module_that_another_ones_text_names_exists() -> None:
    for path in (ROOT / "pool_bench").rglob("*.py"):
        for name in _MODULE.findall(path.read_text(encoding="utf-8")):
            assert any((place / name).exists() for place in (path.parent, ROOT / "pool_bench", ROOT)), (
                path,
                name,
            )


def test_every_package_says_what_is_in_it() -> None:
    for path in (ROOT / "pool_bench").rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("module", ["pool_bench.servers", "pool_bench.targets"])
def test_importing_a_door_loads_no_driver_server_or_event_loop(module: str) -> None:
    heavy = ("asyncio", "asyncpg", "psycopg", "numpy", "surrealdb", "subprocess", "pool_bench.servers.kept")
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200
