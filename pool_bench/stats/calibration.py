"""What this client costs by itself, measured against a server that answers at once: plain data."""

from dataclasses import dataclass, field

from pool_bench.stats.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFloor:
    """One driver at one concurrency against the null server.

    Attributes:
        driver: how connections were opened.
        concurrency: workers.
        latency: of every success; client, kernel and the null server together.
        throughput: operations a second: more than this the client cannot do.
        cpu_us_per_op: client CPU time for each operation, microseconds.
        client_cpu_share, server_cpu_share: of one core, 0 to 1, of the client and of the null server.
        failed: operations that failed all the same.
    """

    driver: str
    concurrency: int
    latency: Histogram
    throughput: float
    cpu_us_per_op: float | None
    client_cpu_share: float
    server_cpu_share: float
    failed: int = 0


@dataclass(frozen=True, slots=True)
class ClientShare:
    """How much of a run is this client.

    Attributes:
        alone: the driver's floor with one worker, that is without any waiting.
        ceiling: its floor at the run's own concurrency.
    """

    alone: ClientFloor
    ceiling: ClientFloor


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The floors of a session.

    Attributes:
        operation: what was done, in words.
        seconds: how long each floor was measured.
        floors: one for each driver and concurrency.
    """

    operation: str
    seconds: float
    floors: tuple[ClientFloor, ...] = field(default=())

    def own(self, driver: str, concurrency: int) -> ClientShare | None:
        """What of a run is the client, by the nearest concurrency up to its own; None without any."""
        floors = [
            floor for floor in self.floors if floor.driver == driver and floor.concurrency <= concurrency
        ]
        if not floors:
            return None
        floors.sort(key=lambda floor: floor.concurrency)
        return ClientShare(floors[0], floors[-1])
