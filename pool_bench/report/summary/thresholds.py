"""Thresholds that held or failed, in words."""

from collections.abc import Sequence

from pool_bench.report.text import Paint, clean, ellipsize, table
from pool_bench.results.session import ThresholdOutcome
from pool_bench.results.thresholds import Unit
from pool_bench.units import format_duration


def judged_rows(judged: Sequence[ThresholdOutcome]) -> list[list[str]]:
    """A table of thresholds, its head first: run, threshold, value, limit, outcome."""
    rows = [["run", "threshold", "value", "limit", ""]]
    for outcome in judged:
        run = outcome.run if outcome.round is None else f"{outcome.run}, round {outcome.round}"
        unit = Unit(outcome.unit)
        value = "no value" if outcome.value is None else shown(outcome.value, unit)
        rows.append([run, outcome.text, value, shown(outcome.limit, unit), "ok" if outcome.ok else "FAILED"])
    return rows


def threshold_lines(judged: Sequence[ThresholdOutcome], *, colour: bool = False) -> str:
    """The table of thresholds with those that failed in red; lines of at most 100 columns."""
    paint = Paint(colour=colour)
    rows = [[ellipsize(clean(cell), 40) for cell in row] for row in judged_rows(judged)]
    drawn = table(rows, left=(0, 1, 4))
    failed = sum(not outcome.ok for outcome in judged)
    verdict = f"{failed} of {len(judged)} failed" if failed else f"all {len(judged)} held"
    head = paint("thresholds: ", "bold") + paint(verdict, "bold", "red" if failed else "green")
    lines = [head, paint(drawn[0], "dim")]
    lines += [
        line if outcome.ok else paint(line, "red") for line, outcome in zip(drawn[1:], judged, strict=True)
    ]
    return "\n".join(lines)


def failed_thresholds(judged: Sequence[ThresholdOutcome], *, colour: bool = False) -> list[str]:
    """How many thresholds held, and those that did not, a line of at most 80 columns for each."""
    if not judged:
        return []
    paint = Paint(colour=colour)
    failed = [row for row, outcome in zip(judged_rows(judged)[1:], judged, strict=True) if not outcome.ok]
    if not failed:
        return [paint(f"thresholds: all {len(judged)} held", "green")]
    head = paint(f"thresholds: {len(failed)} of {len(judged)} failed", "bold", "red")
    rows = [[ellipsize(clean(cell), 36) for cell in row[:3]] for row in failed]
    return [head, *(paint(f"  {line}", "red") for line in table(rows, left=(0, 1)))]


def shown(value: float | None, unit: Unit) -> str:
    """A value in a field's unit, "-" for none."""
    if value is None:
        return "-"
    if unit is Unit.FLAG:
        return "true" if value else "false"
    if unit is Unit.SHARE:
        return f"{value * 100:.6g}%"
    if unit is Unit.PERCENT:
        return f"{value:.4g}%"
    if unit is Unit.S:
        return format_duration(value) or "0s"
    if unit is Unit.COUNT:
        return f"{value:,.6g}" if value % 1 else f"{value:,.0f}"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number}{'' if unit is Unit.RATE else ' '}{unit}"
