"""`pool-bench run` from settings to exit code: contests, rounds, runs, summaries, files."""

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.thresholds import NO_CHECKS, Checks
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT
from pool_bench.cli.places.base import AnyPlace, AnyServer, ask_any, config_of, serve_any, targets_of_any
from pool_bench.cli.preflight import run_briefly
from pool_bench.cli.session import BenchSession, notify
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.compare.pools import group_by_load
from pool_bench.compare.readiness import pools_too_few
from pool_bench.contenders.base import PREPARE, ContenderName
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.run import GeneratorError, Run, StopSwitch
from pool_bench.load.spec import MEANINGS, STRESS_CLIENTS, PoolSpec, ScenarioName
from pool_bench.report.brief.pools import contests_brief
from pool_bench.report.brief.screen import Brief, Part
from pool_bench.report.live.pool_progress import Progress
from pool_bench.report.live.view import make_view
from pool_bench.report.summary.pools import behaviour_summary, contest_summary
from pool_bench.report.summary.run import wrap
from pool_bench.report.summary.unfinished import hanging_of_runs
from pool_bench.report.text import colour_wanted
from pool_bench.results import write as results
from pool_bench.results.session import Session
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.units import format_duration

UNIT: Final = "op/s"
# A warm-up, a grace period and a process take this long beside their measuring.
_OVERHEAD_S: Final = 1.0
# What share of a run passes before its server is restarted.
_RESTART_AT: Final = 1 / 3
_LOOKS: Final = 6
# For a look at what the target does with sessions.
_LOOK_S: Final = 2.0
# Fine enough for a spike of seconds; a long run has longer stretches rather than more.
_INTERVAL_S: Final = 0.25
_MOST_INTERVALS: Final = 240
_DEFAULT_QUERY: Final = "SELECT 1"
_DEFAULT_HOLD_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What to measure.

    Attributes:
        tool, name: as in the result file.
        place: where the target comes from.
        pools, scenarios: what to measure, in that order.
        spec: the settings of every run; what differs between runs is filled in.
        query: SQL of each operation, None for each scenario's own.
        hold_s: how long connections are kept, None for each scenario's own.
        rounds: how often each is measured.
        stress: how many clients the scenario `stress` has, one load for each.
        outage_s: how long a restarted server stays away.
        output: where results go.
        span: names the load of an open loop in file names, "" in a closed one.
        checks: what must hold of the results.
        require_valid: whether a suspect run makes the exit code 1.
    """

    tool: str
    name: str
    place: AnyPlace
    pools: tuple[ContenderName, ...]
    scenarios: tuple[ScenarioName, ...]
    spec: PoolSpec
    query: str | None
    hold_s: float | None
    rounds: int
    outage_s: float
    output: Output
    stress: tuple[int, ...] = STRESS_CLIENTS
    span: str = ""
    checks: Checks = NO_CHECKS
    require_valid: bool = False


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """One load, and the pools that are put under it."""

    spec: PoolSpec
    pools: tuple[ContenderName, ...]

    def order(self, round_: int) -> tuple[ContenderName, ...]:
        """The pools' turns in a round (from 1): each begins once, and none always follows the same one."""
        turn = (round_ - 1) % len(self.pools)
        turned = (*self.pools[turn:], *self.pools[:turn])
        return turned if (round_ - 1) // len(self.pools) % 2 == 0 else turned[::-1]


def pool_loads(benchmark: PoolPlan) -> list[PoolLoad]:
    """Every load that is to be measured."""
    found = []
    for scenario in benchmark.scenarios:
        spec = replace(
            benchmark.spec,
            scenario=scenario,
            query=_query(benchmark, scenario),
            hold_s=_hold_s(benchmark, scenario),
        )
        pools = benchmark.pools
        if scenario == "naive":
            # As many as there are connections: without a pool every client has one of its own.
            spec = replace(spec, clients=min(spec.clients, spec.size))
            pools = ("naive", *(pool for pool in pools if pool != "naive"))
        levels = benchmark.stress if scenario == "stress" else (spec.clients,)
        found += [PoolLoad(replace(spec, clients=clients), pools) for clients in levels]
    return found


