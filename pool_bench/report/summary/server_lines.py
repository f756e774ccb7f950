"""A run's summary with what its server went through beside what the client saw, in plain text."""

from typing import Final

from pool_bench.errors import Phase
from pool_bench.report.summary.run import run_summary, wrap
from pool_bench.report.summary.server import server_lines
from pool_bench.report.text import Paint, clean, table
from pool_bench.results.run import RunRecord
from pool_bench.results.server import ServerSideRecord
from pool_bench.stats.server_cpu import mean_cpu
from pool_bench.units import format_ms

# The steps that the server's own time for a set-up is a part of; `connect` where a driver hides them.
_SETUP_PHASES: Final = (Phase.TLS, Phase.AUTH, Phase.READY, Phase.CONNECT)


def watched_summary(run: RunRecord, *, colour: bool = False) -> str:
    """Everything about one run, and about its server where it was watched.

    Args:
        run: the finished run.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    side, paint = run.server_side, Paint(colour=colour)
    summary = run_summary(run, colour=colour)
    if side is None:
        return summary
    limit = side.limit
    first = [] if limit is None else [paint(line, "bold") for line in wrap(f"  {limit.words}", "    ")]
    lines = server_lines(side, paint, [*first, *_cpu(side, run.duration_s), *_setup(run, side)])
    return "\n".join((summary, "", *lines)) if lines else summary


def _cpu(side: ServerSideRecord, duration_s: float) -> list[str]:
    use, seconds = mean_cpu(side.timeline, side.origin_s or 0.0, duration_s)
    if not seconds or use.machine is None:
        return []
    parts = []
    if use.server is not None:
        alone = "" if use.postmaster is None else f" (postmaster {use.postmaster:.2f})"
        alone = alone if use.server_thread is None else f" (busiest thread {use.server_thread:.2f})"
        parts.append(f"server {use.server:.2f}{alone}")
    if use.pooler is not None:
        parts.append(f"{clean(side.pooler_name)} {use.pooler:.2f}")
    parts.append(f"this machine {use.machine:.2f} of {side.cores or 1}")
    return [f"  CPU, cores: {', '.join(parts)}"]


def _setup(run: RunRecord, side: ServerSideRecord) -> list[str]:
    """The server's own time for setting connections up, beside the client's for the same steps."""
    setup = side.setup
    if setup is None or not setup.histograms["total"].count:
        return []
    rows = [["  set-up at the server, ms", "count", "p50", "p90", "p99", "max"]]
    for name, part in (
        ("accepted to ready", "total"),
        ("of it: fork", "fork"),
        ("of it: authentication", "auth"),
    ):
        latency = setup.latency_ms[part]
        figures = map(format_ms, (latency.p50, latency.p90, latency.p99, latency.max))
        rows.append([f"    {name}", f"{setup.histograms[part].count:,}", *figures])
    lines = table(rows)
    phases = [
        ((run.phases_ms[phase].mean or 0.0), run.phase_histograms[phase].count)
        for phase in _SETUP_PHASES
        if phase in run.phases_ms and phase in run.phase_histograms
    ]
    count = max((count for _, count in phases), default=0)
    if count:
        # Means add up, percentiles do not.
        waited = sum(mean * counted for mean, counted in phases) / count
        own = setup.latency_ms["total"].mean
        lines += wrap(
            f"    the client waited {format_ms(waited)} ms on average for what took the server "
            f"{format_ms(own)} ms; the rest is the queue before it, network and scheduling",
            "    ",
        )
    return lines
