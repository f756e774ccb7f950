"""The table that `pool-bench run` and `size` fill as they go: a row for each run, and how much remains."""

from pool_bench.report.text import clean, ellipsize, format_rate
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration, format_ms

_HEAD = ("pool", "round", "op/s", "p50 ms", "p99 ms", "failed", "left")
_WIDTHS = (12, 6, 9, 8, 8, 8, 8)


class Progress:
    """Rows of runs, with a head for each load.

    Args:
        total: runs there will be.
        rounds: of each pool.
        each_s: about how long each takes, seconds.
    """

    def __init__(self, total: int, rounds: int, each_s: float) -> None:
        self._total = total
        self._rounds = rounds
        self._each_s = each_s
        self._load = ""

    def lines(self, run: RunRecord, number: int) -> list[str]:
        """The row of run `number` (from 1), after a head where it is the first of its load."""
        setting = run.pool_setting
        if setting is None:
            return []
        load = f"{setting.scenario}, {setting.clients:,} clients"
        if run.rate is not None:
            load = f"{setting.scenario}, {run.rate:g}/s"
        is_sweep = setting.scenario == "size" or setting.min_size is not None
        lines = []
        if load != self._load:
            self._load = load
            lines.append(_row(("size" if is_sweep else "pool", *_HEAD[1:]), load))
        left_s = (self._total - number) * self._each_s
        left = format_duration(float(round(left_s))) if left_s >= 1 else "-"
        name = setting.size_words if is_sweep else setting.name
        turn = f"{setting.round}/{self._rounds}"
        if run.not_started:
            lines.append(f"{name:<{_WIDTHS[0]}}{turn:>{_WIDTHS[1]}}  did not start")
            return lines
        p50, p99 = run.histogram.percentiles_ms((50, 99))
        cells = (
            name,
            turn,
            format_rate(run.throughput),
            format_ms(p50),
            format_ms(p99),
            f"{run.failed:,}",
            left,
        )
        lines.append(_row(cells, ""))
        return lines


def _row(cells: tuple[str, ...], after: str) -> str:
    first, *others = cells
    widths = zip(others, _WIDTHS[1:], strict=True)
    drawn = f"{first:<{_WIDTHS[0]}}" + "".join(f"{cell:>{width}}" for cell, width in widths)
    return f"{drawn}  {ellipsize(clean(after), 76 - len(drawn))}".rstrip() if after else drawn
