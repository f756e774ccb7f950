"""The pools that are put under load, behind one protocol; each needs only its own package."""

from importlib.util import find_spec
from typing import Final, cast

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


def make(name: ContenderName, config: ContenderConfig) -> Contender[object]:
    """The contender of that name, not yet open.

    Raises:
        UsageError: its package is not installed, or a certificate file is unusable.
    """
    check_installed(name)
    if isinstance(config.target, SurrealTarget):
        return _make_surreal(name, config)
    # What one leases is nobody's business but its own: load only hands it back.
    match name:
        case "reference":
            from pool_bench.contenders.reference import ReferenceContender

            return cast("Contender[object]", ReferenceContender(config))
        case "asyncpg":
            from pool_bench.contenders.asyncpg import AsyncpgContender

            return cast("Contender[object]", AsyncpgContender(config))
        case "psycopg":
            from pool_bench.contenders.psycopg import PsycopgContender

            return cast("Contender[object]", PsycopgContender(config))
        case "sqlalchemy":
            from pool_bench.contenders.sqlalchemy import SqlalchemyContender

            return cast("Contender[object]", SqlalchemyContender(config))
        case "naive":
            from pool_bench.contenders.naive import NaiveContender

            return cast("Contender[object]", NaiveContender(config))
        case _:
            raise UsageError(f"--pool: {name} is none of PostgreSQL's")


def _make_surreal(name: ContenderName, config: ContenderConfig) -> Contender[object]:
    from pool_bench.contenders import surreal

    match name:
        case "reference":
            return cast("Contender[object]", surreal.ReferenceSurreal(config))
        case "shared":
            return cast("Contender[object]", surreal.SharedSurreal(config))
        case "naive":
            return cast("Contender[object]", surreal.NaiveSurreal(config))
        case "purreal":
            return cast("Contender[object]", surreal.PurrealContender(config))
        case _:
            raise UsageError(f"--pool: {name} is none of SurrealDB's")
