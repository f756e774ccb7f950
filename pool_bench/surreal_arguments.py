"""What a pool of SurrealDB clients is made with, checked before anything is opened.

Who makes such a pool knows neither options of a command nor the settings of the pool below: messages name
parameters of `SurrealDBConnectionPool`. None contains a password.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.pool import PoolConfig
from pool_bench.targets_surreal import AuthLevel, SurrealTarget, surreal_target

# The names of the official client, and those of SurrealDB's own protocol.
_CREDENTIALS: Final = {
    "username": "user",
    "user": "user",
    "password": "password",
    "pass": "password",
    "namespace": "namespace",
    "ns": "namespace",
    "database": "database",
    "db": "database",
}

# The parameters that go by another name in the settings of the pool below.
_PARAMETERS: Final = {
    "min_size": "min_connections",
    "max_size": "max_connections",
    "acquire_timeout": "acquisition_timeout",
    "max_idle": "max_idle_time",
    "max_uses": "max_usage_count",
    "connect_timeout": "connection_timeout",
    "connect_attempts": "connection_retry_attempts",
    "retry_base": "connection_retry_delay",
}
# What a quote begins is a value, and is shown as it was given.
_FIELD: Final = re.compile(rf"(?<!')\b(?:{'|'.join(_PARAMETERS)})\b")
_RETRY_CAP_S: Final = 2.0


def read_settings(
    *,
    min_connections: int,
    max_connections: int,
    acquisition_timeout: float,
    max_idle_time: float,
    max_usage_count: int,
    connection_timeout: float,
    connection_retry_attempts: int,
    connection_retry_delay: float,
    health_check_interval: float,
    reset_on_return: bool,
    log_queries: bool,
) -> PoolConfig:
    """The settings of the pool below; `SurrealDBConnectionPool` says what they mean.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    is_number = isinstance(connection_retry_delay, int | float)
    try:
        return PoolConfig(
            min_size=min_connections,
            max_size=max_connections,
            acquire_timeout=acquisition_timeout,
            max_idle=max_idle_time,
            max_uses=max_usage_count,
            connect_timeout=connection_timeout,
            connect_attempts=connection_retry_attempts,
            retry_base=connection_retry_delay,
            # What is no number cannot be compared; the settings say so.
            retry_cap=max(connection_retry_delay, _RETRY_CAP_S) if is_number else _RETRY_CAP_S,
            health_check_interval=health_check_interval,
            reset_on_return=reset_on_return,
            log_queries=log_queries,
        )
    except ValueError as error:
        raise ValueError(_FIELD.sub(lambda match: _PARAMETERS[match[0]], str(error))) from None


def read_target(
    uri: str, credentials: Mapping[str, str] | None, namespace: str | None, database: str | None
) -> SurrealTarget:
    """Where to connect to, as whom, and what to select there.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    if not uri:
        raise ValueError("uri: there is none")
    said = _read_credentials(credentials)
    level: AuthLevel = "root"
    if "namespace" in said:
        level = "database" if "database" in said else "namespace"
    for name, where in (("namespace", namespace), ("database", database)):
        if where is not None and said.get(name, where) != where:
            raise ValueError(f"credentials: the user's {name} is another than the one to be selected")
    namespace, database = namespace or said.get("namespace"), database or said.get("database")
    if (namespace is None) != (database is None):
        raise ValueError("namespace and database are selected together: give both, or neither")
    try:
        target = surreal_target(
            uri,
            user=said.get("user"),
            password=said.get("password"),
            namespace=namespace,
            database=database,
            level=level,
            environ={},
        )
    except UsageError as error:
        raise ValueError(f"uri: {str(error).removeprefix('--url: ')}") from None
    if target.user is not None and target.password is None:
        raise ValueError("credentials: a username needs a password")
    return target


def _read_credentials(credentials: Mapping[str, str] | None) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, value in (credentials or {}).items():
        if name not in _CREDENTIALS:
            raise ValueError(f"credentials: {name!r} is none of {', '.join(_CREDENTIALS)}")
        said[_CREDENTIALS[name]] = value
    return said


def read_schema(path: str | Path | None) -> str | None:
    """The statements of a `schema_file`, None where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"schema_file: {path} cannot be read: {reason}") from error