def _query(benchmark: PoolPlan, scenario: ScenarioName) -> str | None:
    return None if scenario == "churn" else benchmark.query or _DEFAULT_QUERY


def _hold_s(benchmark: PoolPlan, scenario: ScenarioName) -> float:
    if benchmark.hold_s is not None:
        return benchmark.hold_s
    return _DEFAULT_HOLD_S if scenario == "sustained" else 0.0


def measure_pools(benchmark: PoolPlan) -> int:
    """Measure every pool under every load, show it, and write the files.

    Returns:
        The exit code: 0, 1 where a run had no success, a threshold failed or a run is suspect and must not
        be, 130 where the user left.

    Raises:
        UsageError: a setting turned out to be impossible.
        ServerStartError: the embedded server does not start.
        GeneratorError: a generator process failed; what was measured before is saved.
    """
    output = benchmark.output
    output.check()
    thresholds = benchmark.checks.read(pool=True)
    everything = pool_loads(benchmark)
    for pool in benchmark.pools:
        check_settings(pool, benchmark.place.targets)
    if "reconnect" in benchmark.scenarios and not benchmark.place.is_embedded:
        raise UsageError(
            f"--scenario reconnect restarts the server, and this tool may not restart the one that "
            f"{benchmark.place.origin} names: leave it out, or let the tool start its own"
        )
    raise_file_limit(_connections(everything), option="--size")
    text = output.text
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(notify))
            server = stack.enter_context(serve_any(benchmark.place, connections=_connections(everything)))
            targets = targets_of_any(benchmark.place, server, tool=benchmark.tool)
            spec = replace(benchmark.spec, targets=targets)
            session = _session(benchmark, spec)
            session.server = ask_any(
                benchmark.place, targets[:1], stop, timeout_s=spec.timeout_s, embedded=server is not None
            )
            if not session.server and not stop.requested:
                notify("error: the server does not answer: not measuring pools")
                return EXIT_FAILED
            if server is None and spec.prepared:
                _warn_of_shared_sessions(benchmark, targets[0], spec.timeout_s)
            view = make_view(
                text,
                stream_is_terminal=text.isatty(),
                quiet=output.quiet,
                targets=[str(targets[0])],
                unit=UNIT,
            )
            stack.callback(view.close)
            levels = tuple(sorted({bout.spec.clients for bout in everything}))
            work = BenchSession(
                output,
                stop,
                view,
                text,
                session,
                levels,
                benchmark.span,
                checks=benchmark.checks,
                thresholds=thresholds,
                require_valid=benchmark.require_valid,
            )
            everything = [replace(bout, spec=replace(bout.spec, targets=targets)) for bout in everything]
            try:
                _measure_all(work, benchmark, everything, server)
            except PoolBenchError:
                work.save(_answer(work))
                raise
            work.save(_answer(work))
            return work.exit_code
    except LeaveNow:
        notify("left without a summary")
        return EXIT_LEFT


def _warn_of_shared_sessions(benchmark: PoolPlan, target: Target, timeout_s: float) -> None:
    """Say so before pools that prepare statements fail behind a pooler that does not keep them."""
    preparing = [pool for pool in benchmark.pools if pool in PREPARE]
    if not preparing or not isinstance(target, PostgresTarget):
        return
    from pool_bench.watch.postgres.sharing import shares_sessions

    if run_briefly(shares_sessions(target, min(_LOOK_S, timeout_s))):
        notify(
            f"warning: each transaction may meet another session (a pooler in transaction mode): what "
            f"{' and '.join(preparing)} prepare may be missing there; --no-prepared prepares nothing"
        )


def _connections(everything: Sequence[PoolLoad]) -> int:
    return max(bout.spec.size for bout in everything)


