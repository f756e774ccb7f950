"""Which driver a run opens its connections with, and which of its steps can be told apart."""

import contextlib
from collections.abc import Iterable
from typing import Final, Protocol

from pool_bench.drivers.base import Connection, Driver, WatchedConnection
from pool_bench.errors import ConnectError, Phase
from pool_bench.load.spec import ConnectSpec, HoldSpec

# By so much, seconds, is our bound on a connect later than that of a driver that has one itself: it knows the
# step that took too long.
AFTER_DRIVER_S: Final = 0.05
# What ends after the connect itself.
_LATER: Final = (Phase.QUERY, Phase.CLOSE)


class WatchingDriver(Driver, Protocol):
    """A driver whose connections tell when their server ends them, as all those made of coroutines are."""

    async def connect(self) -> WatchedConnection:
        """Open one connection; the caller bounds the time."""


def make_drivers(spec: ConnectSpec | HoldSpec) -> tuple[WatchingDriver, ...]:
    """One coroutine driver for each target of `spec`.

    Raises:
        UsageError: a target cannot be used like this, or a certificate file is unusable.
    """
    if spec.driver == "asyncpg":
        from pool_bench.drivers.asyncpg import AsyncpgDriver

        return tuple(AsyncpgDriver(target) for target in spec.postgres_targets)
    if spec.driver == "surreal":
        from pool_bench.drivers.network.source_addresses import SourceAddresses
        from pool_bench.drivers.surreal.driver import SurrealDriver

        return tuple(
            SurrealDriver(
                target,
                auth=spec.auth,
                connect_timeout_s=spec.connect_timeout_s,
                resolve_once=spec.resolve_once,
                sources=SourceAddresses(spec.source_ips) if spec.source_ips else None,
            )
            for target in spec.surreal_targets
        )
    if spec.driver == "surrealdb":
        from pool_bench.drivers.surreal.client import SurrealClientDriver

        return tuple(SurrealClientDriver(target) for target in spec.surreal_targets)
    from pool_bench.drivers.psycopg import PsycopgDriver

    return tuple(
        PsycopgDriver(target, connect_timeout_s=spec.connect_timeout_s) for target in spec.postgres_targets
    )


async def prepare(drivers: Iterable[Driver]) -> None:
    """Have done what drivers do once for all connections, so that the first connect does not pay for it.

    A driver that fails at it tries again with its first connection, which then fails, and is counted.
    """
    for driver in drivers:
        with contextlib.suppress(ConnectError):
            await driver.prepare()


def phases_of(driver: Driver, *, query: bool) -> tuple[Phase, ...]:
    """The steps of a cycle by `driver`, in order: its own where it tells them apart, else coarse ones."""
    return tuple(phase for phase in driver.phases if query or phase is not Phase.QUERY)


def row_of(phases: tuple[Phase, ...], connection: Connection, marks: list[int]) -> tuple[int, ...]:
    """A cycle as `Recorder.ok` takes it.

    Args:
        phases: what `phases_of` says of the driver.
        connection: what it opened, closed by now.
        marks: `perf_counter_ns` when the cycle began, was connected, had its answer, and had closed.
    """
    began_ns, connected_ns, answered_ns, closed_ns = marks
    steps_ns = connection.phases_ns
    if steps_ns is None:
        steps_ns = {
            Phase.CONNECT: connected_ns - began_ns,
            Phase.QUERY: answered_ns - connected_ns,
            Phase.CLOSE: closed_ns - answered_ns,
        }
    return (closed_ns - began_ns, *(steps_ns.get(phase, -1) for phase in phases))


def first_bound_s(driver: Driver, connect_timeout_s: float) -> float | None:
    """Our bound on a connect by `driver`, seconds; None where the driver bounds each of its addresses."""
    return None if driver.bounds_itself else connect_timeout_s + AFTER_DRIVER_S


def connect_phases(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Those of a driver's phases that a connect has, in order."""
    return tuple(phase for phase in phases if phase not in _LATER)
