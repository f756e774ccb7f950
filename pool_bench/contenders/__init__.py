"""The pools that are put under load, behind one protocol; each needs only its own package."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from pool_bench.contenders.base import (
    ALWAYS_PREPARE,
    CONTENDER_NAMES,
    RESET_MODES,
    SURREAL_CONTENDER_NAMES,
    Contender,
    ContenderConfig,
    ContenderName,
    ResetMode,
    opened_at_first,
)
from pool_bench.errors import UsageError
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import SurrealTarget

__all__ = [
    "ALWAYS_PREPARE",
    "CONTENDER_NAMES",
    "RESET_MODES",
    "SURREAL_CONTENDER_NAMES",
    "Contender",
    "ContenderConfig",
    "ContenderName",
    "ResetMode",
    "check_installed",
    "is_installed",
    "make",
    "opened_at_first",
]

# Where each one is, by what it connects to; its module is only imported when it is made.
_REGISTRY: Final[Mapping[type[Target], Mapping[ContenderName, tuple[str, str]]]] = {
    PostgresTarget: {
        "reference": ("reference", "PostgresReference"),
        "asyncpg": ("asyncpg", "AsyncpgContender"),
        "psycopg": ("psycopg", "PsycopgContender"),
        "sqlalchemy": ("sqlalchemy", "SqlalchemyContender"),
        "naive": ("unpooled", "NaivePostgres"),
    },
    SurrealTarget: {
        "reference": ("surreal", "SurrealReference"),
        "shared": ("surreal", "SharedSurreal"),
        "naive": ("surreal", "NaiveSurreal"),
        "purreal": ("surreal", "PurrealContender"),
    },
}
_NEEDS: Final[dict[ContenderName, tuple[str, ...]]] = {
    "psycopg": ("psycopg_pool",),
    "sqlalchemy": ("sqlalchemy", "greenlet"),
    "purreal": ("purreal",),
}


def is_installed(name: ContenderName) -> bool:
    """Whether the contender's package is there; does not import it."""
    return all(find_spec(module) is not None for module in _NEEDS.get(name, ()))


def check_installed(name: ContenderName) -> None:
    """Make sure that the contender's package is there, without importing it.

    Raises:
        UsageError: it is not; says how to install it.
    """
    for module in _NEEDS.get(name, ()):
        if find_spec(module) is None:
            package = module.replace("_", "-")
            # Not an extra of ours, whose licence is another.
            what = package if name == "purreal" else "pool-bench[contenders]"
            raise UsageError(f"--pool: {name} needs {package}; install {what}")


def make(name: ContenderName, config: ContenderConfig[Target]) -> Contender[object]:
    """The contender of that name, not yet open.

    Raises:
        UsageError: there is none for such a target, its package is not installed, or a certificate file is
            unusable.
    """
    check_installed(name)
    registry = _REGISTRY[type(config.target)]
    if name not in registry:
        raise UsageError(f"--pool: unknown pool {name} (choose from {', '.join(registry)})")
    module, factory = registry[name]
    # What one leases is nobody's business but its own: load only hands it back.
    contender: Contender[object] = getattr(import_module(f"{__name__}.{module}"), factory)(config)
    return contender
