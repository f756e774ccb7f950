"""A loop whose time is simulated and a driver that does what the test says: exact schedules at no cost.

Time passes only when nothing can run, and then at once up to the next timer. Where there is no timer
either, somebody waits for what will never come: a lost wake-up is an error, not a test that hangs.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from pool_bench.pool import ConnectionPool, PoolConfig

T = TypeVar("T")


class StuckError(AssertionError):
    """Every task waits, and for nothing that could happen."""


class _Selector(selectors.DefaultSelector):
    loop: "SimulatedLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise StuckError("every task waits, and no timer is set")
        if not ready and timeout is not None and timeout > 0:
            self.loop.now_s += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that skips the time in which nothing happens."""

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.now_s = 1000.0

    def time(self) -> float:
        """The simulated seconds."""
        return getattr(self, "now_s", 1000.0)

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that will still fire."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # the base loop's
        return [timer for timer in scheduled if not timer.cancelled()]


def simulate(main: Coroutine[object, object, T]) -> T:
    """Run `main` in simulated time; no task and no timer may be left at its end."""

    async def checked() -> T:
        result = await main
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        assert not loop.timers(), "a timer is left that keeps its pool alive"
        return result

    loop = SimulatedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(checked())


def now_ns() -> int:
    """The running loop's time, nanoseconds."""
    return round(asyncio.get_running_loop().time() * 1e9)


def now_s() -> float:
    """The running loop's time, seconds."""
    return asyncio.get_running_loop().time()


class FakeError(Exception):
    """What the fake server answers when it is told to fail."""


@dataclass
class FakeServer:
    """A driver and its server.

    Attributes:
        connect_s: seconds a connect takes; likewise the others; infinite for no answer.
        down: whether connects are refused.
        on_connect: called with the number of each attempt, and may raise.
        attempts: when connects were begun, simulated seconds.
        connections: all there ever were.
        peak: most that were open at once, those being opened included.
    """

    connect_s: float = 0.01
    ping_s: float = 0.001
    reset_s: float = 0.001
    close_s: float = 0.001
    execute_s: float = 0.001
    down: bool = False
    on_connect: Callable[[int], None] = lambda number: None
    attempts: list[float] = field(default_factory=list)
    connections: "list[FakeConnection]" = field(default_factory=list)
    opening: int = 0
    peak: int = 0
    _maybe_open: "list[FakeConnection]" = field(default_factory=list)
    _looked_at: int = 0

    @property
    def open(self) -> "list[FakeConnection]":
        """Connections the server still has."""
        # Those of before are forgotten once they are closed, for there are thousands in the end.
        self._maybe_open += self.connections[self._looked_at :]
        self._looked_at = len(self.connections)
        self._maybe_open = [c for c in self._maybe_open if not c.closed]
        return list(self._maybe_open)

    def open_numbers(self) -> list[int]:
        """The numbers of those connections."""
        return [c.number for c in self.open]

    async def connect(self) -> "FakeConnection":
        """Open a connection, or fail as told."""
        self.attempts.append(now_s())
        self.opening += 1
        self.peak = max(self.peak, len(self.open) + self.opening)
        try:
            await asyncio.sleep(self.connect_s)
            self.on_connect(len(self.attempts))
            if self.down:
                raise FakeError("connection refused")
        finally:
            self.opening -= 1
        connection = FakeConnection(self, len(self.attempts))
        self.connections.append(connection)
        return connection


@dataclass(eq=False)
class FakeConnection:
    """One connection, and all that was done to it.

    Attributes:
        dead: whether it answers nothing but errors, which nobody knows until it is asked.
        done: what was asked of it.
        settings: session state, forgotten by a reset.
        holder: for tests: who thinks to own it.
    """

    server: FakeServer
    number: int
    closed: bool = False
    dead: bool = False
    touched: bool = True
    transaction: bool = False
    done: list[str] = field(default_factory=list)
    settings: set[str] = field(default_factory=set)
    holder: object = None
    under_way: int = 0

    async def _ask(self, what: str, seconds: float) -> None:
        self.touched = True
        assert not self.under_way, f"{what} during another exchange"
        self.done.append(what)
        if self.dead:
            raise FakeError(f"{what}: the connection is dead")
        self.under_way += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.dead = True  # half an exchange
            raise
        finally:
            self.under_way -= 1

    async def ping(self) -> None:
        """Answer."""
        await self._ask("ping", self.server.ping_s)

    async def execute(self, sql: str) -> str:
        """Know SET, BEGIN and COMMIT; answer with the query."""
        await self._ask(sql, self.server.execute_s)
        if sql.startswith("SET "):
            self.settings.add(sql)
        elif sql in ("BEGIN", "COMMIT"):
            self.transaction = sql == "BEGIN"
        return sql

    async def reset(self) -> None:
        """Forget everything."""
        await self._ask("reset", self.server.reset_s)
        self.settings.clear()
        self.transaction = False

    async def close(self) -> None:
        """End."""
        self.done.append("close")
        if not self.closed:
            await asyncio.sleep(self.server.close_s)
        self.closed = True

    def terminate(self) -> None:
        """End at once."""
        self.done.append("terminate")
        self.closed = True

    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.closed

    def in_transaction(self) -> bool:
        """Whether BEGIN was executed last."""
        return self.transaction


def make_pool(server: FakeServer, **settings: object) -> ConnectionPool[FakeConnection]:
    """A pool on `server` in the loop's simulated time."""
    config = PoolConfig(**{"seed": 1, **settings})  # type: ignore[arg-type]  # PoolConfig checks them
    return ConnectionPool(server, config, name="test", clock=now_ns)
