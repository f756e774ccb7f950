"""What many clients may expect of a pool: targets, what was measured, and whether they were held.

The targets are thresholds (`results/thresholds.py`), and a user's own on the same field takes their place.
Where they come from:

- Waits of clients that never rest grow as the number of clients does (Little's law: clients = rate x time).
  With a p99 under half the acquire timeout twice as many clients would still be served, with a p95 under a
  quarter of it four times as many.
- 99.9 % served is the custom of services ("three nines"), no law.
- A pool that is right loses no connection, hands out none that is dead while nobody ends any, and leaves none
  behind: 0.
- A backend of PostgreSQL takes some megabytes of its server: a hundredth is enough for the client's end.
- 10,000 waiters in 80 MB, about what a process with a driver takes anyway.

With several rounds each must hold, and the worst is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pool_bench.compare.pools import PoolComparison, PoolRounds
from pool_bench.report.summary.thresholds import shown
from pool_bench.report.text import Paint, clean, table
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
    ("memory per connection", "checkout.connection_bytes", 0.0, "<64kB"),
    ("memory per waiter", "checkout.waiter_bytes", 0.0, "<8kB"),
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


def acceptance_table(
    contests: Sequence[PoolComparison], own: Sequence[Threshold], paint: Paint, *, width: int
) -> list[str]:
    """A row for each target, a column for each pool and load; none where nobody looked.

    None either where that takes more than `width` columns.
    """
    known = [
        (clean(contest.label), group)
        for contest in contests
        for group in contest.groups
        if _is_examined(group)
    ]
    if not known:
        return []
    columns = [_rows_of_group(group, own) for _, group in known]
    loads, pools = {label for label, _ in known}, {group.pool for _, group in known}
    heads = [
        group.pool if len(loads) == 1 else label if len(pools) == 1 else f"{group.pool}, {label}"
        for label, group in known
    ]
    drawn_rows = [["acceptance", "target", *heads]]
    drawn_rows += [
        [row.name, row.target, *(f"{column[place].words} {column[place].outcome}" for column in columns)]
        for place, row in enumerate(columns[0])
    ]
    drawn = table(drawn_rows, left=(0, 1))
    if max(map(len, drawn)) > width:
        return []
    lines = [paint(drawn[0], "bold")]
    for place, line in enumerate(drawn[1:]):
        is_missed = any(column[place].outcome == "NOT HELD" for column in columns)
        lines.append(paint(line, "red") if is_missed else line)
    return lines


def _is_examined(group: PoolRounds) -> bool:
    """Whether somebody looked for what it loses; versions before did not."""
    return not group.not_started and any(checkout.dead_met is not None for checkout in group.checkouts)


def acceptance_sentences(contest: PoolComparison, own: Sequence[Threshold]) -> list[str]:
    """How many targets each pool held, and those it did not; none where nobody looked for what is left."""
    sentences = []
    for group in contest.groups:
        if not _is_examined(group):
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