def _session(benchmark: PoolPlan, spec: PoolSpec) -> Session:
    return Session(
        tool=benchmark.tool,
        name=benchmark.name,
        started_at=datetime.now(UTC),
        argv=redacted_argv(sys.argv),
        targets=tuple(str(target) for target in spec.targets),
        config={
            **config_of(benchmark.place, spec.targets[0]),
            "pools": list(benchmark.pools),
            "scenarios": list(benchmark.scenarios),
            **_arrivals(spec),
            "size": spec.size,
            "rounds": benchmark.rounds,
            "reset": spec.reset,
            "prepared": spec.prepared,
            "outage_s": benchmark.outage_s,
            "query": benchmark.query,
            "hold_s": benchmark.hold_s,
            "timeout_s": spec.timeout_s,
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
        },
    )


def _arrivals(spec: PoolSpec) -> dict[str, str | int | float | None]:
    """What says how clients come, in the settings."""
    if spec.open_loop is None:
        return {"clients": spec.clients, "seed": spec.seed}
    return {
        "rate": spec.open_loop.profile.first,
        "arrivals": spec.open_loop.spacing,
        "seed": spec.seed,
        "max_in_flight": spec.clients,
    }


def _measure_all(
    work: BenchSession, benchmark: PoolPlan, everything: Sequence[PoolLoad], server: AnyServer | None
) -> None:
    total = sum(len(bout.pools) for bout in everything) * benchmark.rounds
    each_s = benchmark.spec.duration_s + benchmark.spec.warmup_s + _OVERHEAD_S
    if total > 1:
        notify(f"{total} runs, about {format_duration(total * each_s)}")
    for line in pools_too_few(
        benchmark.pools, benchmark.scenarios, benchmark.rounds, benchmark.spec.duration_s
    ):
        notify(line)
    progress = Progress(total, benchmark.rounds, each_s)
    number = 0
    for bout in everything:
        begun = len(work.session.runs)
        turns = [(round_, pool) for round_ in range(1, benchmark.rounds + 1) for pool in bout.order(round_)]
        lost: set[ContenderName] = set()
        try:
            for round_, pool in turns:
                number += 1
                if work.stop.requested:
                    break
                if pool in lost:
                    continue
                spec = replace(bout.spec, pool=pool, round=round_)
                outage = (
                    OutagePlan(server, benchmark.outage_s) if isinstance(server, EmbeddedPostgres) else None
                )
                try:
                    follow_pool(
                        work, spec, number=number, total=total, rounds=benchmark.rounds, outage=outage
                    )
                except (GeneratorError, UsageError) as error:
                    lost.add(pool)
                    if not_started(work, spec, error) and lost == set(bout.pools):
                        raise
                work.keep()
                if total > 1:
                    row = results.from_session(replace(work.session, runs=work.session.runs[-1:])).runs[0]
                    for line in progress.lines(row, number):
                        work.row(line)
        except PoolBenchError:
            # What was measured before a failure is worth as much.
            print_contests(work, begun)
            raise
        print_contests(work, begun)
        if work.stop.requested:
            break
    print_behaviour(work)


def not_started(work: BenchSession, spec: PoolSpec, error: PoolBenchError) -> bool:
    """Keep a row for a pool that failed, and go on without it; returns whether it never began."""
    runs = work.session.runs
    notify(f"{spec.pool} failed, going on without it: {error}")
    if runs and runs[-1].pool is not None and (runs[-1].driver, runs[-1].interrupted) == (spec.pool, True):
        # What it had measured until then is its row.
        return False
    row = Run(spec, f"{spec.scenario} · {spec.pool}", work.stop).result
    row.not_started = str(error)
    runs.append(row)
    return True


