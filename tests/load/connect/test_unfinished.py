"""Operations that never end are counted with the step they are at, in the warm-up too, by every driver."""

import asyncio
from dataclasses import replace

import pytest

from pool_bench.drivers.base import DriverName
from pool_bench.errors import Phase
from pool_bench.load.arrivals import constant
from pool_bench.load.generator import generate
from pool_bench.load.spec import ConnectSpec, HoldSpec, OpenLoop
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot
from pool_bench.stats.timeline import Timeline
from pool_bench.targets import Target
from pool_bench.targets.surreal import surreal_target
from tests.support import hostile_postgres as h
from tests.support.generators import target

WORKERS = 3


def _target(driver: DriverName, port: int) -> Target:
    if driver in ("surreal", "surrealdb"):
        return surreal_target(f"ws://127.0.0.1:{port}", user="u", password="p", environ={})
    return target(f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable")


def _run(spec: ConnectSpec | HoldSpec) -> tuple[BenchStats, BenchStats]:
    """What the warm-up's and the measured operations came to."""
    warmup, measured = BenchStats(), BenchStats()

    def send(snapshot: Snapshot) -> None:
        warmup.merge(snapshot.warmup)
        for stats in snapshot.targets:
            measured.merge(replace(stats, intervals=Timeline()))

    async def main() -> None:
        stop = asyncio.Event()
        if isinstance(spec, ConnectSpec):
            await generate(spec, send, stop)
        else:
            asyncio.get_running_loop().call_later(0.5, stop.set)
            await generate(spec, send, stop)

    asyncio.run(main())
    return warmup, measured


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize(
    ("driver", "phase"),
    [
        ("wire", Phase.AUTH),
        ("asyncpg", Phase.CONNECT),
        ("psycopg", Phase.CONNECT),
        ("surreal", Phase.UPGRADE),
        ("surrealdb", Phase.CONNECT),
    ],
)
def test_what_hangs_since_the_warm_up_is_counted_with_its_step(
    driver: DriverName, phase: Phase, is_open: bool
) -> None:
    with h.HostileServer((h.stall,)) as silent:
        warmup, measured = _run(
            ConnectSpec(
                targets=(_target(driver, silent.port),),
                driver=driver,
                concurrency=WORKERS,
                open_loop=OpenLoop(profile=constant(1000.0)) if is_open else None,
                # Enough for all to begin, on a machine that stands still for two seconds.
                warmup_s=0.5,
                duration_s=0.1,
                grace_s=0.1,
                connect_timeout_s=60.0,
            )
        )
    assert (warmup.ok, warmup.failed, warmup.unfinished) == (0, 0, WORKERS)
    assert warmup.unfinished_in == {phase: WORKERS}
    assert not measured.attempts


@pytest.mark.parametrize(("driver", "phase"), [("wire", Phase.AUTH), ("psycopg", Phase.CONNECT)])
def test_connects_of_held_connections_that_hang_are_counted_with_their_step(
    driver: DriverName, phase: Phase
) -> None:
    with h.HostileServer((h.stall,)) as silent:
        _, opening = _run(
            HoldSpec(
                targets=(_target(driver, silent.port),),
                connections=(WORKERS,),
                driver=driver,
                close_s=0.1,
                connect_timeout_s=60.0,
            )
        )
    assert opening.unfinished_in == {phase: WORKERS}
