"""Connections through `pgwire` over non-blocking sockets: the cheapest honest client there is.

`CycleLoad` drives dials without coroutines; this is the same dial for everything that wants a
connection to keep: probes, held connections, pools.
"""

import asyncio
import random
import socket
import ssl
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers import base
from pool_bench.drivers.base import Driver, DriverName, ServerInfo
from pool_bench.drivers.network.failures import server_error, socket_failure
from pool_bench.drivers.network.poller import READ, WRITE
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import Endpoint, WirePlan, make_plan, resolve
from pool_bench.drivers.wire.routes import ordered
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import NEED_DATA, Connection, RemoteProtocolError
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.scram import ScramKeyCache
from pool_bench.pgwire.state import State
from pool_bench.targets.postgres import PostgresTarget

_RECEIVE_BYTES: Final = 65536
_CLOSE_WAIT_S: Final = 5.0
# Reads without a pause for other tasks, and for our own timeout.
_READS_PER_TURN: Final = 32
_MAX_COMPLETIONS: Final = 10_000
_RANDOM: Final = random.Random()


class WireConnection(base.Connection):
    """One open connection.

    Attributes:
        parameters: what the server reported at start-up, by name.
        backend_pid: process number by BackendKeyData, None where none was sent.
        touched: whether it was used since somebody last set this to False.
    """

    __slots__ = ("_dial", "_reads", "_sock", "_wire", "backend_pid", "parameters", "touched")

    def __init__(self, dial: Dial) -> None:
        assert dial.sock is not None  # noqa: S101  # a dial that is ready has its socket
        self._dial = dial
        self._sock = dial.sock
        self._wire: Connection = dial.wire
        self._reads = 0
        self.touched = True
        self.parameters = dial.parameters or {}
        self.backend_pid = dial.backend.pid if dial.backend is not None else None

    @property
    def address(self) -> str:
        """The address of the other end, as `127.0.0.1:5432`."""
        endpoint = self._dial.endpoint
        return "" if endpoint is None else endpoint.label

    @property
    def tls_version(self) -> str:
        """Such as `TLSv1.3`; "" without TLS."""
        return (self._sock.version() or "") if isinstance(self._sock, ssl.SSLSocket) else ""

    @property
    def phases_ns(self) -> dict[Phase, int]:
        """How long each step of the connect took, nanoseconds."""
        dial = self._dial
        steps = {
            Phase.RESOLVE: dial.resolve_ns,
            Phase.EARLIER: dial.earlier_ns,
            Phase.TCP: dial.tcp_ns,
            Phase.TLS: dial.tls_ns,
            Phase.AUTH: dial.auth_ns,
            Phase.READY: dial.ready_ns,
        }
        return {phase: spent for phase, spent in steps.items() if spent >= 0}

    @property
    def local_port(self) -> int | None:
        """Our own port, None over a Unix socket."""
        name = self._sock.getsockname()
        return name[1] if isinstance(name, tuple) else None

    async def ping(self) -> None:
        """An empty query: the server's cheapest answer.

        Raises:
            ConnectError: the connection is of no further use.
        """
        await self.execute("")

    async def reset(self) -> None:
        """Roll back and DISCARD ALL.

        Raises:
            ConnectError: the connection is of no further use.
        """
        await self.execute("ROLLBACK")
        await self.execute("DISCARD ALL")

    async def execute(self, sql: str) -> None:
        """Run `sql` by the simple protocol; rows are counted and thrown away.

        Raises:
            ConnectError: it failed, or the connection was lost.
        """
        await self.tags(sql)

    async def tags(self, sql: str) -> list[ev.CommandComplete]:
        """Run `sql` and return the completion of each of its statements.

        Raises:
            ConnectError: it failed, or the connection was lost.
        """
        self.touched = True
        if self.is_closed():
            raise ConnectError(FailureKind.CLOSED, Phase.QUERY, "the connection is closed")
        try:
            await self._send(self._wire.send(ev.Query(sql)))
            return await self._completions()
        except ConnectError as error:
            if error.kind in (FailureKind.CLOSED, FailureKind.SERVER_SHUTDOWN):
                self.terminate()
            raise
        except BaseException as error:
            # Half an exchange has been read or sent: nothing that follows could be trusted.
            self.terminate()
            if isinstance(error, RemoteProtocolError):
                raise ConnectError(FailureKind.PROTOCOL, Phase.QUERY, str(error)) from error
            if isinstance(error, OSError):
                kind, reason = socket_failure(error)
                raise ConnectError(kind, Phase.QUERY, reason) from error
            raise

    async def _completions(self) -> list[ev.CommandComplete]:
        completions: list[ev.CommandComplete] = []
        failure: ConnectError | None = None
        while True:
            match self._wire.next_event():
                case ev.CommandComplete() as completion:
                    if len(completions) == _MAX_COMPLETIONS:
                        raise RemoteProtocolError("the server completes statements without an end")
                    completions.append(completion)
                case ev.ErrorResponse() as error:
                    failure = server_error(error, Phase.QUERY)
                case ev.ReadyForQuery():
                    if failure is not None:
                        raise failure
                    return completions
                case ev.ConnectionClosed():
                    self.terminate()
                    closed = ConnectError(FailureKind.CLOSED, Phase.QUERY, "the server closed the connection")
                    raise failure or closed
                case event if event is NEED_DATA:
                    self._wire.receive_data(await self._receive())

    async def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await wait_for(self._sock.fileno(), WRITE)

    async def _receive(self) -> bytes:
        self._reads += 1
        if self._reads % _READS_PER_TURN == 0:
            # A server that always has more to say would keep the event loop for itself.
            await asyncio.sleep(0)
        while True:
            try:
                return self._sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                await wait_for(self._sock.fileno(), READ)

    async def close(self) -> None:
        """Send Terminate, end our side, and wait until the server has closed, at most five seconds."""
        if self.is_closed():
            return
        try:
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self._send(self._wire.send(ev.Terminate()))
                # There are servers that close only then. TLS goes on reading what is still sent.
                socket.SocketType.shutdown(self._sock, socket.SHUT_WR)
                while await self._receive():
                    continue
        except (OSError, TimeoutError):
            return
        finally:
            self.terminate()

    def terminate(self) -> None:
        """Close the socket at once."""
        self._sock.close()

    def is_closed(self) -> bool:
        """True once either side is known to have ended."""
        return self._sock.fileno() < 0 or self._wire.state not in (State.READY, State.QUERYING)


