"""What a generator is to do: frozen and picklable, so that it can be sent to any process."""

from dataclasses import dataclass, field

from pool_bench.drivers.base import DriverName
from pool_bench.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectSpec:
    """Open and close connections in a closed loop.

    Attributes:
        targets: used round-robin.
        driver: how connections are opened.
        concurrency: workers, each with one connection at a time.
        warmup_s: operations begun in the first so many seconds do not count.
        duration_s: how long to measure, seconds; 0 until told to stop.
        grace_s: how long operations under way at the end may take to finish, seconds.
        connect_timeout_s: bound on one operation, seconds.
        query: SQL to run on each connection, None for none.
        scram_cache: keep derived SCRAM keys between connections.
        resolve_once: look names up once, not for every connection.
        tick_s: seconds between snapshots.
        seed: makes the jitter repeatable.
    """

    targets: tuple[Target, ...] = field(repr=True)
    driver: DriverName = "wire"
    concurrency: int = 10
    warmup_s: float = 1.0
    duration_s: float = 10.0
    grace_s: float = 5.0
    connect_timeout_s: float = 30.0
    query: str | None = None
    scram_cache: bool = True
    resolve_once: bool = False
    tick_s: float = 1.0
    seed: int | None = None
