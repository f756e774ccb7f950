"""A pool of official SurrealDB clients, over the reference pool.

    async with SurrealDBConnectionPool("ws://127.0.0.1:8000", {"username": "root", "password": "root"},
                                       "app", "app") as pool:
        async with pool.acquire() as client:
            await client.query("SELECT * FROM person")

A borrower gets the client itself, which remembers what was changed in its session
(`drivers/surreal/client_session.py`). One whose session is unchanged is idle again at once; another is
restored by a job of the pool, or replaced where a request was given up and its answer did not come in time.
No request is ever sent twice: a connection that is lost within one is an error of that request only.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from pool_bench.drivers.network.failures import one_line
from pool_bench.drivers.surreal.client import SurrealClientConnection, SurrealClientDriver, connect_error
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pool import ConnectionPool, Lease, PoolClosedError, PoolError, PoolState, ScalingConfig
from pool_bench.pool.query_log import log_query, shown_surrealql
from pool_bench.pool.statistics import PoolStatistics
from pool_bench.surreal_pool.arguments import (
    check_on_create,
    read_name,
    read_schema,
    read_settings,
    read_target,
)
from pool_bench.surreal_pool.numbers import PoolNumbers, continued, without_clients
from pool_bench.targets.surreal import SurrealTarget

if TYPE_CHECKING:
    from surrealdb.types import Value

    from pool_bench.drivers.surreal.client_session import TrackedHttp, TrackingWebSocket

    SurrealClient = TrackingWebSocket | TrackedHttp
    OnCreate = Callable[[SurrealClient], Awaitable[object] | object]


# Some times what a new client costs, of which the most is the hashing of its password.
_DRAIN_S: Final = 0.25


class PooledClient(SurrealClientConnection):
    """An official client as the pool keeps it."""

    __slots__ = ("_prepare",)

    def __init__(
        self,
        connection: SurrealClientConnection,
        prepare: "Callable[[SurrealClient], Awaitable[None]] | None",
    ) -> None:
        super().__init__(connection.raw, connection.target, connection.credentials)
        self._prepare = prepare

    @property
    def touched(self) -> bool:
        """Whether its session is not any more as it was lent."""
        return self.raw.is_changed

    @touched.setter
    def touched(self, value: bool) -> None:
        # What the pool clears is cleared by `reset`, which knows what there was to do.
        if value:
            raise ValueError("a session is changed by changing it")

    def limit_queries(self, seconds: float | None) -> None:
        """From now on wait no longer for the answer to a request; None for any time."""
        self.raw.query_timeout = seconds

    async def reset(self) -> None:
        """Make the session what it was when it was first lent.

        Raises:
            ConnectError: the connection is of no further use.
        """
        changes = self.raw.changes
        is_at_work = changes.given_up and not await self.raw.drain(_DRAIN_S)
        if changes.cut_off or is_at_work:
            raise ConnectError(FailureKind.CLOSED, Phase.QUERY, "a request was given up in the middle")
        await super().reset()
        if self._prepare is not None:
            await self._prepare(self.raw)


class SurrealClientConnector:
    """Opens official clients for a pool.

    Args:
        target: where to, and as whom.
        schema: statements that are run on each new connection; what they define may be there already.
        on_create: called with each new client and awaited where it is a coroutine function; if it changes the
            session (variables, namespace, database), also after each reset, which would undo that.

    Raises:
        UsageError: the target asks for what the client does not do.
    """

    def __init__(
        self, target: SurrealTarget, *, schema: str | None = None, on_create: "OnCreate | None" = None
    ) -> None:
        self._driver = SurrealClientDriver(target, direct=True)
        self._schema = schema
        self._on_create = on_create
        self._defining = asyncio.Lock()

    async def connect(self) -> PooledClient:
        """Open one.

        Raises:
            ConnectError: it could not be opened, or the schema failed.
            Exception: whatever `on_create` raises.
        """
        from pool_bench.drivers.surreal.client_session import SessionChanges

        connection = await self._driver.connect()
        raw = connection.raw
        try:
            if self._schema is not None:
                # Definitions of the same thing at the same time get into each other's way.
                async with self._defining:
                    await _define(raw, self._schema)
            prepare = None
            if self._on_create is not None:
                raw.changes = SessionChanges()
                await self._call(raw)
                prepare = self._prepare if raw.is_changed else None
        except BaseException:
            connection.terminate()
            raise
        raw.changes = SessionChanges()
        return PooledClient(connection, prepare)

    async def _prepare(self, raw: "SurrealClient") -> None:
        from pool_bench.drivers.surreal.client_session import SessionChanges

        await self._call(raw)
        raw.changes = SessionChanges()

    async def _call(self, raw: "SurrealClient") -> None:
        if self._on_create is None:
            return
        answer = self._on_create(raw)
        if inspect.isawaitable(answer):
            await answer


async def _define(raw: "SurrealClient", schema: str) -> None:
    """Run the statements of a schema; that something is there already is no error.

    Raises:
        ConnectError: a statement failed.
    """
    try:
        answer = await raw.query_raw(schema)
        raw.check_response_for_error(answer, "schema")
    except Exception as error:
        raise connect_error(error, Phase.QUERY) from error
    for statement in answer.get("result", ()):
        if statement.get("status") == "ERR" and not _is_there_already(statement):
            message = f"the schema failed: {one_line(statement.get('result'))}"
            raise ConnectError(FailureKind.OTHER, Phase.QUERY, message)


def _is_there_already(statement: "dict[str, Value]") -> bool:
    """Whether a statement only failed to define what was defined before."""
    # Not for all things is there a kind of error, and not on all servers.
    return statement.get("kind") == "AlreadyExists" or str(statement.get("result")).endswith("already exists")


class ClientLease:
    """What `acquire()` returns: awaited it gives a client, entered it also takes it back."""

    __slots__ = ("_lease", "_leased")

    def __init__(self, lease: Lease[PooledClient], leased: dict[int, PooledClient]) -> None:
        self._lease = lease
        self._leased = leased

    async def __aenter__(self) -> "SurrealClient":
        return (await self._lease.__aenter__()).raw

    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[object, object, None]:
        return self._lease.__aexit__(exc_type, exc, traceback)

    def __await__(self) -> "Generator[object, None, SurrealClient]":
        return self._take().__await__()

    async def _take(self) -> "SurrealClient":
        connection = await self._lease
        self._leased[id(connection.raw)] = connection
        return connection.raw


class SurrealDBConnectionPool:
    """Lends official SurrealDB clients to tasks of one event loop, each to one task at a time.

    Args:
        uri: `ws://`, `wss://`, `http://` or `https://`, with `/rpc` or without.
        credentials: `username` and `password`; with `namespace`, or `namespace` and `database`, of a user
            who is defined there. None stays anonymous.
        namespace, database: what is selected on each connection.
        min_connections: clients kept open, whatever the demand.
        max_connections: clients there may be.
        acquisition_timeout: limit of one acquire, seconds.
        max_idle_time: idle time after which a client beyond `min_connections` is closed, seconds.
        max_usage_count: leases after which a client is replaced.
        connection_timeout: limit of one connect, with sign-in and all, seconds.
        connection_retry_attempts: failed connects in a row after which the server counts as down.
        connection_retry_delay: longest pause after the first failed connect, seconds; doubles with each.
        health_check_interval: idle clients that showed no life for this long are checked, seconds.
        reset_on_return: restore namespace, database, variables and sign-in where a borrower changed them.
        query_timeout: limit of each request of a borrower, seconds, after which it has a TimeoutError; None
            for none. SurrealDB takes no cancellation and may go on with it (`TIMEOUT` in a statement ends it
            there); a client whose answer is still owed a moment after its return is replaced.
        schema_file: statements that are run on each new connection.
        on_connection_create: see `SurrealClientConnector`.
        log_queries: log each `execute_query` with its times; literals are left out.
        scaling: how many clients to keep open as demand changes; None for `min_connections` always.
        name: for messages, metrics and the manager of several pools; None names user and address.

    Raises:
        ValueError: a value makes no sense; the message names it.
    """

    def __init__(
        self,
        uri: str,
        credentials: Mapping[str, str] | None = None,
        namespace: str | None = None,
        database: str | None = None,
        min_connections: int = 4,
        max_connections: int = 10,
        acquisition_timeout: float = 10.0,
        max_idle_time: float = 300.0,
        max_usage_count: int = 1000,
        connection_timeout: float = 25.0,
        connection_retry_attempts: int = 3,
        connection_retry_delay: float = 1.0,
        health_check_interval: float = 30.0,
        reset_on_return: bool = True,
        query_timeout: float | None = None,
        schema_file: str | Path | None = None,
        on_connection_create: "OnCreate | None" = None,
        log_queries: bool = False,
        scaling: ScalingConfig | None = None,
        name: str | None = None,
    ) -> None:
        check_on_create(on_connection_create)
        target = read_target(uri, credentials, namespace, database)
        self.config: Final = read_settings(
            min_connections=min_connections,
            max_connections=max_connections,
            acquisition_timeout=acquisition_timeout,
            max_idle_time=max_idle_time,
            max_usage_count=max_usage_count,
            connection_timeout=connection_timeout,
            connection_retry_attempts=connection_retry_attempts,
            connection_retry_delay=connection_retry_delay,
            health_check_interval=health_check_interval,
            reset_on_return=reset_on_return,
            query_timeout=query_timeout,
            log_queries=log_queries,
            scaling=scaling,
        )
        self._connector = SurrealClientConnector(
            target, schema=read_schema(schema_file), on_create=on_connection_create
        )
        self.name = read_name(name, target)
        self._pool = self._new_pool()
        self._leased: dict[int, PooledClient] = {}
        # By attempts to open that failed; each has a pool of its own.
        self._counted_before: PoolStatistics | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    def _new_pool(self) -> ConnectionPool[PooledClient]:
        return ConnectionPool(self._connector, self.config, name=self.name)

    @property
    def state(self) -> PoolState:
        """What the pool does with callers now."""
        return self._pool.state

    async def initialize(self) -> None:
        """Open `min_connections` clients; once they are open, again is nothing.

        Raises:
            PoolClosedError: the pool was closed, before or meanwhile; a RuntimeError.
            PoolUnavailableError: the server is down or refuses us; it may be tried again.
            PoolTimeoutError: the clients were not open within `connection_timeout`; it may be tried again.
        """
        await self.open()

    async def open(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """`initialize`, with a limit of its own, or without waiting for the clients.

        Args:
            wait: whether to wait for `min_connections` clients; else they are opened meanwhile.
            timeout: seconds to wait for them; None for `connection_timeout`.

        Raises:
            As `initialize`.
        """
        async with self._opening:
            self._check_not_closed()
            if self._pool.state is not PoolState.NEW:
                return
            try:
                limit_s = self.config.connect_timeout if timeout is None else timeout
                await self._pool.open(wait=wait, timeout=limit_s)
            except BaseException as error:
                if isinstance(error, PoolError):
                    self._check_not_closed(error)
                if not self._is_closed:
                    self._begin_anew()
                raise
            # Closing ends the wait for clients as their being open does.
            self._check_not_closed()

    def _begin_anew(self) -> None:
        # An attempt that was cancelled twice may still be dropping what it had opened and lent.
        self._counted_before = without_clients(self._statistics())
        self._leased.clear()
        self._pool = self._new_pool()

    def _check_not_closed(self, cause: PoolError | None = None) -> None:
        if self._is_closed:
            raise PoolClosedError(f"pool {self.name}: it is closed") from cause

    async def close(self, timeout: float | None = None) -> None:
        """Turn waiters away, wait for leases for a while, close all clients; again is nothing.

        Args:
            timeout: seconds until leases are taken back and everything is dropped; None for 5.
        """
        self._is_closed = True
        await self._pool.close(timeout)

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def acquire(self, timeout: float | None = None) -> ClientLease:
        """Lease a client: `async with pool.acquire() as client`, or `client = await pool.acquire()`.

        Args:
            timeout: seconds for everything; None for `acquisition_timeout`.

        Raises (when awaited or entered):
            PoolTimeoutError: none came in time; an `asyncio.TimeoutError`.
            PoolClosedError: the pool is not open, or is closed meanwhile; a RuntimeError.
        """
        return ClientLease(self._pool.acquire(timeout), self._leased)

    async def release(self, client: "SurrealClient") -> None:
        """Give back what `await pool.acquire()` gave; does not wait.

        Raises:
            ValueError: it is not, or no longer, leased. What `close()` took back may still be released.
            PoolError: another task, still running, has it; it stays leased to that task.
        """
        connection = self._leased.get(id(client))
        if connection is None:
            raise ValueError(f"pool {self.name}: that client is not, or no longer, leased")
        # It refuses or is done without a turn of the loop, so nobody else can have the client by then.
        if self._pool.state is not PoolState.CLOSED:
            await self._pool.release(connection)
        del self._leased[id(client)]

    async def execute_query(self, query: str, params: "dict[str, Value] | None" = None) -> "Value":
        """Lease a client, run a query on it, once, and give it back.

        Args:
            query: SurrealQL.
            params: values for the variables in it.

        Returns:
            The result of the first statement, as the client gives it.

        Raises:
            ConnectError: a statement failed, whichever, or the connection was lost; also a `TimeoutError`
                where it took longer than `query_timeout`.
            PoolError: no client could be leased; see `acquire`.
        """
        began_ns = leased_ns = perf_counter_ns()
        outcome = "failed"
        try:
            async with self._pool.acquire() as connection:
                leased_ns = perf_counter_ns()
                result = await connection.query(query, params)
            outcome = "ok"
            return result
        finally:
            ended_ns = perf_counter_ns()
            wait_ns, run_ns = leased_ns - began_ns, ended_ns - leased_ns
            log_query(self.name, self.config, query, outcome, wait_ns, run_ns, show=shown_surrealql)

    async def pause(self) -> None:
        """Lease nothing any more: callers wait, up to their limits, until `resume`.

        Raises:
            PoolClosedError: the pool is not open.
        """
        await self._pool.pause()

    def resume(self) -> None:
        """Serve callers again, those that wait first.

        Raises:
            PoolClosedError: the pool is not open.
        """
        self._pool.resume()

    async def drain(self, timeout: float | None = None) -> bool:
        """Pause, and wait until all leases have ended; the pool stays paused until `resume`.

        Args:
            timeout: seconds to wait, None for as long as it takes.

        Returns:
            Whether all leases have ended.

        Raises:
            PoolClosedError: the pool is not open.
        """
        return await self._pool.drain(timeout)

    def expire_connections(self) -> int:
        """Replace every client, idle ones now, others when they come back; returns how many.

        Raises:
            PoolClosedError: the pool is not open.
        """
        return self._pool.expire_connections()

    def get_stats(self) -> PoolNumbers:
        """The pool in numbers, now; `get_stats().statistics` has those that every pool has.

        Counts and peaks are over the life of the pool, attempts to initialize it that failed included.
        `current_pool_size` and `peak_connections` count the clients there are, and those that are still being
        opened or closed.
        """
        return PoolNumbers(self._statistics())

    def _statistics(self) -> PoolStatistics:
        now = self._pool.get_stats()
        return now if self._counted_before is None else continued(self._counted_before, now)
