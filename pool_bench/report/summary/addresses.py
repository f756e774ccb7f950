"""Results by the address that was really used, and which address stands out, in words."""

import textwrap
from collections.abc import Mapping
from typing import Final

from pool_bench.errors import FailureKind
from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.results.addresses import addresses_of
from pool_bench.stats.addresses import UNKNOWN, AddressStats
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_ms

# Fewer successes say nothing about what an address usually takes.
_FEWEST: Final = 20
# A median so many times that of the others is no chance, whatever the load.
_SLOW: Final = 2.0
# A share of trouble so many times that of the others, from one in a hundred on.
_WORSE: Final = 5.0
_LEAST_TROUBLE: Final = 0.01
# Sentences are read in a terminal of the usual width.
_COLUMNS: Final = 80
_UNKNOWN_NAME: Final = "not known"


def address_lines(run: RunResult, paint: Paint, *, width: int) -> list[str]:
    """A row of at most `width` columns for each address, and which of them stands out."""
    rows = addresses_of(run)
    if not rows:
        return []
    optional = {
        "unfinished": [stats.unfinished for _, stats in rows],
        "passed over": [stats.passed_over for _, stats in rows],
        "dropped": [stats.dropped for _, stats in rows],
    }
    shown = [name for name, counts in optional.items() if any(counts)]
    cells = [["address", *([] if run.hold else ["conn/s"]), "ok", "failed", *shown, "p50 ms", "p99 ms", ""]]
    for index, (name, stats) in enumerate(rows):
        p50, p99 = stats.latency.percentiles_ms((50, 99))
        rate = stats.ok / run.duration_s if run.duration_s else 0.0
        cells.append(
            [
                _name(name),
                *([] if run.hold else [format_rate(rate)]),
                f"{stats.ok:,}",
                f"{stats.failed:,}",
                *(f"{optional[column][index]:,}" for column in shown),
                format_ms(p50),
                format_ms(p99),
                kinds_counted(stats.kinds),
            ]
        )
    drawn = table(cells, left=(0, len(cells[0]) - 1), gap=1)
    lines = [ellipsize(line, width) for line in drawn]
    told = [line for words in standing_out(dict(rows)) for line in _wrap(words)]
    return [paint(lines[0], "bold"), *lines[1:], *(paint(line, "yellow") for line in told)]


def standing_out(rows: Mapping[str, AddressStats]) -> list[str]:
    """Addresses that are slower, or in more trouble, than the others together, in words."""
    words = []
    for name, stats in rows.items():
        others = AddressStats()
        for other, row in rows.items():
            if other not in (name, UNKNOWN):
                others.merge(row)
        if name == UNKNOWN or others.is_empty:
            continue
        mine, theirs = _median(stats.latency), _median(others.latency)
        if mine is not None and theirs is not None and mine >= _SLOW * theirs:
            words.append(
                f"{_name(name)} is slow: p50 {format_ms(mine)} ms, the others {format_ms(theirs)} ms"
            )
        bad, rest = stats.trouble_share, others.trouble_share
        if bad >= _LEAST_TROUBLE and bad >= _WORSE * rest:
            kinds = kinds_counted(stats.kinds)
            words.append(
                f"{_name(name)} fails: {format_percent(bad)} of what was tried there ({kinds}), "
                f"the others {format_percent(rest)}"
            )
    return words


def kinds_counted(kinds: Mapping[FailureKind, int]) -> str:
    """`timeout 3, refused 1`; "" for none."""
    return ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())


def _wrap(words: str) -> list[str]:
    return textwrap.wrap(words, _COLUMNS, subsequent_indent="  ", break_long_words=False)


def _name(address: str) -> str:
    return clean(address) or _UNKNOWN_NAME


def _median(latency: Histogram) -> float | None:
    return latency.percentile_ms(50) if latency.count >= _FEWEST else None
