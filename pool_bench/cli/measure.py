"""One benchmark from settings to exit code: servers, runs, views, summaries, files."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options import Output
from pool_bench.cli.params import EXIT_LEFT
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.sites import AnyPlace, ask_any, config_of, serve_any, targets_of_any
from pool_bench.cli.title import shown_arguments
from pool_bench.cli.work import Work, tell
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.runner import Run
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.summary import run_summary, sweep_table
from pool_bench.report.text import colour_wanted
from pool_bench.report.views import make_view
from pool_bench.runs import Session
from pool_bench.units import format_duration

_SILENT_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure.

    Attributes:
        tool, name: as in the result file.
        place: where the targets come from.
        spec: the settings of every run; targets and concurrency are filled in.
        levels: the concurrency of each run.
        pause_s: between runs, seconds.
        output: where results go.
    """

    tool: str
    name: str
    place: AnyPlace
    spec: ConnectSpec
    levels: tuple[int, ...]
    pause_s: float
    output: Output


def measure(benchmark: Benchmark) -> int:
    """Measure every level, show it, and write the files.

    Returns:
        The exit code: 0, 1 where a run had no success, 130 where the user left.

    Raises:
        UsageError: a setting turned out to be impossible.
        ServerStartError: the embedded server does not start.
        GeneratorError: a generator process failed; what was measured before is saved.
    """
    output, levels = benchmark.output, benchmark.levels
    output.check()
    raise_file_limit(max(levels), option="--concurrency")
    text = output.text
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(tell))
            most = max(levels)
            # Drivers that do not wait for the server's end have up to half as many backends dying.
            server = stack.enter_context(serve_any(benchmark.place, connections=most, ending=most // 2))
            targets = targets_of_any(benchmark.place, server, tool=benchmark.tool)
            spec = replace(benchmark.spec, targets=targets)
            session = _session(benchmark, spec)
            timeout_s = benchmark.spec.connect_timeout_s
            session.server = ask_any(
                benchmark.place, targets[0], stop, timeout_s=timeout_s, embedded=server is not None
            )
            view = make_view(
                text,
                stream_is_terminal=text.isatty(),
                quiet=output.quiet,
                targets=[str(target) for target in targets],
            )
            stack.callback(view.close)
            work = Work(output, stop, view, text, session, levels)
            try:
                _measure_all(work, benchmark, spec)
            except PoolBenchError:
                _finish(work)
                raise
            _finish(work)
            return work.exit_code
    except LeaveNow:
        tell("left without a summary")
        return EXIT_LEFT


def _session(benchmark: Benchmark, spec: ConnectSpec) -> Session:
    levels = benchmark.levels
    return Session(
        tool=benchmark.tool,
        name=benchmark.name,
        started_at=datetime.now(UTC),
        argv=shown_arguments(sys.argv),
        targets=tuple(str(target) for target in spec.targets),
        config={
            **config_of(benchmark.place, spec.targets[0]),
            "concurrency": levels[0] if len(levels) == 1 else None,
            "concurrency_min": levels[0],
            "concurrency_max": levels[-1],
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "query": spec.query,
            "scram_cache": spec.scram_cache,
            "resolve": "once" if spec.resolve_once else "each",
            "wait_between_runs_s": benchmark.pause_s,
        },
    )


def _measure_all(work: Work, benchmark: Benchmark, spec: ConnectSpec) -> None:
    levels = benchmark.levels
    for index, level in enumerate(levels):
        pause_s = benchmark.pause_s if index else 0
        if pause_s > _SILENT_PAUSE_S and not work.stop.requested:
            tell(f"next run in {format_duration(pause_s)}")
        if work.stop.sleep(pause_s):
            break
        run = Run(replace(spec, concurrency=level), f"c{level}", work.stop)
        work.view.begin_run(run.result.label, index + 1, len(levels), spec.duration_s, spec.warmup_s)
        work.follow(run)
        work.print(run_summary(run.result, colour=colour_wanted(work.text)))
        if len(levels) > 1:
            # Kept after every level: a later one that fails must not lose the earlier ones.
            try:
                work.write_result()
            except UsageError as error:
                tell(f"going on, although the result so far cannot be kept: {error}")


def _finish(work: Work) -> None:
    """Sum up the session and write its files, if it measured anything."""
    if len(work.levels) > 1 and work.session.runs:
        work.print(sweep_table(work.session.runs, colour=colour_wanted(work.text)))
    work.save()