class WireDriver(Driver):
    """Opens wire connections to one target.

    Args:
        target: where to.
        cache: SCRAM keys to reuse.
        connect_timeout_s: bound on looking names up and on each host and address, seconds; None leaves it to
            the caller.

    Raises:
        UsageError: a certificate file is unusable.
    """

    name: DriverName = "wire"

    def __init__(
        self,
        target: PostgresTarget,
        *,
        cache: ScramKeyCache | None = None,
        connect_timeout_s: float | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._plan: WirePlan = make_plan(target, cache=cache)

    async def connect(self) -> WireConnection:
        """Open one connection; cancelling it leaves no socket.

        Raises:
            ConnectError: it could not be opened.
        """
        plan = self._plan
        dial = Dial(plan, perf_counter_ns(), stop_at_ready=True)
        endpoints = plan.endpoints
        if endpoints is None:
            endpoints = await self._resolve()
        endpoints = ordered(plan, endpoints, _RANDOM)
        try:
            want = dial.begin(endpoints, perf_counter_ns())
            while want != DONE:
                want = await self._go_on(dial, want)
        except BaseException:
            dial.abort(FailureKind.OTHER, "given up", perf_counter_ns())
            raise
        if dial.error is not None:
            raise dial.error
        return WireConnection(dial)

    async def _resolve(self) -> tuple[Endpoint, ...]:
        limit_s = self._connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.to_thread(resolve, self._plan)
        except TimeoutError:
            raise ConnectError(FailureKind.TIMEOUT, Phase.RESOLVE, f"no answer after {limit_s:g} s") from None

    async def _go_on(self, dial: Dial, want: int) -> int:
        """The dial's next step; where an address has had its time, that on to the next one."""
        limit_s = self._connect_timeout_s
        left_s = None if limit_s is None else limit_s - (perf_counter_ns() - dial.since_ns) / 1e9
        try:
            async with asyncio.timeout(left_s):
                await wait_for(dial.fd, want)
        except TimeoutError:
            return dial.time_up(f"no answer after {limit_s:g} s", perf_counter_ns())
        return dial.step(perf_counter_ns())


async def wait_for(fd: int, want: int) -> None:
    """Wait until a socket can be written (`WRITE`) or read (anything else)."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    if want & WRITE:
        loop.add_writer(fd, wake)
    else:
        loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        if want & WRITE:
            loop.remove_writer(fd)
        else:
            loop.remove_reader(fd)


async def ask_server(target: PostgresTarget, *, connect_timeout_s: float | None = None) -> ServerInfo:
    """Connect once and let the server say what it is.

    A pooler hands on the server's version but not its process numbers, nor our port: where neither is known
    to who answers queries, something stands in between. `watch/postgres/route.py` looks closer.

    Args:
        target: whom to ask.
        connect_timeout_s: bound on looking names up, on each host and address, and on the answer, seconds;
            None leaves it to the caller.

    Raises:
        ConnectError: no connection could be opened.
        UsageError: a certificate file is unusable.
    """
    connection = await WireDriver(target, connect_timeout_s=connect_timeout_s).connect()
    try:
        version = connection.parameters.get("server_version", "")
        is_cockroach = "crdb_version" in connection.parameters
        pooled = False
        if connection.backend_pid is not None:
            sql = f"SELECT 1 WHERE pg_backend_pid() = {connection.backend_pid}"
            if connection.local_port is not None:
                sql += f" OR inet_client_port() = {connection.local_port}"
            try:
                async with asyncio.timeout(connect_timeout_s):
                    completions = await connection.tags(sql)
                pooled = completions[0].rows == 0 if completions else False
            except (ConnectError, TimeoutError):
                pooled = False
        product = "CockroachDB" if is_cockroach else "PostgreSQL"
        return ServerInfo(product, version, pooled, connection.tls_version)
    finally:
        await connection.close()
