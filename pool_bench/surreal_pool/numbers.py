"""A SurrealDB pool in numbers: by the names of its own, and as the statistics that any pool has."""

from collections.abc import Generator
from dataclasses import replace
from typing import Final, Self

from pool_bench.pool.statistics import PoolStatistics

_COUNTS: Final = (
    "acquisitions",
    "releases",
    "timeouts",
    "refusals",
    "cancelled",
    "connect_errors",
    "health_check_failures",
    "reset_failures",
    "leaks",
    "unfit",
    "created",
    "closed",
    "wait_total_s",
    "events_dropped",
    "subscriber_faults",
)
_PEAKS: Final = ("peak_size", "peak_waiters")


class PoolNumbers(dict[str, int]):
    """Counts by name; may be awaited, for callers of pools that have to be asked that way.

    Attributes:
        statistics: what they were taken from, and more.
    """

    def __init__(self, statistics: PoolStatistics) -> None:
        super().__init__(
            total_connections_created=statistics.created,
            total_connections_closed=statistics.closed,
            total_acquisitions=statistics.acquisitions,
            total_releases=statistics.releases,
            acquisition_timeouts=statistics.timeouts,
            connection_errors=statistics.connect_errors,
            health_check_failures=statistics.health_check_failures,
            peak_connections=statistics.peak_size,
            peak_waiters=statistics.peak_waiters,
            current_pool_size=statistics.size,
            current_available=statistics.idle,
            current_in_use=statistics.in_use,
            current_waiters=statistics.waiters,
        )
        self.statistics: Final = statistics

    def __await__(self) -> Generator[object, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self


def continued(before: PoolStatistics, now: PoolStatistics) -> PoolStatistics:
    """`now` with what had been counted `before` it began."""
    counts = {name: getattr(before, name) + getattr(now, name) for name in _COUNTS}
    peaks = {name: max(getattr(before, name), getattr(now, name)) for name in _PEAKS}
    return replace(now, **counts, **peaks)


def without_clients(statistics: PoolStatistics) -> PoolStatistics:
    """Those of a pool that is gone: every lease of it has ended, and every client is closed."""
    return replace(statistics, closed=statistics.created, releases=statistics.acquisitions)
