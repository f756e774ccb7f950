"""Imports go one way, as the table of layers in the design says."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pool_bench"

# From the bottom; what stands in one row may not import each other, but for the plain data.
LAYERS = (
    (
        *("cleaning", "costs", "errors", "units", "histogram", "stats", "conninfo", "service_file"),
        *("targets", "targets_surreal", "objectives"),
        *("syn_steps", "steadiness", "verdict", "verdict_client", "reasons", "calibration"),
        *("runs", "timeline", "holds", "checkouts", "sizing", "between", "server_side"),
        *("server_cpu", "client_time", "addresses", "starving", "hanging"),
        *("walls", "walls_ahead", "growth"),
    ),
    ("pgwire",),
    ("drivers",),
    ("pool",),
    ("surreal_arguments",),
    ("surreal_pool", "spawning"),
    ("servers", "contenders", "watch", "faults"),
    ("load",),
    ("report",),
    ("cli", "pg_connection_bench", "pg_connection_load", "surreal_bench"),
)
NO_IO = {"asyncio", "socket", "ssl", "time", "select", "selectors", "threading", "subprocess", "datetime"}
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


def _layer(module: str) -> tuple[int, str] | None:
    part = module.split(".")[1] if module.startswith("pool_bench.") else module
    for rank, names in enumerate(LAYERS):
        if part in names:
            return rank, part
    return None


INTERNAL = {module: _imports(module) & FILES.keys() for module in FILES}


def test_every_module_has_its_place_in_a_layer() -> None:
    homeless = {m for m in FILES if _layer(m) is None} - {"pool_bench", "pool_bench.__main__"}
    assert not homeless


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards_only(module: str) -> None:
    own = _layer(module)
    for imported in INTERNAL[module]:
        other = _layer(imported)
        if own is None or other is None:
            continue
        aside = own[0] == other[0] and own[1] != other[1] and own[0] != 0
        assert other[0] <= own[0], f"{module} imports {imported} from a layer above"
        assert not aside or own[0] == len(LAYERS) - 1, f"{module} imports {imported} from beside it"


def test_the_pool_and_the_load_put_on_it_do_not_know_each_other() -> None:
    for module, imported in INTERNAL.items():
        for one, other in (("load", "pool"), ("pool", "load")):
            if module.startswith(f"pool_bench.{one}."):
                assert not any(f"{name}.".startswith(f"pool_bench.{other}.") for name in imported), module


@pytest.mark.parametrize("module", sorted(name for name in FILES if _layer(name) and _layer(name)[0] <= 1))  # type: ignore[index]
def test_plain_data_and_protocol_do_no_io(module: str) -> None:
    roots = {name.partition(".")[0] for name in _imports(module)}
    # A point in time is data, asking for it is not.
    assert not roots & (NO_IO - ({"datetime"} if module == "pool_bench.runs" else set()))


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
