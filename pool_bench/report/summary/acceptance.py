"""What many clients may expect of a pool: targets, what was measured, and whether they were held.

The targets are thresholds (`results/thresholds.py`), and a user's own on the same field takes their place.
Where they come from:

- Waits of clients that never rest grow as the number of clients does (Little's law: clients = rate x time).
  With a p99 under half the acquire timeout twice as many clients would still be served, with a p95 under a
  quarter of it four times as many.
- 99.9 % served is the custom of services ("three nines"), no law.
- A pool that is right loses no connection, hands out none that is dead while nobody ends any, and leaves none
  behind: 0.

With several rounds each must hold, and the worst is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pool_bench.compare.pools import PoolComparison, PoolRounds
from pool_bench.report.summary.thresholds import shown
from pool_bench.report.text import Paint, table
from pool_bench.results.run import RunRecord
from pool_bench.results.thresholds import Threshold, known_fields, read_thresholds, value_in
from pool_bench.results.write import numbers_of_record

Outcome = Literal["held", "NOT HELD", "cannot be asked"]

# Each with what it is called; `{}` is a share of the acquire timeout.
_TARGETS: Final = (
    ("wait p95", "phases.checkout.p95", 1 / 4, "<{}ms"),
    ("wait p99", "phases.checkout.p99", 1 / 2, "<{}ms"),
    ("operations served", "success", 0.0, ">=99.9%"),
    ("leaked", "checkout.leaked", 0.0, "==0"),
    ("dead connections met", "checkout.dead_met", 0.0, "==0"),
    ("open after the close", "checkout.left_open", 0.0, "==0"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One target of one pool.

    Attributes:
        name: what is asked.
        threshold: the target.
        value: of the worst round, in the threshold's unit; None where it has none.
        outcome: whether every round held it; it cannot be asked where a round has no value, and none fails.
    """

    name: str
    threshold: Threshold
    value: float | None
    outcome: Outcome

    @property
    def target(self) -> str:
        """Such as `< 20 ms`."""
        return f"{self.threshold.compare} {shown(self.threshold.limit, self.threshold.unit)}"

    @property
    def words(self) -> str:
        """The value with its unit, "-" where it has none."""
        return shown(self.value, self.threshold.unit)


def targets(timeout_s: float, own: Sequence[Threshold]) -> list[tuple[str, Threshold]]:
    """What is asked of a pool whose acquires may take `timeout_s`, with the user's `own` thresholds."""
    known = known_fields(pool=True)
    asked = []
    for name, field, share, condition in _TARGETS:
        text = field + condition.format(f"{timeout_s * share * 1e3:.9f}".rstrip("0").rstrip("."))
        (usual,) = read_thresholds([text], known)
        asked += [(name, one) for one in own if one.field == usual.field] or [(name, usual)]
    return asked


def rows_of(runs: Sequence[RunRecord], asked: Sequence[tuple[str, Threshold]]) -> list[Row]:
    """What became of each target that is `asked` over the rounds of one pool."""
    contents = [numbers_of_record(run) for run in runs]
    rows = []
    for name, threshold in asked:
        values = [value_in(threshold, content) for content in contents]
        rows.append(Row(name, threshold, *_judged(threshold, values)))
    return rows


def _judged(threshold: Threshold, values: Sequence[float | None]) -> tuple[float | None, Outcome]:
    known = [value for value in values if value is not None]
    failed = [value for value in known if not threshold.holds(value)]
    if not known:
        return None, "cannot be asked"
    worst = min if threshold.compare in (">", ">=") else max
    if failed:
        return worst(failed), "NOT HELD"
    return worst(known), "held" if len(known) == len(values) else "cannot be asked"


def acceptance_lines(contest: PoolComparison, own: Sequence[Threshold], paint: Paint) -> list[str]:
    """The table for the pools of a contest of `stress`, none for other loads."""
    if contest.scenario != "stress":
        return []
    drawn_rows = [["acceptance", "", "target", "value", ""]]
    outcomes: list[Outcome] = []
    for group in contest.groups:
        if group.not_started:
            continue
        for row in _rows_of_group(group, own):
            drawn_rows.append([group.pool, row.name, row.target, row.words, row.outcome])
            outcomes.append(row.outcome)
    if not outcomes:
        return []
    drawn = table(drawn_rows, left=(0, 1, 4))
    lines = [paint(drawn[0], "bold")]
    for line, outcome in zip(drawn[1:], outcomes, strict=True):
        lines.append(paint(line, "red") if outcome == "NOT HELD" else line)
    return lines


def acceptance_sentences(contest: PoolComparison, own: Sequence[Threshold]) -> list[str]:
    """How many targets each pool held, and those it did not; none where nobody looked for what is left."""
    sentences = []
    for group in contest.groups:
        if all(checkout.dead_met is None for checkout in group.checkouts) or group.not_started:
            continue
        rows = _rows_of_group(group, own)
        held = sum(row.outcome == "held" for row in rows)
        missed = [
            f"{row.name} {row.words} (target {row.target})" for row in rows if row.outcome == "NOT HELD"
        ]
        unasked = [row.name for row in rows if row.outcome == "cannot be asked"]
        parts = [f"{contest.label}, {group.pool}: {held} of {len(rows)} targets held"]
        parts += [f"not held: {', '.join(missed)}"] if missed else []
        parts += [f"cannot be asked: {', '.join(unasked)}"] if unasked else []
        sentences.append("; ".join(parts))
    return sentences


def _rows_of_group(group: PoolRounds, own: Sequence[Threshold]) -> list[Row]:
    return rows_of(group.runs, targets(group.setting.timeout_s, own))