def follow_pool(
    work: BenchSession,
    spec: PoolSpec,
    *,
    number: int,
    total: int,
    rounds: int,
    outage: "OutagePlan | None" = None,
) -> None:
    """Measure one run, number `number` of `total`, and restart the server in it where the scenario says so.

    Raises:
        GeneratorError: the generator failed; what it had measured until then is kept.
        UsageError: the run could not begin.
        ServerStartError: the server did not come back.
    """
    load = f"{spec.scenario} {spec.clients:,}" if spec.scenario == "stress" else str(spec.scenario)
    if spec.open_loop is not None:
        load = f"{load} {spec.open_loop.profile.first:g}/s"
    repeat = f", round {spec.round} of {rounds}" if rounds > 1 else ""
    spec = replace(spec, interval_s=max(_INTERVAL_S, spec.duration_s / _MOST_INTERVALS))
    restarts = spec.scenario == "reconnect" and outage is not None
    if restarts:
        # The moment for it must come while there is time left, in a short run too.
        tick_s = min(spec.tick_s, spec.duration_s / _LOOKS)
        spec = replace(spec, tick_s=tick_s, interval_s=min(spec.interval_s, tick_s))
    run = Run(spec, f"{load} · {spec.pool}{repeat}", work.stop)
    work.view.begin_run(run.result.label, number, total, spec.duration_s, spec.warmup_s)
    if not restarts or outage is None:
        work.follow(run)
        return
    restart = _ServerRestart(outage, run, work.stop)

    def saw(snapshot: Snapshot) -> None:
        is_time = spec.duration_s * _RESTART_AT <= snapshot.elapsed_s < spec.duration_s
        if snapshot.stage is Stage.MEASURE and is_time:
            restart.begin()

    try:
        work.follow(run, saw)
    finally:
        restart.join()
    seen = run.result.checkout
    if not work.stop.requested and (seen is None or seen.recovery is None):
        notify("the run was over before its server was restarted: how clients come back was not measured")


def print_contests(work: BenchSession, begun: int) -> None:
    """Sum up the runs from the one numbered `begun` (from 0) on."""
    measured = replace(work.session, runs=work.session.runs[begun:])
    for contest in group_by_load(results.from_session(measured).runs):
        meaning = MEANINGS[contest.scenario]  # type: ignore[index]
        work.detail(contest_summary(contest, meaning, colour=colour_wanted(work.text)))


def print_behaviour(work: BenchSession) -> None:
    """Say what each pool does, and how to read the figures."""
    measured = group_by_load(results.from_session(work.session).runs)
    if measured:
        work.detail(behaviour_summary(measured, colour=colour_wanted(work.text)))


def _answer(work: BenchSession) -> Brief | None:
    """The last screen, None where nothing was measured."""
    measured = group_by_load(results.from_session(work.session).runs)
    if not measured:
        return None
    brief = contests_brief(measured, colour=colour_wanted(work.text))
    hanging = [line for words in hanging_of_runs(work.session.runs) for line in wrap(words, "  ")]
    return replace(brief, parts=(*brief.parts, Part(hanging, rank=70)))


@dataclass(frozen=True, slots=True)
class OutagePlan:
    """A server that may be restarted, and how long it then stays away, seconds."""

    server: EmbeddedPostgres
    seconds: float


class _ServerRestart:
    """Restarts a server beside the run, so that its lines go on, and tells the generator of it."""

    def __init__(self, outage: OutagePlan, run: Run, stop: StopSwitch) -> None:
        self._outage = outage
        self._run = run
        self._stop = stop
        self._thread: threading.Thread | None = None
        self._error: PoolBenchError | None = None

    def begin(self) -> None:
        """Stop and start the server, now; again is nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._restart, name="restart")
            self._thread.start()

    def _restart(self) -> None:
        try:
            self._run.note("stopping")
            self._outage.server.restart(stopped=self._stay_away)
            self._run.note("up")
        except PoolBenchError as error:
            self._error = error

    def _stay_away(self) -> None:
        self._run.note("down")
        self._stop.sleep(self._outage.seconds)

    def join(self) -> None:
        """Wait until the server is back.

        Raises:
            ServerStartError: it did not come back.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
