"""One benchmark from settings to exit code: servers, runs, views, summaries, files."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pool_bench.analysis.walls_ahead import Asked
from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.commands.find_max import find_maximum
from pool_bench.cli.limits import raise_file_limit, time_wait_note
from pool_bench.cli.options.loop import FindMax
from pool_bench.cli.options.rounds import Step, Variant, plan
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.thresholds import NO_CHECKS, Checks
from pool_bench.cli.options.types import EXIT_LEFT
from pool_bench.cli.places.base import AnyPlace, ask_any, config_of, serve_any, targets_of_any
from pool_bench.cli.session import BenchSession, lose, notify
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.walls import KnownLimits, warn_of_walls
from pool_bench.cli.watching import Watching, follow_watched, is_wanted, watch_for
from pool_bench.compare.readiness import settings_too_short
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.calibrate import Protocol, calibrate, settings_for
from pool_bench.load.run import GeneratorError, Run
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.brief.run import rounds_brief, run_brief, search_brief, sweep_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.view import make_view
from pool_bench.report.summary.calibration import calibration_table
from pool_bench.report.summary.rounds import round_line, rounds_summary
from pool_bench.report.summary.run import sweep_table
from pool_bench.report.summary.server_lines import watched_summary
from pool_bench.report.text import colour_wanted
from pool_bench.results.model import LoadedResult
from pool_bench.results.session import Session
from pool_bench.results.write import from_session
from pool_bench.stats.runs import RunResult
from pool_bench.targets.postgres import PostgresTarget, SslMode
from pool_bench.targets.surreal import SurrealTarget
from pool_bench.units import format_duration
from pool_bench.watch.machine.limits import LimitsReader

_SILENT_PAUSE_S: Final = 2.0
_CALIBRATION_S: Final = 1.0
# What an open loop may have in flight at most says nothing about what it will have.
_OPEN_LOOP_LEVEL: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectPlan:
    """What to measure.

    Attributes:
        tool, name: as in the result file.
        place: where the targets come from.
        spec: the settings of every run; targets and concurrency are filled in.
        levels: the concurrency of each run; in an open loop one, the connections at most.
        label: names the run of an open loop, "" in a closed one.
        find_max: the maximum to search for instead, None for one run for each level.
        pause_s: between runs, seconds.
        output: where results go.
        checks: what must hold of them.
        variants: settings measured in turn with `spec`.
        rounds: how often each is measured.
        watch: watch the server meanwhile; None: where it is on this machine.
        admin: PgBouncer's administration console, where there is one to ask.
        require_valid: whether a suspect run makes the exit code 1.
        keep_going: measure also targets that the first connection does not get into.
        calibrate: measure what the client costs by itself before the first run.
    """

    tool: str
    name: str
    place: AnyPlace
    spec: ConnectSpec
    levels: tuple[int, ...]
    pause_s: float
    output: Output
    require_valid: bool = False
    keep_going: bool = False
    calibrate: bool = False
    label: str = ""
    find_max: FindMax | None = None
    checks: Checks = NO_CHECKS
    variants: tuple[Variant, ...] = ()
    rounds: int = 1
    watch: bool | None = None
    admin: PostgresTarget | None = None


def measure(benchmark: ConnectPlan) -> int:
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
    watched = is_wanted(benchmark.watch, benchmark.admin, benchmark.place.targets)
    is_open = benchmark.spec.open_loop is not None
    thresholds = benchmark.checks.read()
    planned = _plan(benchmark, replace(benchmark.spec, targets=benchmark.place.targets))
    for step in planned:
        check_settings(step.spec.driver, step.spec.targets)
    most = max(step.spec.concurrency for step in planned)
    raise_file_limit(most, option="--max-in-flight" if is_open else "--concurrency")
    text = output.text
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(notify))
            # Drivers that do not wait for the server's end have up to half as many backends dying.
            server = stack.enter_context(
                serve_any(benchmark.place, connections=most, ending=most // 2, log_setup=watched)
            )
            targets = targets_of_any(benchmark.place, server, tool=benchmark.tool)
            spec = replace(benchmark.spec, targets=targets)
            steps = _plan(benchmark, spec)
            seconds = spec.duration_s and spec.warmup_s + spec.duration_s
            rate = _highest_rate(benchmark)
            note = time_wait_note(targets, spec.driver, concurrency=most, rate=rate, seconds=seconds)
            if note is not None:
                notify(note)
            session = _session(benchmark, spec, steps, watched=watched)
            watching = watch_for(server, targets, benchmark.admin) if watched else None
            timeout_s = benchmark.spec.connect_timeout_s
            session.server = ask_any(
                benchmark.place,
                targets,
                stop,
                timeout_s=timeout_s,
                embedded=server is not None,
                keep_going=benchmark.keep_going,
            )
            if not is_open and not stop.requested:
                reader = LimitsReader(targets)
                asked = Asked(connections=most, at_once=most, option="--concurrency", servers=reader.servers)
                warn_of_walls(asked, reader, KnownLimits(), notify)
            view = make_view(
                text,
                stream_is_terminal=text.isatty(),
                quiet=output.quiet,
                targets=[str(target) for target in targets],
            )
            stack.callback(view.close)
            work = BenchSession(
                output,
                stop,
                view,
                text,
                session,
                levels,
                benchmark.label,
                checks=benchmark.checks,
                thresholds=thresholds,
                require_valid=benchmark.require_valid,
            )
            try:
                if benchmark.calibrate:
                    _calibrate(work, spec)
                if benchmark.find_max is not None:
                    find_maximum(work, benchmark.find_max, replace(spec, concurrency=most))
                else:
                    _measure_all(work, benchmark, steps, watching)
            except PoolBenchError:
                _finish(work)
                raise
            _finish(work)
            return work.exit_code
    except LeaveNow:
        notify("left without a summary")
        return EXIT_LEFT


def _plan(benchmark: ConnectPlan, spec: ConnectSpec) -> tuple[Step, ...]:
    return plan(spec, benchmark.levels, benchmark.variants, benchmark.rounds, benchmark.label)


def _session(benchmark: ConnectPlan, spec: ConnectSpec, steps: Sequence[Step], *, watched: bool) -> Session:
    levels = benchmark.levels
    targets = (*spec.targets, *(target for step in steps for target in step.spec.targets))
    config: dict[str, str | int | float | bool | list[str] | None] = {
        **config_of(benchmark.place, spec.targets[0]),
        "concurrency": levels[0] if len(levels) == 1 else None,
        "concurrency_min": levels[0],
        "concurrency_max": levels[-1],
    }
    if spec.open_loop is not None:
        config = {
            **config_of(benchmark.place, spec.targets[0]),
            "shape": benchmark.label,
            "arrivals": spec.open_loop.spacing,
            "seed": spec.seed,
            "max_in_flight": levels[0],
        }
    if benchmark.find_max is not None:
        config |= {
            "slo": str(benchmark.find_max.objectives),
            "first_rate": benchmark.find_max.first,
            "max_rate": benchmark.find_max.highest,
        }
    return Session(
        tool=benchmark.tool,
        name=benchmark.name,
        started_at=datetime.now(UTC),
        argv=redacted_argv(sys.argv),
        targets=tuple(dict.fromkeys(str(target) for target in targets)),
        config=config
        | {
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "query": spec.query,
            "scram_cache": spec.scram_cache,
            "resolve": "once" if spec.resolve_once else "each",
            "wait_between_runs_s": benchmark.pause_s,
            "rounds": benchmark.rounds,
            "interleave": [variant.name for variant in benchmark.variants],
            "watch": watched,
            "pgbouncer_admin": None if benchmark.admin is None else str(benchmark.admin),
        },
    )


def _highest_rate(benchmark: ConnectPlan) -> float | None:
    """Connections begun a second at most; None where that is not known before, as in a closed loop."""
    open_loop = benchmark.spec.open_loop
    return None if open_loop is None or benchmark.find_max is not None else open_loop.profile.highest


def _calibrate(work: BenchSession, spec: ConnectSpec) -> None:
    """Measure what this client costs by itself, unless the user stops it."""
    levels = work.levels if spec.open_loop is None else (min(*work.levels, _OPEN_LOOP_LEVEL),)
    calibration = calibrate(
        settings_for(spec.driver, levels, auth=spec.auth),
        work.stop,
        seconds=_CALIBRATION_S,
        query=spec.query,
        auth=spec.auth,
        protocol=_protocol(spec),
        sslmode=_sslmode(spec, work.session.server),
        begin=lambda driver, level: work.view.message(f"calibrating {driver} at concurrency {level:,}"),
    )
    work.session.calibration = calibration
    work.print(calibration_table(calibration, colour=colour_wanted(work.text)))


def _sslmode(spec: ConnectSpec, server: Mapping[str, str]) -> SslMode:
    """How runs come to the server: with TLS where that is demanded, or the first connection had it."""
    target = spec.targets[0]
    if not isinstance(target, PostgresTarget):
        return "disable"
    if target.sslmode in ("require", "verify-ca", "verify-full"):
        return target.sslmode
    return "require" if "tls" in server else "disable"


def _protocol(spec: ConnectSpec) -> Protocol:
    target = spec.targets[0]
    return "http" if isinstance(target, SurrealTarget) and not target.is_websocket else "ws"


def _measure_all(
    work: BenchSession, benchmark: ConnectPlan, steps: Sequence[Step], watching: Watching | None
) -> None:
    if benchmark.variants:
        for line in settings_too_short(benchmark.rounds, benchmark.spec.duration_s):
            notify(line)
    lost: set[str] = set()
    for index, step in enumerate(steps):
        if step.setting in lost:
            continue
        pause_s = benchmark.pause_s if index else 0
        if pause_s > _SILENT_PAUSE_S and not work.stop.requested:
            notify(f"next run in {format_duration(pause_s)}")
        if work.stop.sleep(pause_s):
            break
        run = Run(step.spec, step.label, work.stop)
        run.result.setting, run.result.round = step.setting, step.round
        label = step.label if step.round is None else f"{step.label}, round {step.round}"
        work.view.begin_run(label, index + 1, len(steps), step.spec.duration_s, step.spec.warmup_s)
        base = step.spec.targets == steps[0].spec.targets
        try:
            follow_watched(work, run, watching if base else None, step.spec.targets)
        except (GeneratorError, UsageError) as error:
            lost.add(step.setting)
            # There is nothing to go on with where it is the only one, or all have failed.
            if not benchmark.variants or lost == {one.setting for one in steps}:
                raise
            lose(work, run, step.setting or "the base", error)
            continue
        if step.round is None:
            work.detail(watched_summary(run.result, colour=colour_wanted(work.text)))
        if len(steps) > 1 and (step.round is not None or not work.output.verbose):
            work.print(round_line(_loaded(work, run.result).runs[0]))


def _loaded(work: BenchSession, *runs: RunResult) -> LoadedResult:
    """These runs of the session as its file has them."""
    return from_session(replace(work.session, runs=list(runs)))


def _finish(work: BenchSession) -> None:
    """Sum up the session and write its files, if it measured anything."""
    work.save(_answer(work))


def _answer(work: BenchSession) -> Brief:
    """The last screen; with `-v`, what else is known of all runs together is printed as well."""
    session, colour = work.session, colour_wanted(work.text)
    runs = session.runs
    if all(run.not_started for run in runs):
        return Brief()
    if session.find_max is not None:
        return search_brief(runs, session.find_max, colour=colour)
    if runs[0].round is not None:
        loaded = _loaded(work, *runs)
        work.detail(rounds_summary(loaded, colour=colour))
        return rounds_brief(loaded, colour=colour)
    if len(work.levels) > 1:
        work.detail(sweep_table(runs, colour=colour))
        return sweep_brief(runs, colour=colour)
    return run_brief(runs[0], colour=colour)
