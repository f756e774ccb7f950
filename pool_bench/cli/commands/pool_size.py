"""`pool-bench size`: a sweep of pool sizes, round by round, and the size it speaks for."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec

from pool_bench.analysis.scalability import FEWEST_SIZES
from pool_bench.cli.commands.pools import UNIT, follow_pool
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT
from pool_bench.cli.places.postgres import PostgresPlace, ask, serve, targets_of
from pool_bench.cli.session import BenchSession, notify
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.compare.pool_sizes import by_size, sizing_of
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.spec import PoolSpec
from pool_bench.report.brief.pools import sizes_brief
from pool_bench.report.live.view import make_view
from pool_bench.report.summary.pool_sizes import sizes_summary
from pool_bench.report.text import colour_wanted
from pool_bench.results import write as results
from pool_bench.results.session import Session
from pool_bench.targets.postgres import redact
from pool_bench.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePlan:
    """What to measure.

    Attributes:
        tool, name: as in the result file.
        place: where the target comes from.
        spec: the settings of every run; the size is filled in.
        sizes: what to try, ascending.
        rounds: how often each is measured.
        output: where results go.
    """

    tool: str
    name: str
    place: PostgresPlace
    spec: PoolSpec
    sizes: tuple[int, ...]
    rounds: int
    output: Output


def measure_sizes(sweep: SizePlan) -> int:
    """Measure every size, recommend one, and write the files.

    Returns:
        The exit code: 0, 1 where a run had no success, 130 where the user left.

    Raises:
        UsageError: a setting turned out to be impossible.
        ServerStartError: the embedded server does not start.
        GeneratorError: a generator process failed; what was measured before is saved.
    """
    if find_spec("scipy") is None:
        raise UsageError("size needs scipy to fit a law; install pool-bench[sizing]")
    if len(sweep.sizes) < FEWEST_SIZES:
        raise UsageError(
            f"--sizes: it takes at least {FEWEST_SIZES} sizes to fit a law, not {len(sweep.sizes)}"
        )
    if sweep.spec.clients < sweep.sizes[-1]:
        raise UsageError(
            f"--clients {sweep.spec.clients:,} cannot use more connections than themselves, and --sizes "
            f"go up to {sweep.sizes[-1]:,}"
        )
    output = sweep.output
    output.check()
    check_settings(sweep.spec.pool, sweep.place.targets)
    raise_file_limit(sweep.sizes[-1], option="--sizes")
    text = output.text
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(notify))
            server = stack.enter_context(serve(sweep.place, connections=sweep.sizes[-1]))
            targets = targets_of(sweep.place, server, tool=sweep.tool)
            spec = replace(sweep.spec, targets=targets)
            session = _session(sweep, spec)
            session.server = ask(targets[0], stop, timeout_s=spec.timeout_s, embedded=server is not None)
            if not session.server and not stop.requested:
                notify("error: the server does not answer: not measuring pools")
                return EXIT_FAILED
            view = make_view(
                text,
                stream_is_terminal=text.isatty(),
                quiet=output.quiet,
                targets=[str(targets[0])],
                unit=UNIT,
            )
            stack.callback(view.close)
            work = BenchSession(output, stop, view, text, session, (spec.clients,))
            try:
                _measure_all(work, sweep, spec)
            except PoolBenchError:
                _finish(work)
                raise
            _finish(work)
            return work.exit_code
    except LeaveNow:
        notify("left without a summary")
        return EXIT_LEFT


def _session(sweep: SizePlan, spec: PoolSpec) -> Session:
    return Session(
        tool=sweep.tool,
        name=sweep.name,
        started_at=datetime.now(UTC),
        argv=tuple(redact(word) for word in sys.argv),
        targets=tuple(str(target) for target in spec.targets),
        config={
            "target_from": sweep.place.origin,
            "pool": spec.pool,
            "sizes": [str(size) for size in sweep.sizes],
            "clients": spec.clients,
            "rounds": sweep.rounds,
            "reset": spec.reset,
            "prepared": spec.prepared,
            "query": spec.query,
            "hold_s": spec.hold_s,
            "timeout_s": spec.timeout_s,
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
        },
    )


def order(sizes: Sequence[int], round_: int) -> list[int]:
    """The sizes' turns in a round (from 1): up, then down, so that a drift does not look like a law."""
    return list(sizes) if round_ % 2 else list(reversed(sizes))


def _measure_all(work: BenchSession, sweep: SizePlan, spec: PoolSpec) -> None:
    total = len(sweep.sizes) * sweep.rounds
    notify(f"{total} runs, about {format_duration(total * (spec.duration_s + spec.warmup_s + 1.0))}")
    number = 0
    for round_ in range(1, sweep.rounds + 1):
        for size in order(sweep.sizes, round_):
            if work.stop.requested:
                return
            number += 1
            one = replace(spec, size=size, round=round_)
            follow_pool(work, one, number=number, total=total, rounds=sweep.rounds)
            work.keep()


def _finish(work: BenchSession) -> None:
    """Fit the law, say what it says, and write the files."""
    brief, colour = None, colour_wanted(work.text)
    groups = by_size(results.from_session(work.session).runs)
    if groups:
        sizing = sizing_of(groups)
        if sizing is not None:
            work.session.sizing = sizing
            work.detail(sizes_summary(groups, sizing, colour=colour))
            brief = sizes_brief(groups, sizing, colour=colour)
    work.save(brief)
