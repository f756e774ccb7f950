"""Settings of one pool under the same load, round by round in changing order, and the one that wins."""

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from pool_bench.cli.commands.pool_sweep import PoolSweepPlan
from pool_bench.cli.commands.pools import in_turn
from pool_bench.cli.session import BenchSession
from pool_bench.compare.pools import group_by_load
from pool_bench.compare.winner import find_winner
from pool_bench.contenders.base import RANGED
from pool_bench.errors import UsageError
from pool_bench.load.spec import MEANINGS, PoolSpec
from pool_bench.report.brief.pools import contest_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.summary.pool_contest import statement_of
from pool_bench.report.summary.pools import behaviour_summary, contest_summary
from pool_bench.results.model import from_session

# A closed loop in which every client asks again at once.
SCENARIO: Final = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContestPlan(PoolSweepPlan):
    """Compare settings of a pool.

    Attributes:
        pairs: connections at least and at most of each setting, in the user's order.
    """

    is_contest: ClassVar = True
    pairs: tuple[tuple[int, int], ...]

    @property
    def connections(self) -> int:
        """Connections of the largest pool."""
        return max(high for _, high in self.pairs)

    def check_sizes(self) -> None:
        """Make sure that the pool has such settings."""
        if self.spec.pool not in RANGED:
            raise UsageError(
                f"--sizes: {self.spec.pool} has no connections at least and at most; {', '.join(RANGED)} have"
            )

    @property
    def words(self) -> list[str]:
        """The settings, as the user wrote them."""
        return [f"{low}-{high}" for low, high in self.pairs]

    def turns(self, round_: int) -> list[PoolSpec]:
        """Every setting once, each first in some round."""
        spec = replace(self.spec, scenario=SCENARIO)
        return [replace(spec, min_size=low, size=high) for low, high in in_turn(self.pairs, round_)]

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
