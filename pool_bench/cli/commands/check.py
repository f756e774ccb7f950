"""`pool-bench check`: can this target be reached, step by step, in under five seconds?

One connection after the other for half a second, through the same wire driver that measures connects, so that
each step's time is known; the first failure ends it, and says what is wrong and what to do.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pool_bench.cli.advice import ADVICE
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK
from pool_bench.cli.places.postgres import PostgresPlace, serve, targets_of
from pool_bench.cli.preflight import run_briefly
from pool_bench.cli.session import notify
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.drivers.wire.driver import ask_server
from pool_bench.errors import ConnectError, Phase
from pool_bench.load.connect.generator import generate
from pool_bench.load.run import StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.text import clean, table
from pool_bench.stats.operations import BenchStats, FailureKey
from pool_bench.stats.runs import Snapshot
from pool_bench.stats.timeline import Timeline
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.units import format_ms
from pool_bench.watch.postgres.route import look_between

# Together with what a start and an end take, under five seconds.
_LIMIT_S: Final = 3.0
_FOR_S: Final = 0.5
_LOOK_S: Final = 1.0
# A session that outlives its connection is watched for a second.
_BETWEEN_S: Final = 3.0

_STEPS: Final = (
    (Phase.RESOLVE, "look the name up"),
    (Phase.TCP, "reach the port"),
    (Phase.TLS, "agree on TLS"),
    (Phase.AUTH, "log in"),
    (Phase.READY, "be let in"),
    (Phase.QUERY, "run SELECT 1"),
    (Phase.CLOSE, "close"),
)


def check(place: PostgresPlace, *, tool: str) -> int:
    """Connect to every target, and say step by step how that went.

    Returns:
        The exit code: 0, 1 where a target could not be used, 130 where the user left.

    Raises:
        UsageError: a certificate file is unusable.
        ServerStartError: the embedded server does not start.
    """
    try:
        with stop_on_signals(notify) as stop, serve(place, connections=1) as server:
            return max(run_briefly(_check_all(targets_of(place, server, tool=tool), stop)))
    except LeaveNow:
        return EXIT_LEFT


async def _check_all(targets: Sequence[PostgresTarget], stop: StopSwitch) -> list[int]:
    """Look at all targets at once, as several that are silent must not take longer than one."""
    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(_connect(target, stop)) for target in targets]
        return [_report(target, *(await look)) for target, look in zip(targets, looks, strict=True)]


def _report(target: PostgresTarget, stats: BenchStats, product: str) -> int:
    for row in report(target, stats, product):
        print(row, flush=True)
    return EXIT_OK if stats.ok and not stats.failed else EXIT_FAILED


async def _connect(target: PostgresTarget, stop: StopSwitch) -> tuple[BenchStats, str]:
    """What some connections in a row gave, and what the server says it is."""
    total = BenchStats()
    stopping = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
        asyncio.get_running_loop().add_reader(stop.fileno(), stopping.set)

    def send(snapshot: Snapshot) -> None:
        for part in snapshot.targets:
            total.merge(replace(part, intervals=Timeline()))
        if total.failed:
            stopping.set()

    spec = ConnectSpec(
        targets=(target,),
        concurrency=1,
        warmup_s=0.0,
        duration_s=_FOR_S,
        grace_s=_LIMIT_S,
        connect_timeout_s=_LIMIT_S,
        query="SELECT 1",
        tick_s=0.05,
    )
    await generate(spec, send, stopping)
    product = ""
    if total.ok:
        with contextlib.suppress(ConnectError, TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                info = await ask_server(target)
            through = (await asyncio.to_thread(look_between, target, _BETWEEN_S)).words
            product = (
                f"{clean(info.product)} {clean(info.version)}{f', through {through}' if through else ''}"
            )
    return total, product


def report(target: PostgresTarget, stats: BenchStats, product: str) -> list[str]:
    """How the steps went, in words."""
    lines = [clean(str(target))]
    failure = max(stats.failures.items(), key=lambda item: item[1].count, default=None)
    lines += table(_steps(stats, failure[0] if failure is not None else None), left=(0, 1, 2))
    if failure is None:
        if not stats.ok:
            return [*lines, "stopped before there was an answer"]
        p50, top = stats.latency.percentiles_ms((50, 100))
        done = f"fine: {stats.ok:,} connections one after the other"
        lines.append(f"{done}, {format_ms(p50)} ms each (p50), {format_ms(top)} ms at most")
        return [*lines, product] if product else lines
    key, sample = failure
    state = f" (SQLSTATE {key.sqlstate})" if key.sqlstate else ""
    lines.append(f"failed: {clean(sample.sample)}{state}")
    if stats.ok:
        lines.append(f"{stats.ok:,} connections before it were fine")
    if key.kind in ADVICE:
        lines.append(f"what to do: {ADVICE[key.kind]}")
    return lines


def _steps(stats: BenchStats, failed: FailureKey | None) -> list[list[str]]:
    """A row for each step: its time where it was taken, else what is known of it."""
    rows = []
    before = True
    for phase, words in _STEPS:
        histogram = stats.phases.get(phase)
        if failed is not None and phase is failed.phase:
            told = f"failed: {failed.kind}"
            before = False
        elif histogram is not None and histogram.count:
            told = f"ok, {format_ms(histogram.percentile_ms(50))} ms"
        elif stats.ok:
            told = "not needed"
        elif failed is None:
            told = "not tried"
        else:
            told = "passed, or not needed" if before else "not reached"
        rows.append([f"  {phase}", words, told])
    return rows
