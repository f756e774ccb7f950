"""A session as Markdown, for the summary page of a CI job."""

from collections.abc import Sequence
from typing import Final

from pool_bench.report.markdown import escape, heading, markdown_table
from pool_bench.report.summary.outcome import outcome_of
from pool_bench.report.summary.thresholds import judged_rows
from pool_bench.report.text import format_percent, format_rate, without_column
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import PERCENTILES
from pool_bench.units import format_duration, format_ms

_TOP_FAILURES: Final = 10


def session_markdown(session: ResultRecord) -> str:
    """Headline, thresholds, settings, percentiles, failures and host of a session."""
    parts = [heading(2, f"{session.tool}{f': {session.name}' if session.name else ''}")]
    parts.append(_headline(session))
    if session.thresholds:
        failed = sum(not outcome.ok for outcome in session.thresholds)
        verdict = f"{failed} of {len(session.thresholds)} failed" if failed else "all held"
        rows = judged_rows(session.thresholds)
        parts += [heading(3, f"Thresholds: {verdict}"), markdown_table(rows[0], rows[1:], left=(0, 1, 4))]
    if session.runs:
        parts += [heading(3, "Runs"), _runs(session.runs)]
        held = [run for run in session.runs if run.hold is not None]
        if held:
            parts += [heading(3, "Held connections"), _holds(held)]
        parts += [heading(3, "Latency of successes, ms"), _latency(session.runs)]
        failures = _failures(session.runs)
        if failures:
            parts += [heading(3, "Failures"), failures]
        notes = [
            f"- {escape(f'{name_of(run)}: {outcome_of(run).sentence}')}"
            for run in session.runs
            if not run.judgement.valid
        ]
        if notes:
            parts.append("\n".join(notes))
    parts += [heading(3, "Settings and host"), _settings(session)]
    return "\n\n".join(parts) + "\n"


def name_of(run: RunRecord) -> str:
    """A run's label with its round."""
    return run.label if run.round is None else f"{run.label}, round {run.round}"


def _headline(session: ResultRecord) -> str:
    if not session.runs:
        return "**Nothing was measured.**"
    best = max(session.runs, key=lambda run: run.throughput)
    p50, p99 = best.latency_ms.p50, best.latency_ms.p99
    words = (
        f"**{escape(f'{format_rate(best.throughput)} {_counted(best)}/s')}** at {escape(name_of(best))}"
        f" ({escape(best.driver)}), p50 {escape(format_ms(p50))} ms, p99 {escape(format_ms(p99))} ms, "
        f"success {escape(format_percent(best.success_rate))}"
    )
    if len(session.runs) > 1:
        words = f"Highest of {len(session.runs)} runs: {words}"
    return f"{words}{'. **Interrupted.**' if session.interrupted else ''}"


def _counted(run: RunRecord) -> str:
    return "connections" if run.pool is None else "operations"


def _runs(runs: Sequence[RunRecord]) -> str:
    heads = ("run", "driver", "workers", "measured", "conn/s", "ok", "failed", "unfinished", "client CPU")
    if runs[0].pool is not None:
        heads = ("run", "pool", "clients", "measured", "op/s", "ok", "failed", "unfinished", "client CPU")
    rows = [
        (
            name_of(run),
            run.driver,
            f"{run.concurrency:,}",
            format_duration(run.duration_s),
            format_rate(run.throughput),
            f"{run.ok:,}",
            f"{run.failed:,}",
            f"{run.unfinished:,}",
            f"{run.client.cpu_words}",
        )
        for run in runs
    ]
    return markdown_table(heads, rows, left=(0, 1))


def _holds(runs: Sequence[RunRecord]) -> str:
    heads = ("run", "opened", "most held", "dropped", "keep-alive p50, ms", "keep-alive p99, ms", "held for")
    rows = []
    for run in runs:
        if run.hold is not None:
            p50, p99 = run.hold.keepalive_ms.p50, run.hold.keepalive_ms.p99
            counts = (run.hold.opened, run.hold.held_peak, run.hold.dropped)
            latency = (format_ms(p50), format_ms(p99))
            rows.append((run.label, *(f"{n:,}" for n in counts), *latency, format_duration(run.hold.hold_s)))
    return markdown_table(heads, rows)


def _latency(runs: Sequence[RunRecord]) -> str:
    heads = ("run", "min", *(f"p{percentile:g}" for percentile in PERCENTILES), "max", "mean")
    rows = []
    for run in runs:
        latency = run.latency_ms
        values = (latency.min, *latency.percentiles, latency.max, latency.mean)
        rows.append((name_of(run), *map(format_ms, values)))
    return markdown_table(heads, rows)


def _failures(runs: Sequence[RunRecord]) -> str:
    rows: list[Sequence[str]] = [("run", "kind", "phase", "SQLSTATE", "count", "for example")]
    for run in runs:
        ranked = run.failures
        for failure in ranked[:_TOP_FAILURES]:
            cells = (failure.kind, failure.phase, failure.sqlstate or "-", f"{failure.count:,}")
            rows.append((name_of(run), *cells, failure.sample))
        if len(ranked) > _TOP_FAILURES:
            rest = sum(failure.count for failure in ranked[_TOP_FAILURES:])
            rows.append((name_of(run), "others", "-", "-", f"{rest:,}", ""))
    heads, *cells_of_all = without_column(rows, "SQLSTATE")
    left = [at for at, head in enumerate(heads) if head != "count"]
    return markdown_table(heads, cells_of_all, left=left) if cells_of_all else ""


def _settings(session: ResultRecord) -> str:
    import os
    import platform

    server = " ".join(filter(None, (session.server.get("product"), session.server.get("version"))))
    rows = [("targets", ", ".join(session.targets)), ("server", server or "-")]
    rows += [
        (name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in session.config.items()
        if value not in (None, [])
    ]
    rows += [
        ("command", " ".join(session.argv)),
        ("started", session.started_at.isoformat(timespec="seconds")),
        ("host", f"{os.cpu_count()} CPUs, {platform.platform()}, Python {platform.python_version()}"),
    ]
    return markdown_table(("setting", "value"), rows, left=(0, 1))
