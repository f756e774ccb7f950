"""Which of several settings of a pool does most, and whether that is more than chance.

Each setting is compared with each other one: the one that did best in this session was chosen by its luck,
too, so that intervals between it and the rest alone would call chance a winner. All of them have the
confidence that Bonferroni's correction asks for over the pairs, and so hold together in 95 % of sessions. A
setting is behind another where its whole interval is, by more than a machine differs from itself
(`change.py`); the winner is the one that all others are behind.
"""

from collections.abc import Sequence
from math import comb

from pool_bench.compare.bootstrap import FEWEST_ROUNDS
from pool_bench.compare.change import Change, Figure, judge
from pool_bench.compare.comparison import CONFIDENCE, THROUGHPUT, Obstacle, compare_settings
from pool_bench.compare.pools import PoolComparison, PoolRounds
from pool_bench.compare.ranking import is_ranked, left_out
from pool_bench.compare.round_samples import all_of, measured_round
from pool_bench.compare.samples import Resampled, Sampled
from pool_bench.compare.settings import Setting
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Contest, Rival


def find_winner(result: ResultRecord, contest: PoolComparison) -> Contest:
    """What the rounds of the settings in `contest`, measured in turn, allow to be said.

    Args:
        result: the session that they are of.
    """
    ranked = [group for group in contest.groups if is_ranked(contest, group)]
    out = tuple(left_out(contest)) + tuple(
        f"{group.pool} had no success." for group in contest.groups if not group.ok and not group.not_started
    )
    if not ranked:
        return Contest(
            best="",
            throughput=0.0,
            won=False,
            confidence=CONFIDENCE,
            rivals=(),
            left_out=out,
            why_not="no setting did what it was asked to",
        )
    first, *others = sorted(ranked, key=_rate, reverse=True)
    why_not = _obstacle(result, first, others) if others else "there is nothing to compare it with"
    confidence = None if why_not else 1 - (1 - CONFIDENCE) / comb(len(ranked), 2)
    rivals = [_rival(first, other, confidence) for other in others]
    return Contest(
        best=first.pool,
        throughput=_rate(first),
        won=not why_not and all(rival.behind for rival in rivals),
        confidence=CONFIDENCE,
        rivals=tuple(rivals),
        left_out=out,
        why_not=why_not,
    )


def _rate(group: PoolRounds) -> float:
    """Operations a second, all rounds together."""
    seconds = sum(run.duration_s for run in group.runs)
    return group.ok / seconds if seconds else 0.0


def _obstacle(result: ResultRecord, first: PoolRounds, others: Sequence[PoolRounds]) -> str:
    """What keeps these settings from being compared, "" where nothing does."""
    fewest = min(len(group.runs) for group in (first, *others))
    if fewest < FEWEST_ROUNDS:
        rounds = "one round is" if fewest == 1 else f"{fewest} rounds are"
        return f"{rounds} too few, it takes {FEWEST_ROUNDS} of each setting to know the noise between them"
    for other in others:
        sides = (Setting(result, group.runs) for group in (first, other))
        pair = compare_settings(*sides, by_design=(Obstacle.SETTING,), in_turn=True)
        for obstruction in pair.obstructions:
            words = obstruction.words.replace("the base run", first.pool)
            return words.replace("the new run", other.pool)
    return ""


def _rival(first: PoolRounds, other: PoolRounds, confidence: float | None) -> Rival:
    """`other` beside `first`; without a confidence no interval is given."""
    figure = None if confidence is None else _compared(first, other, confidence)
    known = None if figure is None or figure.low is None else figure
    return Rival(
        name=other.pool,
        throughput=_rate(other),
        change=None if known is None else known.change,
        low=None if known is None else known.low,
        high=None if known is None else known.high,
        behind=known is not None and known.verdict is Change.WORSE,
    )


def _compared(first: PoolRounds, other: PoolRounds, confidence: float) -> Figure | None:
    """How the throughput of `other` differs from that of `first`, over the rounds that both have."""
    common = {run.round for run in first.runs} & {run.round for run in other.runs}
    sides = [_sampled([run for run in group.runs if run.round in common]) for group in (first, other)]
    base, new = sides
    if base is None or new is None:
        return None
    return judge(THROUGHPUT, base, new, confidence=confidence, paired=True)


def _sampled(runs: Sequence[RunRecord]) -> Sampled | None:
    rounds = all_of(map(measured_round, runs))
    return Resampled(rounds).throughput() if rounds else None
