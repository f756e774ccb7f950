"""What the figures of a run that held connections mean, and what helps: sentences for its summary."""

from pool_bench.analysis.verdict import judge
from pool_bench.report.summary.unfinished import hanging_words
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_duration


def hold_notes(run: RunResult) -> list[str]:
    """One paragraph for each thing the reader should know; none where all is well."""
    hold = run.hold or HoldStats()
    total = run.total
    notes = [reason.paragraph for reason in judge(run).reasons]
    if total.unfinished:
        notes.append(
            f"{total.unfinished:,} connects were still under way when "
            f"{'opening' if hold.gave_up_s else 'the run'} ended: they were given up, "
            "and are neither open nor failed in the figures above."
        )
    notes += hanging_words(run)
    if hold.emptied:
        notes.append(
            f"No connection was left after {format_duration(hold.hold_s)} and none could come back, so "
            "holding ended there. --reconnect replaces connections that are dropped."
        )
    if hold.forced:
        notes.append(
            f"{hold.forced:,} connections were cut off at the end, because the server had not ended them "
            "in time."
        )
    return notes
