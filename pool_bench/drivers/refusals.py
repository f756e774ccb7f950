"""Settings of a target that a driver cannot honour: refused before anything is sent, never dropped.

`wire` honours everything that a `Target` can ask for, and psycopg what its libpq knows. asyncpg has SCRAM
without channel binding (`asyncpg/protocol/scram.pyx`), names the server by SNI wherever it has a name, and
speaks protocol 3.0. A setting that only states a preference (`channel_binding=prefer`) is met by any driver.
"""

from collections.abc import Iterable
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.targets import Target

# The driver through which a pool opens its connections; who is not in it is a driver itself.
_DRIVERS: Final = {"reference": "asyncpg", "naive": "asyncpg", "sqlalchemy": "asyncpg"}
# libpq's first version with max_protocol_version.
_LIBPQ_18: Final = 180_000


def check_settings(driver: str, targets: Iterable[Target]) -> None:
    """Make sure that a driver, or the one below a pool, can honour all that targets ask for.

    Raises:
        UsageError: it cannot; names the setting, the driver and who can. Or the password file has different
            passwords for the target's hosts, and the driver takes one.
    """
    driver = _DRIVERS.get(driver, driver)
    for target in targets:
        for setting in target.uncommon_settings:
            if not _honours(driver, setting):
                others = "wire or psycopg" if driver == "asyncpg" else "wire"
                raise UsageError(f"{target}: {driver} cannot honour {setting}; {others} can")
        if driver in ("asyncpg", "psycopg"):
            target.shared_password(driver)


def has_protocol_3_2() -> bool:
    """Whether psycopg's libpq knows of newer versions of the protocol."""
    from psycopg import pq

    return pq.version() >= _LIBPQ_18


def _honours(driver: str, setting: str) -> bool:
    """Whether `driver` can do as one of `Target.uncommon_settings` says."""
    if driver == "psycopg":
        return setting != "max_protocol_version=3.2" or has_protocol_3_2()
    return driver != "asyncpg"
