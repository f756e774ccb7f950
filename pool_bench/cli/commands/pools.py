"""Pools under the same loads, in turn: rounds, restarts of the server, summaries."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pool_bench.cli.options.pool import PoolOptions, Timing
from pool_bench.cli.options.shared import Output
from pool_bench.cli.places.base import Config, Restart, Site
from pool_bench.cli.plan import Measurement, Start
from pool_bench.cli.session import BenchSession
from pool_bench.cli.status import notify
from pool_bench.cli.watching import WatchedPlan, follow_watched
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
from pool_bench.report.live.view import LiveView, make_view
from pool_bench.report.summary.pools import behaviour_summary, contest_summary
from pool_bench.report.summary.run import wrap
from pool_bench.report.summary.unfinished import hanging_of_runs
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.thresholds import Threshold
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets import Target
from pool_bench.units import format_duration
from pool_bench.watch.watcher import Watcher

_Item = TypeVar("_Item")

# A warm-up, a grace period and a process take this long beside their measuring.
OVERHEAD_S: Final = 1.0
# What share of a run passes before its server is restarted.
_RESTART_AT: Final = 1 / 3
_LOOKS: Final = 6
# Fine enough for a spike of seconds; a long run has longer stretches rather than more.
_INTERVAL_S: Final = 0.25
_MOST_INTERVALS: Final = 240
_DEFAULT_QUERY: Final = "SELECT 1"
_DEFAULT_HOLD_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan(WatchedPlan):
    """Put pools under the same loads, in turn.

    Attributes:
        options: what to measure, in the user's order.
        timing: how long, and how often.
        spec: the settings of every run; what differs between runs is filled in.
        stress: how many clients the scenario `stress` has, one load for each.
        outage_s: how long a restarted server stays away.
        span: names the load of an open loop in file names, "" in a closed one.
    """

    options: PoolOptions
    timing: Timing
    spec: PoolSpec
    outage_s: float = 0.0
    stress: tuple[int, ...] = STRESS_CLIENTS
    span: str = ""

    @property
    def connections(self) -> int:
        """Connections of the largest pool, in all processes."""
        return max(load.spec.size * load.spec.processes for load in self.loads())

    @property
    def connections_option(self) -> str:
        """The option that says so."""
        return "--size"

    @property
    def timeout_s(self) -> float:
        """As of every acquire."""
        return self.spec.timeout_s

    def thresholds(self) -> tuple[Threshold, ...]:
        """Thresholds on the fields of runs with a pool."""
        return self.session.checks.read(pool=True)

    def loads(self) -> list["PoolLoad"]:
        """Every load that is to be measured."""
        loads = []
        for scenario in self.options.scenarios:
            spec = replace(
                self.spec, scenario=scenario, query=self._query(scenario), hold_s=self._hold_s(scenario)
            )
            pools = self.options.pools
            if scenario == "naive":
                # As many as there are connections: without a pool every client has one of its own.
                spec = replace(spec, clients=min(spec.clients, spec.size))
                pools = ("naive", *(pool for pool in pools if pool != "naive"))
            levels = self.stress if scenario == "stress" else (spec.clients,)
            loads += [PoolLoad(replace(spec, clients=clients), pools) for clients in levels]
        return loads

    def _query(self, scenario: ScenarioName) -> str | None:
        return None if scenario == "churn" else self.options.query or _DEFAULT_QUERY

    def _hold_s(self, scenario: ScenarioName) -> float:
        if self.options.hold_s is not None:
            return self.options.hold_s
        return _DEFAULT_HOLD_S if scenario == "sustained" else 0.0

    def check(self) -> None:
        """Make sure that pools can honour what the target asks for, and that it may be restarted."""
        _ = self.watched
        for pool in self.options.pools:
            check_settings(pool, self.place.targets)
        if "reconnect" in self.options.scenarios and not self.place.is_embedded:
            raise UsageError(
                f"--scenario reconnect restarts the server, and this tool may not restart the one that "
                f"{self.place.origin} names: leave it out, or let the tool start its own"
            )

    def begin(self, start: Start) -> Measurement:
        """Make sure that the server answers, and say so where it does not keep what pools prepare."""
        require_answer(start)
        preparing = [pool for pool in self.options.pools if pool in PREPARE] if self.spec.prepared else []
        if preparing and start.site.shares_sessions(self.timeout_s):
            notify(
                f"warning: each transaction may meet another session (a pooler in transaction mode): what "
                f"{' and '.join(preparing)} prepare may be missing there; --no-prepared prepares nothing"
            )
        targets = start.site.targets
        loads = [replace(load, spec=replace(load.spec, targets=targets)) for load in self.loads()]
        restart = start.site.restart
        outage = None if restart is None else OutagePlan(restart, self.outage_s)
        run = _PoolRun(self, start.site, loads, outage)
        return Measurement(
            config=run.config(),
            view=make_pool_view(self.session.output, targets[0]),
            measure=run.measure,
            answer=run.answer,
            levels=tuple(sorted({load.spec.clients for load in loads})),
            span=self.span,
        )


def require_answer(start: Start) -> None:
    """Make sure that there is a server to put pools before.

    Raises:
        PoolBenchError: it gave no answer.
    """
    if start.is_silent:
        raise PoolBenchError("the server does not answer; not measuring pools")


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """One load, and the pools that are put under it."""

    spec: PoolSpec
    pools: tuple[ContenderName, ...]

    def order(self, round_: int) -> tuple[ContenderName, ...]:
        """The pools' turns in a round (from 1)."""
        return in_turn(self.pools, round_)


