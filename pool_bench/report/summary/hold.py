"""What a run that held connections came to, in plain text of at most 100 columns.

In the look of `run.py`, and with its sections for what both have: the opening of connections is
connect cycles without their end.
"""

import math
from collections.abc import Sequence
from typing import Final

from pool_bench.report.summary.addresses import address_lines
from pool_bench.report.summary.generators import generator_lines
from pool_bench.report.summary.hold_notes import hold_notes
from pool_bench.report.summary.hold_words import gave_up_words, kinds_words, latency_words, who_and_why
from pool_bench.report.summary.run import (
    WIDTH,
    failure_lines,
    latency_lines,
    phase_lines,
    target_lines,
    wall_lines,
    wrap,
)
from pool_bench.report.summary.server import format_bytes, server_lines
from pool_bench.report.summary.verdict import lag_words, pauses_words, verdict_line
from pool_bench.report.text import (
    Paint,
    bar,
    clean,
    ellipsize,
    format_percent,
    format_rate,
    table,
    without_column,
)
from pool_bench.results.hold import HoldRecord, SurvivalRecord
from pool_bench.results.parts import FailureRecord, SummaryRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration, format_ms

_SURVIVAL_ROWS: Final = 8
# Ages that people count in, seconds.
_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)


def hold_summary(run: RunRecord, *, asked: int, colour: bool = False) -> str:
    """Everything about one run that held connections.

    Args:
        run: the finished run; its `hold` is set.
        asked: connections the user asked for; those that were not even begun are `not tried`.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint, hold = Paint(colour=colour), held_by(run)
    sections = [
        [*_headline(run, hold, asked, paint), verdict_line(run.judgement, paint), *wall_lines(run, paint)],
        latency_lines(run.latency_ms, run.ok, paint, title="connect, ms") if run.ok else [],
        phase_lines(run, paint),
        target_lines(run, paint),
        address_lines(run, paint, width=WIDTH),
        generator_lines(run, paint, width=WIDTH),
        failure_lines(run, paint),
        drop_lines(hold, paint),
        reconnect_lines(hold, paint),
        query_lines(hold, paint),
        survival_lines(hold, paint),
        server_lines(run.server_side, paint),
        _client(run, hold, paint),
        [paint(line, "yellow") for note in hold_notes(run, hold) for line in wrap(note, "  ")],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def held_by(run: RunRecord) -> HoldRecord:
    """What a run held that was to hold connections.

    Raises:
        ValueError: it was not.
    """
    if run.hold is None:
        raise ValueError(f"{run.label} held no connections")
    return run.hold


def verdict(run: RunRecord, *, asked: int) -> str:
    """The run in one line: `asked 500, held 97 at peak: too_many_connections (53300) 403`."""
    hold = held_by(run)
    reasons = [words] if (words := gave_up_words(hold.gave_up_s)) else []
    if asked > run.attempts:
        reasons.append(f"{asked - run.attempts:,} not tried")
    kinds = kinds_words(run.failures)
    if kinds:
        reasons.append(kinds)
    if run.unfinished:
        reasons.append(f"{run.unfinished:,} unfinished")
    if hold.dropped:
        replaced = f", {hold.reopened:,} replaced" if hold.reopened else ""
        reasons.append(f"{hold.dropped:,} dropped{replaced}")
    return f"asked {asked:,}, held {hold.held_peak:,} at peak: {', '.join(reasons) or 'none was lost'}"


def _headline(run: RunRecord, hold: HoldRecord, asked: int, paint: Paint) -> list[str]:
    setting = f"{clean(run.label)} · {run.driver}{' · interrupted' if run.interrupted else ''}"
    whole = hold.held_peak >= asked and not hold.dropped and not run.failed
    style = "green" if whole else "yellow" if hold.held_peak else "red"
    headline = ellipsize(verdict(run, asked=asked), WIDTH)
    counts = [
        f"{hold.opened:,} opened",
        paint(f"{run.failed:,} failed", *(("red",) if run.failed else ())),
        paint(f"{hold.dropped:,} dropped", *(("red",) if hold.dropped else ())),
        f"{hold.reopened:,} replaced",
        f"{hold.closed:,} closed",
    ]
    rate = f" ({format_rate(hold.opened / hold.open_s)} conn/s)" if hold.open_s and hold.opened else ""
    spans = [f"opening {format_duration(hold.open_s)}{rate}"]
    if hold.hold_s:
        spans.append(f"holding {format_duration(hold.hold_s)}")
    forced = f" ({hold.forced:,} forced)" if hold.forced else ""
    spans.append(f"closing {format_duration(hold.close_s)}{forced}")
    return [paint(headline, "bold", style), ellipsize(setting, WIDTH), "  ".join(counts), " · ".join(spans)]


def drop_lines(hold: HoldRecord, paint: Paint) -> list[str]:
    """A row for each way in which connections were dropped, with who and why; none where none was."""
    if not hold.drops:
        return []
    rows = [["dropped", "phase", "sqlstate", "count", "of dropped", "lived min", "p50", "max"]]
    for drop in hold.drops:
        lived = drop.lifetime_s
        ages = ["-"] * 3 if lived is None else [*map(format_duration, (lived.min, lived.p50, lived.max))]
        share = format_percent(drop.count / hold.dropped) if hold.dropped else "-"
        sort = [drop.kind, drop.phase, clean(drop.sqlstate or "") or "-"]
        rows.append([*sort, f"{drop.count:,}", share, *ages])
    rows = without_column(rows, "sqlstate")
    drawn = table(rows, left=range(len(rows[0]) - 5))
    lines = [paint(drawn[0], "bold")]
    for line, drop in zip(drawn[1:], hold.drops, strict=True):
        lines.append(paint(line, "red"))
        lines.append(f"    {who_and_why(drop)}")
        lines.append(paint(f"    e.g. {ellipsize(clean(drop.sample), WIDTH - 9)}", "dim"))
    return lines


def reconnect_lines(hold: HoldRecord, paint: Paint) -> list[str]:
    """What came of replacing dropped connections; none where that was not tried."""
    again = hold.reconnects
    if not again.ok and not again.failed:
        return []
    lines = [
        paint("reconnects", "bold"),
        f"  {again.ok + again.failed:,} attempts  {again.ok:,} ok  {again.failed:,} failed",
    ]
    if again.ok:
        lines.append(f"  latency {latency_words(again.latency_ms, again.ok)}")
    kinds = kinds_words(again.failures)
    if kinds:
        lines.append(f"  failed: {ellipsize(kinds, WIDTH - 10)}")
        lines += _samples(again.failures, paint)
    return lines


def _samples(failures: Sequence[FailureRecord], paint: Paint) -> list[str]:
    most = max(failures, key=lambda failure: failure.count)
    return [paint(f"    e.g. {ellipsize(clean(most.sample), WIDTH - 9)}", "dim")]


def query_lines(hold: HoldRecord, paint: Paint) -> list[str]:
    """Keep-alive and active queries; none where nothing was asked."""
    lines: list[str] = []
    rows = [["queries, ms", "count", "q/s", "p50", "p90", "p99", "p99.9", "max"]]
    for name, summary, count in (
        ("keep-alive", hold.keepalive_ms, hold.keepalive_histogram.count),
        ("active", hold.active_ms, hold.active_histogram.count),
    ):
        if count:
            rows.append([name, *_query_cells(summary, count, hold)])
    if len(rows) > 1:
        drawn = table(rows)
        lines += [paint(drawn[0], "bold"), *drawn[1:]]
    failures = hold.query_failures
    if failures:
        failed = sum(failure.count for failure in failures)
        words = f"{failed:,} queries failed on connections that stayed open: "
        lines.append(paint(ellipsize(words + kinds_words(failures), WIDTH), "red"))
        lines += _samples(failures, paint)
    return lines


def _query_cells(latency: SummaryRecord, count: int, hold: HoldRecord) -> list[str]:
    # Queries begin with the first connection that is open, so opening counts as well.
    asked_s = hold.open_s + hold.hold_s
    rate = format_rate(count / asked_s) if asked_s else "-"
    figures = (latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max)
    return [f"{count:,}", rate, *map(format_ms, figures)]


def survival_rows(points: Sequence[SurvivalRecord]) -> list[SurvivalRecord]:
    """The curve at ages that people count in, at most eight, and at its end; empty where it is."""
    if not points:
        return []
    last = points[-1]
    step_s = next((step for step in _STEPS_S if last.age_s / step <= _SURVIVAL_ROWS), None)
    if step_s is None:
        days = math.ceil(last.age_s / (86_400 * _SURVIVAL_ROWS))
        step_s = days * 86_400
    rows = []
    for at in range(1, _SURVIVAL_ROWS + 1):
        age_s = float(at * step_s)
        # The end has a row of its own, which must not read like the one before it.
        if age_s >= last.age_s or format_duration(age_s) == format_duration(last.age_s):
            break
        share = next(point.share for point in reversed(points) if point.age_s <= age_s)
        rows.append(SurvivalRecord(age_s, share))
    return [*rows, last]


def survival_lines(hold: HoldRecord, paint: Paint) -> list[str]:
    """How many connections were still open at which age."""
    if not hold.dropped:
        if not hold.survival:
            return []
        oldest = format_duration(hold.survival[-1].age_s)
        return [f"every connection was still open when it was closed, the oldest {oldest} old"]
    rows = [
        [format_duration(point.age_s), format_percent(point.share), bar(point.share, 50)]
        for point in survival_rows(hold.survival)
    ]
    drawn = table([["age", "still open", ""], *rows], left=(2,))
    return [paint("survival, of all connections that were open", "bold"), *(f"  {line}" for line in drawn)]


def _client(run: RunRecord, hold: HoldRecord, paint: Paint) -> list[str]:
    client = run.client
    lines = [paint("client", "bold")]
    if hold.client_bytes_each is not None:
        lines.append(f"  memory {format_bytes(hold.client_bytes_each)} for each connection held at peak")
    if hold.cpu_share is not None:
        lines.append(f"  CPU {hold.cpu_share:.1%} of a core while holding")
    per_op = "-" if client.cpu_us_per_op is None else f"{client.cpu_us_per_op:,.0f}"
    processes = f" · {run.processes} processes" if run.processes > 1 else ""
    lines.append(
        f"  CPU {client.cpu_words} of a core while opening, {per_op} us per connect"
        f" · RSS {client.rss_mb or 0:,.0f} MB{processes}"
    )
    lag = f"loop lag while opening {lag_words(client)}"
    return [*lines, *wrap(f"  {lag} · {pauses_words(client)}", "    ")]
