"""Settings of one pool under the same load, round by round in changing order, and the one that wins."""

from dataclasses import dataclass, replace
from typing import Final

from pool_bench.cli.commands.pools import OVERHEAD_S, follow_pool, in_turn, make_pool_view, require_answer
from pool_bench.cli.options.pool import Timing
from pool_bench.cli.places.base import Config, Site
from pool_bench.cli.plan import Measurement, Start
from pool_bench.cli.session import BenchSession
from pool_bench.cli.status import notify
from pool_bench.cli.watching import WatchedPlan
from pool_bench.compare.pools import group_by_load
from pool_bench.compare.readiness import settings_too_short
from pool_bench.compare.winner import find_winner
from pool_bench.contenders.base import RANGED
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import UsageError
from pool_bench.load.spec import MEANINGS, PoolSpec
from pool_bench.report.brief.pools import contest_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.pool_progress import Progress
from pool_bench.report.summary.pool_contest import statement_of
from pool_bench.report.summary.pools import behaviour_summary, contest_summary
from pool_bench.results.model import from_session
from pool_bench.results.thresholds import Threshold
from pool_bench.units import format_duration

# A closed loop in which every client asks again at once.
SCENARIO: Final = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContestPlan(WatchedPlan):
    """Compare settings of a pool.

    Attributes:
        spec: the settings of every run; the sizes are filled in.
        pairs: connections at least and at most of each setting, in the user's order.
        timing: how long, and how often.
    """

    spec: PoolSpec
    pairs: tuple[tuple[int, int], ...]
    timing: Timing

    @property
    def connections(self) -> int:
        """Connections of the largest pool."""
        return max(high for _, high in self.pairs)

    @property
    def connections_option(self) -> str:
        """The option that says so."""
        return "--sizes"

    @property
    def timeout_s(self) -> float:
        """As of every acquire."""
        return self.spec.timeout_s

    def thresholds(self) -> tuple[Threshold, ...]:
        """Thresholds on the fields of runs with a pool."""
        return self.session.checks.read(pool=True)

    def check(self) -> None:
        """Make sure that the pool has such settings, and can honour what the target asks for."""
        _ = self.watched
        if self.spec.pool not in RANGED:
            raise UsageError(
                f"--sizes: {self.spec.pool} has no connections at least and at most; {', '.join(RANGED)} have"
            )
        if self.spec.clients < self.connections:
            raise UsageError(
                f"--clients {self.spec.clients:,} use one connection each at most, and --sizes "
                f"go up to {self.connections:,}"
            )
        check_settings(self.spec.pool, self.place.targets)

    def begin(self, start: Start) -> Measurement:
        """Make sure that the server answers."""
        require_answer(start)
        targets = start.site.targets
        run = _ContestRun(self, start.site, replace(self.spec, targets=targets, scenario=SCENARIO))
        return Measurement(
            config=run.config(),
            view=make_pool_view(self.session.output, targets[0]),
            measure=run.measure,
            answer=run.answer,
            levels=(self.spec.clients,),
        )


@dataclass(frozen=True, slots=True)
class _ContestRun:
    """A plan to compare settings, whose server is there.

    Attributes:
        plan: what the user asked for.
        site: where the server is.
        spec: the settings of every run; the sizes are filled in.
    """

    plan: PoolContestPlan
    site: Site
    spec: PoolSpec

    def config(self) -> Config:
        """The settings, for the result file."""
        own, spec = self.plan, self.spec
        return {
            "pool": spec.pool,
            "sizes": [f"{low}-{high}" for low, high in own.pairs],
            "clients": spec.clients,
            "rounds": own.timing.rounds,
            "reset": spec.reset,
            "prepared": spec.prepared,
            "query": spec.query,
            "hold_s": spec.hold_s,
            "timeout_s": spec.timeout_s,
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            **own.watching_config,
        }

    def measure(self, work: BenchSession) -> None:
        """Measure every setting in every round."""
        spec, rounds, pairs = self.spec, self.plan.timing.rounds, self.plan.pairs
        each_s = spec.duration_s + spec.warmup_s + OVERHEAD_S
        total = len(pairs) * rounds
        notify(f"{total} runs, about {format_duration(total * each_s)}")
        for line in settings_too_short(rounds, spec.duration_s):
            notify(line)
        progress = Progress(total, rounds, each_s)
        turns = [(round_, pair) for round_ in range(1, rounds + 1) for pair in in_turn(pairs, round_)]
        for number, (round_, (low, high)) in enumerate(turns, 1):
            if work.stop.requested:
                return
            sized = replace(spec, min_size=low, size=high, round=round_)
            with self.plan.watcher(self.site, sized.targets, high) as watcher:
                follow_pool(work, sized, watcher, number=number, total=total, rounds=rounds)
            work.keep()
            row = from_session(replace(work.session, runs=work.session.runs[-1:])).runs[0]
            for line in progress.lines(row, number):
                work.row(line)

    def answer(self, work: BenchSession) -> Brief | None:
        """Who won, None where nothing was measured."""
        result = from_session(work.session)
        measured = group_by_load(result.runs)
        if not measured:
            return None
        (compared,) = measured
        contest = find_winner(result, compared)
        work.session.contest = contest
        answer = " ".join(statement_of(contest))
        work.detail(contest_summary(compared, MEANINGS[SCENARIO], answer=answer, colour=work.colour))
        work.detail(behaviour_summary(measured, colour=work.colour))
        return contest_brief(compared, contest, colour=work.colour)