def in_turn(items: tuple[_Item, ...], round_: int) -> tuple[_Item, ...]:
    """`items` for a round (from 1): each begins once, and none always follows the same one."""
    turn = (round_ - 1) % len(items)
    turned = (*items[turn:], *items[:turn])
    return turned if (round_ - 1) // len(items) % 2 == 0 else turned[::-1]


@dataclass(frozen=True, slots=True)
class _PoolRun:
    """A plan to put pools under load, whose server is there.

    Attributes:
        plan: what the user asked for.
        site: where the server is.
        loads: what is measured, in this order.
        outage: how the server is restarted, None where that is not possible.
    """

    plan: PoolPlan
    site: Site
    loads: list[PoolLoad]
    outage: "OutagePlan | None"

    def config(self) -> Config:
        """The settings, for the result file."""
        own, spec = self.plan, self.plan.spec
        return {
            "pools": list(own.options.pools),
            "scenarios": list(own.options.scenarios),
            **_arrivals(spec),
            "size": spec.size,
            "rounds": own.timing.rounds,
            "reset": spec.reset,
            "prepared": spec.prepared,
            "outage_s": own.outage_s,
            "query": own.options.query,
            "hold_s": own.options.hold_s,
            "timeout_s": spec.timeout_s,
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            **own.watching_config,
        }

    def measure(self, work: BenchSession) -> None:
        """Put every pool under every load, and sum each load up."""
        options, spec, rounds = self.plan.options, self.plan.spec, self.plan.timing.rounds
        total = sum(len(load.pools) for load in self.loads) * rounds
        each_s = spec.duration_s + spec.warmup_s + OVERHEAD_S
        if total > 1:
            notify(f"{total} runs, about {format_duration(total * each_s)}")
        for line in pools_too_few(options.pools, options.scenarios, rounds, spec.duration_s):
            notify(line)
        progress = Progress(total, rounds, each_s)
        thresholds = self.plan.thresholds()
        number = 0
        for load in self.loads:
            begun = len(work.session.runs)
            try:
                number = self._measure_load(work, load, progress, number, total)
            except PoolBenchError:
                # What was measured before a failure is worth as much.
                print_contests(work, begun, thresholds)
                raise
            print_contests(work, begun, thresholds)
            if work.stop.requested:
                break
        print_behaviour(work)

    def _measure_load(
        self, work: BenchSession, load: PoolLoad, progress: Progress, number: int, total: int
    ) -> int:
        """Measure one load, its first run the one after `number`, and return the number of the last one."""
        rounds = self.plan.timing.rounds
        lost: set[ContenderName] = set()
        turns = [(number, pool) for number in range(1, rounds + 1) for pool in load.order(number)]
        for round_, pool in turns:
            number += 1
            if work.stop.requested:
                break
            if pool in lost:
                continue
            spec = replace(load.spec, pool=pool, round=round_)
            try:
                with self.plan.watcher(self.site, spec.targets, spec.size * spec.processes) as watcher:
                    follow_pool(
                        work,
                        spec,
                        watcher,
                        number=number,
                        total=total,
                        rounds=rounds,
                        outage=self.outage,
                    )
            except (GeneratorError, UsageError) as error:
                lost.add(pool)
                if not_started(work, spec, error) and lost == set(load.pools):
                    raise
            work.keep()
            if total > 1:
                row = from_session(replace(work.session, runs=work.session.runs[-1:])).runs[0]
                for line in progress.lines(row, number):
                    work.row(line)
        return number

    def answer(self, work: BenchSession) -> Brief | None:
        """The last screen, None where nothing was measured."""
        measured = group_by_load(from_session(work.session).runs)
        if not measured:
            return None
        brief = contests_brief(measured, thresholds=self.plan.thresholds(), colour=work.colour)
        hanging = [
            line
            for words in hanging_of_runs(list(map(RunRecord.of, work.session.runs)))
            for line in wrap(words, "  ")
        ]
        return replace(brief, parts=(*brief.parts, Part(hanging, rank=70)))


