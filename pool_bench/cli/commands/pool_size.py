"""A sweep of pool sizes, round by round, and the size it speaks for."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

from pool_bench.analysis.scalability import FEWEST_SIZES
from pool_bench.cli.commands.pool_contest import PoolContestPlan
from pool_bench.cli.commands.pool_sweep import PoolSweepPlan
from pool_bench.cli.options.pool import Timing
from pool_bench.cli.options.shared import SessionOptions
from pool_bench.cli.options.size import SizeOptions
from pool_bench.cli.places.base import Place
from pool_bench.cli.plan import Plan
from pool_bench.cli.session import BenchSession
from pool_bench.compare.pool_sizes import by_size, sizing_of
from pool_bench.contenders import check_installed
from pool_bench.contenders.base import RANGED
from pool_bench.errors import UsageError
from pool_bench.load.spec import PoolSpec
from pool_bench.report.brief.pools import sizes_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.summary.pool_sizes import sizes_summary
from pool_bench.results.model import from_session
from pool_bench.targets.postgres import PostgresTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePlan(PoolSweepPlan):
    """Find the size of a pool.

    Attributes:
        sizes: what to try, ascending.
    """

    is_contest: ClassVar = False
    sizes: tuple[int, ...]

    @property
    def connections(self) -> int:
        """Connections of the largest pool."""
        return self.sizes[-1]

    def check_sizes(self) -> None:
        """Make sure that a law can be fitted."""
        if find_spec("scipy") is None:
            raise UsageError("size needs scipy to fit a law; install pool-bench[sizing]")
        if len(self.sizes) < FEWEST_SIZES:
            fewest = f"--sizes: it takes at least {FEWEST_SIZES} sizes to fit a law, not {len(self.sizes)}"
            pairs = ",".join(f"{size}-{size}" for size in self.sizes)
            is_comparable = len(self.sizes) > 1 and self.spec.pool in RANGED
            raise UsageError(f"{fewest}; {pairs} compares them" if is_comparable else fewest)

    @property
    def words(self) -> list[str]:
        """The sizes, as the user wrote them."""
        return [str(size) for size in self.sizes]

    def turns(self, round_: int) -> list[PoolSpec]:
        """Every size once: up, then down, so that a drift does not look like a law."""
        sizes = self.sizes if round_ % 2 else reversed(self.sizes)
        return [replace(self.spec, size=size) for size in sizes]

    def answer(self, work: BenchSession) -> Brief | None:
        """The size that the law speaks for, None where none was to be fitted."""
        groups = by_size(from_session(work.session).runs)
        sizing = sizing_of(groups) if groups else None
        if sizing is None:
            return None
        work.session.sizing = sizing
        work.detail(sizes_summary(groups, sizing, colour=work.colour))
        return sizes_brief(groups, sizing, colour=work.colour)


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
