"""`check`: can this target be used, step by step, in under five seconds?

The server is asked what it is; then one connection after the other for half a second, through the same driver
that measures connects, so that each step's time is known. The first failure ends it, and says what is wrong
and what to do.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK
from pool_bench.cli.places.base import Place, Site, greeting_words
from pool_bench.cli.preflight import run_briefly
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.status import notify
from pool_bench.errors import ConnectError, FailureKind, Phase, PoolBenchError
from pool_bench.load.generator import generate
from pool_bench.load.run import StopSwitch
from pool_bench.report.text import clean, table
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot
from pool_bench.stats.timeline import Timeline
from pool_bench.units import format_ms

# Together with what a start and an end take, under five seconds.
_LIMIT_S: Final = 3.0
_FOR_S: Final = 0.5

_STEPS: Final = {
    Phase.RESOLVE: "look the name up",
    Phase.TCP: "reach the port",
    Phase.TLS: "agree on TLS",
    Phase.UPGRADE: "open a WebSocket",
    Phase.AUTH: "log in",
    Phase.SIGNIN: "sign in",
    Phase.USE: "select namespace and database",
    Phase.READY: "be accepted",
    Phase.QUERY: "run a query",
    Phase.CLOSE: "close",
}


@dataclass(slots=True)
class Finding:
    """What was found at one target.

    Attributes:
        head: the target in words.
        product: what the server says it is, "" where it did not.
        stats: of connections one after the other.
        kind, phase, reason: of the failure that ended it, None and "" where none did.
    """

    head: str
    product: str = ""
    stats: BenchStats = field(default_factory=BenchStats)
    kind: FailureKind | None = None
    phase: Phase | None = None
    reason: str = ""


def check(place: Place, *, tool: str) -> int:
    """Connect to every target, and say step by step how that went.

    Returns:
        The exit code: 0, 1 where a target could not be used, 130 where the user left.

    Raises:
        UsageError: a certificate file is unusable.
        ServerStartError: the embedded server does not start.
    """
    try:
        with stop_on_signals(notify) as stop, place.serve(tool=tool, connections=1) as site:
            return run_briefly(_check_all(site, stop))
    except LeaveNow:
        return EXIT_LEFT


async def _check_all(site: Site, stop: StopSwitch) -> int:
    """Look at all targets at once, as several that are silent must not take longer than one."""
    code = EXIT_OK
    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(_look(site, index, stop)) for index in range(len(site.targets))]
        for look in looks:
            finding = await look
            for row in report(site, finding):
                print(row, flush=True)
            if finding.reason or not finding.stats.ok:
                code = EXIT_FAILED
    return code


async def _look(site: Site, index: int, stop: StopSwitch) -> Finding:
    """What the server says it is, and what some connections in a row give."""
    finding = Finding(site.words(index))
    try:
        finding.product = greeting_words(await site.ask(index, _LIMIT_S))
    except ConnectError as error:
        state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        finding.kind, finding.phase, finding.reason = error.kind, error.phase, f"{error.message}{state}"
        return finding
    except PoolBenchError as error:
        finding.reason = str(error)
        return finding
    await _connect(site, index, stop, finding)
    return finding


async def _connect(site: Site, index: int, stop: StopSwitch, finding: Finding) -> None:
    """Open and close connections, until one fails."""
    stopping, stats = asyncio.Event(), finding.stats
    with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
        asyncio.get_running_loop().add_reader(stop.fileno(), stopping.set)

    def send(snapshot: Snapshot) -> None:
        for part in snapshot.targets:
            stats.merge(replace(part, intervals=Timeline()))
        if stats.failed:
            stopping.set()

    spec = replace(
        site.probe(index),
        concurrency=1,
        warmup_s=0.0,
        duration_s=_FOR_S,
        grace_s=_LIMIT_S,
        connect_timeout_s=_LIMIT_S,
        tick_s=0.05,
    )
    await generate(spec, send, stopping)
    failure = max(stats.failures.items(), key=lambda item: item[1].count, default=None)
    if failure is not None:
        key, sample = failure
        state = f" (SQLSTATE {key.sqlstate})" if key.sqlstate else ""
        finding.kind, finding.phase, finding.reason = key.kind, key.phase, f"{sample.sample}{state}"


def report(site: Site, finding: Finding) -> list[str]:
    """How the steps went, in words."""
    stats = finding.stats
    lines = [clean(finding.head)]
    if finding.product:
        lines.append(clean(finding.product))
    lines += table(_steps(site.steps, finding), left=(0, 1, 2))
    if not finding.reason:
        if not stats.ok:
            return [*lines, "stopped before there was an answer"]
        p50, top = stats.latency.percentiles_ms((50, 100))
        done = f"fine: {stats.ok:,} connections one after the other"
        return [*lines, f"{done}, {format_ms(p50)} ms each (p50), {format_ms(top)} ms at most"]
    lines.append(f"failed: {clean(finding.reason)}")
    if stats.ok:
        lines.append(f"{stats.ok:,} connections before it were fine")
    if finding.kind is not None and finding.kind in site.advice:
        lines.append(f"what to do: {site.advice[finding.kind]}")
    return lines


def _steps(steps: Sequence[Phase], finding: Finding) -> list[list[str]]:
    """A row for each step: its time where it was taken, else what is known of it."""
    stats, rows, before = finding.stats, [], True
    for phase in steps:
        histogram = stats.phases.get(phase)
        if phase is finding.phase:
            outcome = f"failed: {finding.kind}"
            before = False
        elif histogram is not None and histogram.count:
            outcome = f"ok, {format_ms(histogram.percentile_ms(50))} ms"
        elif stats.ok:
            outcome = "not needed"
        elif not finding.reason or finding.phase is None:
            outcome = "not tried"
        else:
            outcome = "passed, or not needed" if before else "not reached"
        rows.append([f"  {phase}", _STEPS[phase], outcome])
    return rows
