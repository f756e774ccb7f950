"""Which driver a run opens its connections with, and which of its steps can be told apart."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from pool_bench.drivers.base import COARSE_PHASES, Connection, Driver
from pool_bench.errors import ConnectError, Phase
from pool_bench.load.spec import ConnectSpec, HoldSpec

# By so much, seconds, is our bound on a connect later than that of a driver that has one itself: it knows the
# step that took too long.
AFTER_DRIVER_S: Final = 0.05
# What ends after the connect itself.
_LATER: Final = (Phase.QUERY, Phase.CLOSE)


def make_drivers(spec: ConnectSpec | HoldSpec) -> tuple[Driver, ...]:
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

        source_ips = spec.source_ips if isinstance(spec, HoldSpec) else ()
        return tuple(
            SurrealDriver(
                target,
                auth=spec.auth,
                connect_timeout_s=spec.connect_timeout_s,
                resolve_once=isinstance(spec, ConnectSpec) and spec.resolve_once,
                sources=SourceAddresses(source_ips) if source_ips else None,
            )
            for target in spec.surreal_targets
        )
    if spec.driver == "surrealdb":
        from pool_bench.drivers.surreal.client import SurrealClientDriver, check_holdable

        for target in spec.surreal_targets if isinstance(spec, HoldSpec) else ():
            check_holdable(target)
        return tuple(SurrealClientDriver(target) for target in spec.surreal_targets)
    from pool_bench.drivers.psycopg import PsycopgDriver

    return tuple(
        PsycopgDriver(target, connect_timeout_s=spec.connect_timeout_s) for target in spec.postgres_targets
    )


async def prepare(drivers: tuple[Driver, ...]) -> None:
    """Have done what drivers do once for all connections, so that the first connect does not pay for it.

    A driver that fails at it tries again with its first connection, which then fails, and is counted.
    """
    for driver in drivers:
        once: Callable[[], Awaitable[None]] | None = getattr(driver, "prepare", None)
        if once is not None:
            with contextlib.suppress(ConnectError):
                await once()


def phases_of(driver: Driver, *, query: bool) -> tuple[Phase, ...]:
    """The steps of a cycle by `driver`, in order: its own where it tells them apart, else coarse ones."""
    phases: tuple[Phase, ...] = getattr(driver, "phases", COARSE_PHASES)
    return tuple(phase for phase in phases if query or phase is not Phase.QUERY)


def row_of(phases: tuple[Phase, ...], connection: Connection, marks: list[int]) -> tuple[int, ...]:
    """A cycle as `Recorder.ok` takes it.

    Args:
        phases: what `phases_of` says of the driver.
        connection: what it opened, closed by now.
        marks: `perf_counter_ns` when the cycle began, was connected, had its answer, and had closed.
    """
    began_ns, connected_ns, answered_ns, closed_ns = marks
    steps_ns: dict[Phase, int] | None = getattr(connection, "phases_ns", None)
    if steps_ns is None:
        steps_ns = {
            Phase.CONNECT: connected_ns - began_ns,
            Phase.QUERY: answered_ns - connected_ns,
            Phase.CLOSE: closed_ns - answered_ns,
        }
    return (closed_ns - began_ns, *(steps_ns.get(phase, -1) for phase in phases))


def first_bound_s(driver: object, connect_timeout_s: float) -> float | None:
    """Our bound on a connect by `driver`, seconds; None where the driver bounds each of its addresses."""
    return None if getattr(driver, "bounds_itself", False) else connect_timeout_s + AFTER_DRIVER_S


def connect_phases_of(driver: Driver) -> tuple[Phase, ...]:
    """The steps of a connect by `driver`, in order."""
    return tuple(phase for phase in phases_of(driver, query=False) if phase not in _LATER)
