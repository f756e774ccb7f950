"""The settings of a pool: validated once, with messages that name the field; and the SQL that they name."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

ResetPolicy = Literal["always", "transaction", "never"]
_POLICIES: Final[tuple[ResetPolicy, ...]] = ("always", "transaction", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When to stop trying to connect.

    Attributes:
        failures: failed connects in a row that open the breaker.
        open_for: seconds until one connect is tried again.

    Raises:
        ValueError: a value makes no sense; the message names the field.
    """

    failures: int = 5
    open_for: float = 60.0

    def __post_init__(self) -> None:
        _whole("breaker.failures", self.failures, 1)
        _seconds("breaker.open_for", self.open_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingConfig:
    """When to keep more or fewer connections warm; shares are of 1.

    Attributes:
        target: utilisation to aim at.
        up: utilisation above which to grow.
        down: utilisation below which to shrink.
        step: the most to change at once, as a share of the present size (at least one connection).
        interval: seconds between two changes, and over which utilisation is averaged.

    Raises:
        ValueError: a value makes no sense; the message names the field.
    """

    target: float = 0.7
    up: float = 0.8
    down: float = 0.5
    step: float = 0.2
    interval: float = 60.0

    def __post_init__(self) -> None:
        for name in ("target", "up", "down", "step"):
            _share(f"scaling.{name}", getattr(self, name))
        _seconds("scaling.interval", self.interval)
        if not self.down < self.target < self.up:
            raise ValueError("scaling.target must lie between scaling.down and scaling.up")
        if self.step == 0:
            raise ValueError("scaling.step must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """What makes a pool degraded or critical; shares are of 1.

    Attributes:
        degraded_utilisation: share of `max_size` leased, over ten seconds, from which on it is degraded.
        critical_utilisation: the same for critical. 1 is a pool that is full whenever it is looked at.
        degraded_failures: failed connects in a row from which on it is degraded.
        critical_failures: the same for critical, where no connection is left either.

    Raises:
        ValueError: a value makes no sense; the message names the field.
    """

    degraded_utilisation: float = 0.8
    critical_utilisation: float = 0.95
    degraded_failures: int = 1
    critical_failures: int = 3

    def __post_init__(self) -> None:
        for name in ("degraded_utilisation", "critical_utilisation"):
            _share(f"health.{name}", getattr(self, name))
        for name in ("degraded_failures", "critical_failures"):
            _whole(f"health.{name}", getattr(self, name), 1)
        for what in ("utilisation", "failures"):
            if getattr(self, f"degraded_{what}") > getattr(self, f"critical_{what}"):
                raise ValueError(f"health.critical_{what} must be at least health.degraded_{what}")
        if self.degraded_utilisation == 0:
            raise ValueError("health.degraded_utilisation must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """The settings of a pool; all times are seconds.

    Attributes:
        min_size: connections kept open, whatever the demand.
        max_size: connections there may be, those being opened and closed included.
        max_waiters: callers that may wait at once, None for any number.
        acquire_timeout: limit of an acquire that names none; covers waiting, connecting, validating.
        connect_timeout: limit of one connect with everything that is run on the new connection.
        connecting_limit: connections being opened at once; None for a third of `max_size`, but 4 to 16:
            a cold pool of up to 48 is full after three connects' time, and no server is stormed.
        max_lifetime: age at which a connection is replaced, None for never.
        max_lifetime_jitter: share of `max_lifetime` over which the ends of connections are spread,
            downwards. Wide, so that connections opened together are not replaced together.
        max_uses: leases after which a connection is replaced, 0 for any number.
        max_idle: idle time after which a connection beyond `min_size` is closed, None for never.
        validate_after_idle: a connection that has shown no life for this long is pinged before it is
            leased; 0.0 pings always, None never.
        validate_timeout: limit of that ping.
        health_check_interval: idle connections that have shown no life for this long are checked, None
            for never.
        health_check_query: run as the check; None for the connection's own ping.
        health_check_timeout: limit of a check.
        reset_on_return: "always" (or True) resets each connection that was used; "transaction" only
            where a transaction was left open, so that settings reach the next borrower; "never" (or
            False) resets nothing, and replaces connections that come back inside a transaction. Where
            a connection cannot tell that it was not used, or is in no transaction, it counts as if it were.
        reset_timeout: limit of a reset, after which the connection is dropped.
        query_timeout: limit of each query that a borrower runs, after which the server is asked to cancel it
            and the borrower has a TimeoutError; None for none. It needs connections that can bound their
            queries, as those of asyncpg and psycopg can, `raw` included.
        close_timeout: limit of the polite end of a connection, and of `close()` without a limit.
        connect_attempts: failed connects in a row after which the target counts as down.
        retry_base: longest pause after the first failed connect; doubles with each failure, as far as a
            tenth of the time since the first one or, if that is more, 4 `retry_base` (see `backoff`).
        retry_cap: longest pause there is.
        fail_fast: waiters fail at once, rather than at their timeout, while the target is down and no
            connection is left.
        breaker: the circuit breaker, None for none. None is the default because a breaker prolongs a
            short outage: a restart of two seconds costs `open_for`.
        leak_threshold: a lease held for longer is reported, and after a second one whose task has ended;
            None for never.
        leak_stack: keep the stack of each acquire for the report; costs some microseconds an acquire.
        leak_reclaim: take the connection of a reported lease away from its holder, and replace it.
        scaling: the automatic scaling, None for none.
        health: what makes the pool degraded or critical; see `get_stats`.
        on_connect: called with each new connection and awaited.
        session_sql: run on each new connection and, because a reset forgets it, after each reset.
        session_file: a file of such SQL, run before `session_sql`.
        schema_file: a file of SQL that is run on each new connection only.
        log_queries: log each `execute_query` with its times; literals are left out.
        slow_query: log queries that take longer as warnings, None for none.
        seed: for the jitter, None for a different one each time.

    Raises:
        ValueError: a value makes no sense; the message names the field.
    """

    min_size: int = 1
    max_size: int = 10
    max_waiters: int | None = None
    acquire_timeout: float = 30.0
    connect_timeout: float = 10.0
    connecting_limit: int | None = None
    max_lifetime: float | None = 3600.0
    max_lifetime_jitter: float = 0.4
    max_uses: int = 0
    max_idle: float | None = 300.0
    validate_after_idle: float | None = 0.5
    validate_timeout: float = 2.0
    health_check_interval: float | None = 30.0
    health_check_query: str | None = None
    health_check_timeout: float = 5.0
    reset_on_return: ResetPolicy | bool = "always"
    reset_timeout: float = 5.0
    query_timeout: float | None = None
    close_timeout: float = 5.0
    connect_attempts: int = 3
    retry_base: float = 0.05
    retry_cap: float = 2.0
    fail_fast: bool = False
    breaker: BreakerConfig | None = None
    leak_threshold: float | None = None
    leak_stack: bool = True
    leak_reclaim: bool = False
    scaling: ScalingConfig | None = None
    health: HealthConfig = field(default_factory=HealthConfig)
    on_connect: Callable[..., Awaitable[None]] | None = None
    session_sql: str | None = None
    session_file: Path | None = None
    schema_file: Path | None = None
    log_queries: bool = False
    slow_query: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        name = self.shown_name
        for setting, lowest in (("min_size", 0), ("max_size", 1), ("max_uses", 0), ("connect_attempts", 1)):
            _whole(name(setting), getattr(self, setting), lowest)
        if self.max_size < self.min_size:
            least = f"{name('min_size')} ({self.min_size})"
            raise ValueError(f"{name('max_size')} must be at least {least}, not {self.max_size}")
        for setting, lowest in (("max_waiters", 0), ("connecting_limit", 1)):
            if getattr(self, setting) is not None:
                _whole(name(setting), getattr(self, setting), lowest)
        for setting in (
            "connect_timeout",
            "validate_timeout",
            "health_check_timeout",
            "reset_timeout",
            "close_timeout",
            "retry_base",
            "retry_cap",
        ):
            _seconds(name(setting), getattr(self, setting))
        for setting in (
            "max_lifetime",
            "max_idle",
            "health_check_interval",
            "query_timeout",
            "leak_threshold",
        ):
            if getattr(self, setting) is not None:
                _seconds(name(setting), getattr(self, setting))
        _seconds(name("acquire_timeout"), self.acquire_timeout, zero=True, endless=True)
        for setting in ("validate_after_idle", "slow_query"):
            if getattr(self, setting) is not None:
                _seconds(name(setting), getattr(self, setting), zero=True)
        _share(name("max_lifetime_jitter"), self.max_lifetime_jitter)
        if self.retry_cap < self.retry_base:
            raise ValueError(
                f"{name('retry_cap')} must be at least {name('retry_base')} ({self.retry_base:g})"
            )
        if not isinstance(self.reset_on_return, bool) and self.reset_on_return not in _POLICIES:
            raise ValueError(f"{name('reset_on_return')} must be one of {', '.join(_POLICIES)}, or a bool")

    def shown_name(self, setting: str) -> str:
        """What a message calls a setting; a subclass whose users know it by another name tells that."""
        return setting

    @property
    def openings_at_once(self) -> int:
        """`connecting_limit`, or what None stands for."""
        if self.connecting_limit is not None:
            return self.connecting_limit
        return min(16, max(4, math.ceil(self.max_size / 3)))

    @property
    def reset_policy(self) -> ResetPolicy:
        """`reset_on_return` by its name."""
        if isinstance(self.reset_on_return, bool):
            return "always" if self.reset_on_return else "never"
        return self.reset_on_return


def _whole(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, not {value!r}")


def _seconds(name: str, value: object, *, zero: bool = False, endless: bool = False) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (number >= 0 if zero else number > 0) or (math.isinf(number) and not endless):
        raise ValueError(f"{name} must be seconds {'of at least' if zero else 'above'} 0, not {value!r}")


def _share(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, not {value!r}")


def read_session(config: PoolConfig) -> tuple[tuple[str, ...], str | None]:
    """The session's SQL in the order in which it is run, and the schema's.

    Raises:
        ValueError: a file cannot be read; the message names the field.
    """
    session: list[str] = []
    if config.session_file is not None:
        session.append(_read("session_file", config.session_file))
    if config.session_sql is not None:
        session.append(config.session_sql)
    schema = _read("schema_file", config.schema_file) if config.schema_file is not None else None
    return tuple(sql for sql in session if sql.strip()), schema


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{name}: {path} cannot be read: {reason}") from error
