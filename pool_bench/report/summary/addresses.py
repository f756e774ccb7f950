"""Results by the address that was really used, and which address stands out, in words."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.results.addresses import AddressRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram
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


def address_lines(run: RunRecord, paint: Paint, *, width: int) -> list[str]:
    """A row of at most `width` columns for each address, and which of them stands out."""
    rows = run.addresses
    if not rows:
        return []
    optional = {
        "unfinished": [row.unfinished for row in rows],
        "passed over": [row.passed_over for row in rows],
        "dropped": [row.dropped or 0 for row in rows],
    }
    shown = [name for name, counts in optional.items() if any(counts)]
    cells = [["address", *([] if run.hold else ["conn/s"]), "ok", "failed", *shown, "p50 ms", "p99 ms", ""]]
    for index, row in enumerate(rows):
        cells.append(
            [
                _name(row),
                *([] if run.hold else [format_rate(row.throughput)]),
                f"{row.ok:,}",
                f"{row.failed:,}",
                *(f"{optional[column][index]:,}" for column in shown),
                format_ms(row.latency_ms.p50),
                format_ms(row.latency_ms.p99),
                kinds_counted(row.kinds),
            ]
        )
    drawn = table(cells, left=(0, len(cells[0]) - 1), gap=1)
    lines = [ellipsize(line, width) for line in drawn]
    remarks = [line for words in standing_out(rows) for line in _wrap(words)]
    return [paint(lines[0], "bold"), *lines[1:], *(paint(line, "yellow") for line in remarks)]


def standing_out(rows: Sequence[AddressRecord]) -> list[str]:
    """Addresses that are slower, or in more trouble, than the others together, in words."""
    words = []
    for row in rows:
        others = [other for other in rows if other is not row and other.address is not None]
        if row.address is None or not others:
            continue
        mine = _median(row.histogram)
        theirs = _median(Histogram.merged(other.histogram for other in others))
        if mine is not None and theirs is not None and mine >= _SLOW * theirs:
            words.append(f"{_name(row)} is slow: p50 {format_ms(mine)} ms, the others {format_ms(theirs)} ms")
        bad, rest = _trouble_share([row]), _trouble_share(others)
        if bad >= _LEAST_TROUBLE and bad >= _WORSE * rest:
            kinds = kinds_counted(row.kinds)
            words.append(
                f"{_name(row)} fails: {format_percent(bad)} of what was tried there ({kinds}), "
                f"the others {format_percent(rest)}"
            )
    return words


def kinds_counted(kinds: Mapping[str, int]) -> str:
    """`timeout 3, refused 1`; "" for none."""
    return ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())


def _wrap(words: str) -> list[str]:
    return textwrap.wrap(words, _COLUMNS, subsequent_indent="  ", break_long_words=False)


def _trouble_share(rows: Sequence[AddressRecord]) -> float:
    """The share of what was tried at addresses that came to nothing there, 0 to 1."""
    bad = sum(row.failed + row.passed_over + row.unfinished + (row.dropped or 0) for row in rows)
    tried = sum(row.ok + row.failed + row.passed_over + row.unfinished for row in rows)
    return min(bad / tried, 1.0) if tried else 0.0


def _name(row: AddressRecord) -> str:
    return clean(row.address or "") or _UNKNOWN_NAME


def _median(latency: Histogram) -> float | None:
    return latency.percentile_ms(50) if latency.count >= _FEWEST else None
