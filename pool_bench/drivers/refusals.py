"""Settings of a target that a driver cannot honour: refused before anything is sent, never dropped.

`wire` honours everything that a `Target` can ask for, and psycopg what its libpq knows. asyncpg has SCRAM
without channel binding (`asyncpg/protocol/scram.pyx`), names the server by SNI wherever it has a name, and
speaks protocol 3.0. A setting that only states a preference (`channel_binding=prefer`) is met by any driver.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.targets import Target
from pool_bench.targets.postgres import Host, PostgresTarget

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
        if isinstance(target, PostgresTarget):
            setting = _unknown(driver, target)
            if setting is not None:
                others = "wire or psycopg" if driver == "asyncpg" else "wire"
                raise UsageError(f"{target}: {driver} cannot honour {setting}; {others} can")
            if driver in ("asyncpg", "psycopg"):
                target.shared_password(driver)


def has_protocol_3_2() -> bool:
    """Whether psycopg's libpq knows of newer versions of the protocol."""
    from psycopg import pq

    return pq.version() >= _LIBPQ_18


def _unknown(driver: str, target: PostgresTarget) -> str | None:
    """The first setting of `target` that `driver` has no way to honour."""
    newer = target.max_protocol_version == "3.2"
    if driver == "psycopg":
        return "max_protocol_version=3.2" if newer and not has_protocol_3_2() else None
    if driver != "asyncpg":
        return None
    if target.channel_binding == "require":
        return "channel_binding=require"
    if target.load_balance_hosts:
        return "load_balance_hosts=random"
    if not target.sslsni and target.sslmode != "disable" and any(map(_has_name, target.hosts)):
        return "sslsni=0"
    return "max_protocol_version=3.2" if newer else None


def _has_name(host: Host) -> bool:
    """Whether TLS would tell a server this host's name: addresses are never told (RFC 6066, section 3)."""
    if host.is_unix:
        return False
    try:
        ipaddress.ip_address(host.address or host.name)
    except ValueError:
        return True
    return False