def make_pool_view(output: Output, target: Target) -> LiveView:
    """The view of runs with a pool, in operations a second."""
    stream = output.text
    return make_view(
        stream,
        stream_is_terminal=stream.isatty(),
        quiet=output.quiet,
        targets=[str(target)],
        unit="op/s",
    )


def _arrivals(spec: PoolSpec) -> Config:
    """What says how clients come, in the settings."""
    if spec.open_loop is None:
        return {"clients": spec.clients, "seed": spec.seed}
    return {
        "rate": spec.open_loop.profile.first,
        "arrivals": spec.open_loop.spacing,
        "seed": spec.seed,
        "max_in_flight": spec.clients,
    }


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
    watcher: Watcher | None,
    *,
    number: int,
    total: int,
    rounds: int,
    outage: "OutagePlan | None" = None,
) -> None:
    """Measure one run, number `number` of `total`, and restart the server in it where the scenario says so.

    Args:
        watcher: looks at the server, entered already; None where it is not watched.

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
    pool = spec.pool if spec.min_size is None else f"{spec.pool} {spec.min_size:,}-{spec.size:,}"
    run = Run(spec, f"{load} · {pool}{repeat}", work.stop)
    work.view.begin_run(run.result.label, number, total, spec.duration_s, spec.warmup_s)
    if not restarts or outage is None:
        follow_watched(work, run, watcher)
        return
    restart = _ServerRestart(outage, run, work.stop)

    def saw(snapshot: Snapshot) -> None:
        is_time = spec.duration_s * _RESTART_AT <= snapshot.elapsed_s < spec.duration_s
        if snapshot.stage is Stage.MEASURE and is_time:
            restart.begin()

    try:
        follow_watched(work, run, watcher, saw=saw)
    finally:
        restart.join()
    seen = run.result.checkout
    if not work.stop.requested and (seen is None or seen.recovery is None):
        notify("the run was over before its server was restarted: how clients come back was not measured")


def print_contests(work: BenchSession, begun: int, thresholds: Sequence[Threshold]) -> None:
    """Sum up the runs from the one numbered `begun` (from 0) on."""
    measured = replace(work.session, runs=work.session.runs[begun:])
    for contest in group_by_load(from_session(measured).runs):
        meaning = MEANINGS[contest.scenario]  # type: ignore[index]
        work.detail(contest_summary(contest, meaning, thresholds=thresholds, colour=work.colour))


def print_behaviour(work: BenchSession) -> None:
    """Say what each pool does, and how to read the figures."""
    measured = group_by_load(from_session(work.session).runs)
    if measured:
        work.detail(behaviour_summary(measured, colour=work.colour))


@dataclass(frozen=True, slots=True)
class OutagePlan:
    """A server that may be restarted, and how long it then stays away, seconds."""

    restart: Restart
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
            self._run.signal_server_event("stopping")
            self._outage.restart(self._stay_away)
            self._run.signal_server_event("up")
        except PoolBenchError as error:
            self._error = error

    def _stay_away(self) -> None:
        self._run.signal_server_event("down")
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
