"""Imports go one way: between the packages, and inside those that are large enough to have storeys."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pool_bench"

# From the bottom; what stands in one row may not import each other.
LAYERS = (
    ("cleaning", "units", "processes"),
    ("errors",),
    ("pgwire",),
    ("targets",),
    ("stats",),
    ("analysis",),
    ("drivers",),
    ("pool",),
    ("surreal_pool",),
    ("servers", "contenders", "watch", "faults"),
    ("load",),
    ("results",),
    ("compare",),
    ("report",),
    ("cli",),
    ("__main__", "pg_connection_bench", "pg_connection_load", "surreal_bench"),
)
# The same inside one package. Modules that no row names stand on the floor of all others of theirs.
STOREYS = {
    "drivers": (("base", "network"), ("wire", "surreal", "asyncpg", "psycopg")),
    "servers": (
        ("host", "priority", "leftovers", "keeper"),
        ("kept",),
        ("postgres", "pgbouncer", "surreal", "scripted"),
    ),
    "watch": (("sampler", "machine"), ("postgres",), ("surreal",), ("watcher",)),
    "load": (
        ("arrivals", "backoff", "resident", "timer", "thread_time", "ticks", "share"),
        ("spec", "messages"),
        ("gates", "merging"),
        ("workload", "probes", "parameters", "drivers", "splitting"),
        ("dispatcher", "dialer"),
        ("connect", "hold", "pool"),
        ("workloads", "division"),
        ("generator",),
        ("process", "child"),
        ("run", "cluster"),
        ("calibrate",),
    ),
    "report": (("text", "buckets", "markdown"), ("summary",), ("live", "brief", "plot")),
    "cli": (
        ("early", "argv", "signals", "limits", "outlets", "status", "advice", "preflight"),
        ("options",),
        ("entry", "help_pages", "walls", "reserve", "session"),
        ("places",),
        ("plan",),
        ("watching",),
        ("commands",),
    ),
}
NO_IO = {"asyncio", "socket", "ssl", "time", "select", "selectors", "threading", "subprocess", "datetime"}
WITHOUT_IO = {"cleaning", "units", "errors", "pgwire", "targets", "stats", "analysis"}
MAX_LINES = 500


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in (*PACKAGE.rglob("*.py"), *ROOT.glob("*.py"))}


def _imports(module: str) -> set[str]:
    """Everything `module` imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            source = node.module or ""
            submodules = {f"{source}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= submodules
            # `from package import module` needs the package's own names only where it takes some.
            if len(submodules) < len(node.names):
                found.add(source)
    return found


def _place(name: str, rows: tuple[tuple[str, ...], ...]) -> int | None:
    return next((rank for rank, names in enumerate(rows) if name in names), None)


def _part(module: str) -> str:
    return module.split(".")[1] if module.startswith("pool_bench.") else module


INTERNAL = {module: _imports(module) & FILES.keys() for module in FILES}


def test_every_module_has_its_place_in_a_layer() -> None:
    assert not {m for m in FILES if _place(_part(m), LAYERS) is None} - {"pool_bench"}


def test_every_storey_that_is_named_exists() -> None:
    for package, rows in STOREYS.items():
        for name in (name for row in rows for name in row):
            assert f"pool_bench.{package}.{name}" in FILES


def test_the_packages_root_holds_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= len(("__init__", "__main__")) + 4


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards_only(module: str) -> None:
    assert not {imported for imported in INTERNAL[module] if _runs_up(module, imported)}


def _runs_up(module: str, imported: str) -> bool:
    """Whether that import goes to a layer above or beside, or to such a storey of one package."""
    if "pool_bench" in (module, imported):
        return False
    own, other = _part(module), _part(imported)
    if own != other:
        return _is_up(_place(own, LAYERS), _place(other, LAYERS))
    rows = STOREYS.get(own, ())
    inside, within = (name.split(".")[2] if name.count(".") > 1 else "" for name in (module, imported))
    return inside != within and _is_up(_place(inside, rows), _place(within, rows))


def _is_up(own: int | None, other: int | None) -> bool:
    return own is not None and other is not None and other >= own


def test_the_pool_and_the_load_put_on_it_do_not_know_each_other() -> None:
    for module, imported in INTERNAL.items():
        for one, other in (("load", "pool"), ("pool", "load")):
            if module.startswith(f"pool_bench.{one}."):
                assert not any(f"{name}.".startswith(f"pool_bench.{other}.") for name in imported), module


@pytest.mark.parametrize("module", sorted(name for name in FILES if _part(name) in WITHOUT_IO))
def test_plain_data_and_protocol_do_no_io(module: str) -> None:
    roots = {name.partition(".")[0] for name in _imports(module)}
    assert not roots & NO_IO


def test_the_protocol_needs_nothing_but_the_standard_library() -> None:
    for module in FILES:
        if module.startswith("pool_bench.pgwire"):
            for name in _imports(module):
                root = name.partition(".")[0]
                assert root in sys.stdlib_module_names or name.startswith("pool_bench.pgwire"), (module, name)


def test_no_imports_go_in_circles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in INTERNAL[module]:
                # A package's own `__init__` is run first; it gathers its modules' names.
                if imported != module:
                    visit(imported, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def test_no_module_is_too_long_to_read() -> None:
    long = {
        module
        for module, path in FILES.items()
        if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES
    }
    assert not long
