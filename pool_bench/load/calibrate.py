"""Measures what this client costs by itself: runs against a server that answers at once."""

from collections.abc import Callable, Sequence

from pool_bench.calibration import Calibration, Floor
from pool_bench.drivers.base import DRIVER_NAMES, DriverName
from pool_bench.faults.known import KnownServer
from pool_bench.load.runner import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.targets import parse_target

_WARMUP_S = 0.3
_GRACE_S = 2.0


def settings_for(driver: DriverName, levels: Sequence[int]) -> tuple[tuple[DriverName, int], ...]:
    """What to calibrate for runs of `driver` at `levels`: each driver alone and at the highest level, this
    driver at every level.
    """
    wanted = {(name, level) for name in DRIVER_NAMES for level in (1, max(levels))}
    wanted |= {(driver, level) for level in levels}
    order = list(DRIVER_NAMES)
    return tuple(sorted(wanted, key=lambda one: (order.index(one[0]), one[1])))


def calibrate(
    settings: Sequence[tuple[DriverName, int]],
    stop: StopSwitch,
    *,
    seconds: float,
    query: str | None = None,
    begin: Callable[[DriverName, int], None] = lambda driver, concurrency: None,
) -> Calibration:
    """Measure the floor of each of `settings`, driver and concurrency.

    Args:
        settings: what to measure, in this order.
        stop: ends it early; what was measured by then is returned.
        seconds: how long to measure each.
        query: run on each connection, as in the runs to come; None for none.
        begin: told what is measured next.

    Raises:
        ServerStartError: the null server does not start.
        GeneratorError: a generator process failed.
    """
    floors = []
    with KnownServer() as server:
        target = parse_target(server.url(), env={}, default_user="known")
        for driver, concurrency in settings:
            begin(driver, concurrency)
            before = server.truth()
            spec = ConnectSpec(
                targets=(target,),
                driver=driver,
                concurrency=concurrency,
                warmup_s=_WARMUP_S,
                duration_s=seconds,
                grace_s=_GRACE_S,
                query=query,
            )
            run = Run(spec, f"{driver} c{concurrency}", stop)
            for _ in run.snapshots():
                continue
            after = server.truth()
            if stop.requested:
                break
            result = run.result
            floors.append(
                Floor(
                    driver=driver,
                    concurrency=concurrency,
                    latency=result.total.latency,
                    throughput=result.throughput,
                    cpu_us_per_op=result.cpu_us_per_op,
                    client_cpu_share=result.client.cpu_share,
                    # Over the warm-up, too, and the start of the generator, in which nothing is asked of it.
                    server_cpu_share=(after.cpu_s - before.cpu_s) / (result.warmup_s + result.duration_s),
                    failed=result.total.failed,
                )
            )
    steps = "connect, query, close" if query else "connect, close"
    return Calibration(
        operation=f"{steps} over TCP on this machine, trust, no TLS", seconds=seconds, floors=tuple(floors)
    )
