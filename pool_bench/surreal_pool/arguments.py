"""What a pool of SurrealDB clients is made with, checked before anything is opened.

Who makes such a pool knows neither options of a command nor the settings of the pool below: messages name
parameters of `SurrealDBConnectionPool`. None contains a password.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.pool import PoolConfig, ScalingConfig
from pool_bench.targets.surreal import AuthLevel, SurrealTarget, surreal_target

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
_RETRY_CAP_S: Final = 2.0


class _Settings(PoolConfig):
    """The pool's settings, which messages call by the names of our parameters."""

    __slots__ = ()

    def shown_name(self, setting: str) -> str:
        return _PARAMETERS.get(setting, setting)


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
    query_timeout: float | None,
    log_queries: bool,
    scaling: ScalingConfig | None,
) -> PoolConfig:
    """The settings of the pool below; `SurrealDBConnectionPool` says what they mean.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    if scaling is not None and not isinstance(scaling, ScalingConfig):
        raise ValueError(f"scaling must be a ScalingConfig, not {_kind(scaling)}")
    is_number = isinstance(connection_retry_delay, int | float)
    return _Settings(
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
        query_timeout=query_timeout,
        log_queries=log_queries,
        scaling=scaling,
    )


def read_target(
    uri: str, credentials: Mapping[str, str] | None, namespace: str | None, database: str | None
) -> SurrealTarget:
    """Where to connect to, as whom, and what to select there.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """
    _check_text("uri", uri)
    given = _read_credentials(credentials)
    level: AuthLevel = "root"
    if "namespace" in given:
        level = "database" if "database" in given else "namespace"
    for name, where in (("namespace", namespace), ("database", database)):
        if where is None:
            continue
        _check_text(name, where)
        if given.get(name, where) != where:
            raise ValueError(f"credentials: the user's {name} is another than the one to be selected")
    namespace = given.get("namespace") if namespace is None else namespace
    database = given.get("database") if database is None else database
    if (namespace is None) != (database is None):
        raise ValueError("namespace and database are selected together: give both, or neither")
    try:
        target = surreal_target(
            uri,
            user=given.get("user"),
            password=given.get("password"),
            namespace=namespace,
            database=database,
            level=level,
            environ={},
        )
    except UsageError as error:
        raise ValueError(f"uri: {str(error).removeprefix('--url: ')}") from None
    if target.user is None:
        if given:
            raise ValueError(f"credentials: there is {' and '.join(given)}, but no username")
    elif target.password is None:
        raise ValueError("credentials: a username needs a password")
    elif not target.user:
        raise ValueError("uri: there is no user before the password")
    return target


def _read_credentials(credentials: Mapping[str, str] | None) -> dict[str, str]:
    if credentials is None:
        return {}
    if not isinstance(credentials, Mapping):
        raise ValueError(f"credentials must be a mapping, not {_kind(credentials)}")
    given: dict[str, str] = {}
    for name, value in credentials.items():
        if name not in _CREDENTIALS:
            raise ValueError(f"credentials: unknown key {name!r} (choose from {', '.join(_CREDENTIALS)})")
        # Whether a password will do is for the server to say.
        _check_text(f"credentials: {name}", value, may_be_empty=_CREDENTIALS[name] == "password")
        given[_CREDENTIALS[name]] = value
    return given


def read_name(name: str | None, target: SurrealTarget) -> str:
    """What the pool is called; without a name by its target, which is printed without a password.

    Raises:
        ValueError: it is empty, or no text.
    """
    if name is None:
        return f"surrealdb {target}"
    _check_text("name", name)
    return name


def check_on_create(callback: object) -> None:
    """Whether it can be called, if there is an `on_connection_create`.

    Raises:
        ValueError: it cannot.
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"on_connection_create must be a function, not {_kind(callback)}")


def _check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    # The value itself may be a secret.
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {_kind(value)}")
    if not value and not may_be_empty:
        raise ValueError(f"{name} must not be empty")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def read_schema(path: str | Path | None) -> str | None:
    """The statements of a `schema_file`, None where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except TypeError:
        raise ValueError(f"schema_file must be a path, not {_kind(path)}") from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"schema_file: {path} cannot be read: {reason}") from error
