"""A sweep of pool sizes, round by round, and the size it speaks for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from pool_bench.analysis.scalability import FEWEST_SIZES
from pool_bench.cli.commands.pool_contest import PoolContestPlan
from pool_bench.cli.commands.pools import follow_pool, make_pool_view, require_answer
from pool_bench.cli.options.pool import Timing
from pool_bench.cli.options.shared import SessionOptions
from pool_bench.cli.options.size import SizeOptions
from pool_bench.cli.places.base import Config, Place, Site
from pool_bench.cli.plan import Measurement, Plan, Start
from pool_bench.cli.session import BenchSession
from pool_bench.cli.status import notify
from pool_bench.cli.watching import WatchedPlan
from pool_bench.compare.pool_sizes import by_size, sizing_of
from pool_bench.contenders import check_installed
from pool_bench.contenders.base import RANGED
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import UsageError
from pool_bench.load.spec import PoolSpec
from pool_bench.report.brief.pools import sizes_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.summary.pool_sizes import sizes_summary
from pool_bench.results.model import from_session
from pool_bench.results.thresholds import Threshold
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePlan(WatchedPlan):
    """Find the size of a pool.

    Attributes:
        spec: the settings of every run; the size is filled in.
        sizes: what to try, ascending.
        timing: how long, and how often.
    """

    spec: PoolSpec
    sizes: tuple[int, ...]
    timing: Timing

    @property
    def connections(self) -> int:
        """Connections of the largest pool."""
        return self.sizes[-1]

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
        """Make sure that a law can be fitted, and that the pool can honour what the target asks for."""
        _ = self.watched
        if find_spec("scipy") is None:
            raise UsageError("size needs scipy to fit a law; install pool-bench[sizing]")
        if len(self.sizes) < FEWEST_SIZES:
            fewest = f"--sizes: it takes at least {FEWEST_SIZES} sizes to fit a law, not {len(self.sizes)}"
            pairs = ",".join(f"{size}-{size}" for size in self.sizes)
            is_comparable = len(self.sizes) > 1 and self.spec.pool in RANGED
            raise UsageError(f"{fewest}; {pairs} compares them" if is_comparable else fewest)
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
        run = _SizeRun(self, start.site, replace(self.spec, targets=targets))
        return Measurement(
            config=run.config(),
            view=make_pool_view(self.session.output, targets[0]),
            measure=run.measure,
            answer=run.answer,
            levels=(self.spec.clients,),
        )


def size_plan(
    *,
    tool: str,
    place: Place,
    session: SessionOptions,
    options: SizeOptions,
    timing: Timing,
    prepared: bool = True,
    watch: bool | None = None,
    admin: PostgresTarget | None = None,
) -> Plan:
    """What the options of `size` ask for: a sweep of sizes, or a comparison of settings."""
    check_installed(options.pool)
    spec = PoolSpec(
        targets=place.targets,
        pool=options.pool,
        scenario="size",
        clients=options.clients,
        size=options.asked.largest,
        timeout_s=timing.timeout_s,
        reset=options.reset,
        prepared=prepared,
        query=options.query,
        hold_s=options.hold_s,
        warmup_s=timing.warmup_s,
        duration_s=timing.duration_s,
        grace_s=timing.grace_s,
    )
    asked = options.asked
    if asked.pairs:
        return PoolContestPlan(
            tool=tool,
            place=place,
            session=session,
            watch=watch,
            admin=admin,
            timing=timing,
            spec=spec,
            pairs=asked.pairs,
        )
    return SizePlan(
        tool=tool,
        place=place,
        session=session,
        watch=watch,
        admin=admin,
        timing=timing,
        spec=spec,
        sizes=asked.sizes,
    )


def order(sizes: Sequence[int], round_: int) -> list[int]:
    """The sizes' turns in a round (from 1): up, then down, so that a drift does not look like a law."""
    return list(sizes) if round_ % 2 else list(reversed(sizes))


@dataclass(frozen=True, slots=True)
class _SizeRun:
    """A plan to find a pool's size, whose server is there.

    Attributes:
        plan: what the user asked for.
        site: where the server is.
        spec: the settings of every run; the size is filled in.
    """

    plan: SizePlan
    site: Site
    spec: PoolSpec

    def config(self) -> Config:
        """The settings, for the result file."""
        own, spec = self.plan, self.spec
        return {
            "pool": spec.pool,
            "sizes": [str(size) for size in own.sizes],
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
        """Measure every size in every round."""
        sizes, spec, rounds = self.plan.sizes, self.spec, self.plan.timing.rounds
        total = len(sizes) * rounds
        notify(f"{total} runs, about {format_duration(total * (spec.duration_s + spec.warmup_s + 1.0))}")
        turns = [(round_, size) for round_ in range(1, rounds + 1) for size in order(sizes, round_)]
        for number, (round_, size) in enumerate(turns, 1):
            if work.stop.requested:
                return
            sized = replace(spec, size=size, round=round_)
            with self.plan.watcher(self.site, sized.targets, size) as watcher:
                follow_pool(work, sized, watcher, number=number, total=total, rounds=rounds)
            work.keep()

    def answer(self, work: BenchSession) -> Brief | None:
        """The size that the law speaks for, None where none was to be fitted."""
        groups = by_size(from_session(work.session).runs)
        sizing = sizing_of(groups) if groups else None
        if sizing is None:
            return None
        work.session.sizing = sizing
        work.detail(sizes_summary(groups, sizing, colour=work.colour))
        return sizes_brief(groups, sizing, colour=work.colour)
