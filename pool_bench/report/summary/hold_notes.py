"""What the figures of a run that held connections mean, and what helps: sentences for its summary."""

from pool_bench.report.summary.unfinished import hanging_words
from pool_bench.results.hold import HoldRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration


def hold_notes(run: RunRecord, hold: HoldRecord) -> list[str]:
    """One paragraph for each thing the reader should know; none where all is well."""
    notes = [reason.paragraph for reason in run.judgement.reasons]
    if run.unfinished:
        notes.append(
            f"{run.unfinished:,} connects were still under way when "
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
