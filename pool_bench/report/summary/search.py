"""What a search for the maximum came to, in plain text: its answer, and latency against offered load."""

from collections.abc import Sequence
from typing import Final

from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, format_percent, format_rate, table
from pool_bench.results.model import SearchRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Limit, SearchStep
from pool_bench.units import format_ms

_LIMITS: Final[dict[str, str]] = {
    Limit.SERVER: "limit: the server",
    Limit.CLIENT: "limit: this client, not the server, which may do better",
    Limit.MAX_RATE: "no limit was found",
    Limit.INTERRUPTED: "not finished",
}


def step_line(step: SearchStep, run: RunRecord) -> str:
    """One trial in a line, said when it is over."""
    p99 = format_ms(run.latency_ms.p99)
    verdict = "met" if step.passed else f"missed: {'; '.join(step.breaches)}"
    client = " (client at a limit)" if step.client else ""
    return f"{format_rate(step.rate)}/s: p99 {p99} ms, {verdict}{client}"


def search_summary(runs: Sequence[RunRecord], search: SearchRecord, *, colour: bool = False) -> str:
    """The answer, why it is not higher, and a row for each trial, by rate.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    rows = [
        [
            "offered/s",
            "conn/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "max ms",
            "success",
            "dropped",
            "client CPU",
            "",
        ]
    ]
    steps = sorted(search.steps, key=lambda step: step.rate)
    for step in steps:
        run = runs[step.run]
        latency = run.latency_ms
        several = f" of {run.processes}" if run.processes > 1 else ""
        cpu = f"{run.client.cpu_words}{several}{' !' if step.client else '  '}"
        verdict = ("confirmed" if step.kind == "confirm" else "met") if step.passed else "missed"
        rows.append(
            [
                format_rate(step.rate),
                format_rate(run.throughput),
                *map(format_ms, (latency.p50, latency.p95, latency.p99, latency.max)),
                format_percent(run.success_rate),
                f"{run.dropped or 0:,}",
                cpu,
                verdict,
            ]
        )
    drawn = table(rows, left=(9,), gap=1)
    lines = [paint(drawn[0], "bold")]
    for line, step in zip(drawn[1:], steps, strict=True):
        lines.append(paint(line, "green" if step.passed else "red"))
    if any(step.client for step in steps):
        lines.append("! the client was at a limit, or late: the target may do better")
    lines += ["", *answer_lines(search, paint, confirmed_run(runs, search))]
    return "\n".join(lines)


def confirmed_run(runs: Sequence[RunRecord], search: SearchRecord) -> RunRecord | None:
    """The run that confirmed the answer, None where there is none."""
    confirmed = [step for step in search.steps if step.passed and step.kind == "confirm"]
    return runs[confirmed[-1].run] if confirmed and search.rate is not None else None


def answer_lines(search: SearchRecord, paint: Paint, confirmed: RunRecord | None) -> list[str]:
    """The highest rate that was confirmed, whether to believe it, and why it is not higher.

    Args:
        confirmed: what `confirmed_run` gives.

    Returns:
        Lines of at most 80 columns.
    """
    if search.rate is not None:
        above = [step.rate for step in search.steps if not step.passed and step.rate > search.rate]
        # Where confirmations failed, the lowest rate that missed is further away than the tolerance.
        gap = min(above) / search.rate - 1 if above else search.tolerance or 0.0
        words = (
            f"Maximum: {format_rate(search.rate)}/s meets {search.slo}, confirmed; "
            f"the true limit is at most {gap:.0%} above it."
        )
        if search.limit == Limit.MAX_RATE:
            words = f"{format_rate(search.rate)}/s meets {search.slo}, confirmed."
        style = ("bold", "green")
    else:
        words, style = f"No rate was confirmed that meets {search.slo}.", ("bold", "red")
    lines = [paint(line, *style) for line in wrap(words, "  ")]
    if search.why:
        believed = f"{confirmed.judgement.words}; " if confirmed is not None else ""
        colour = "green" if confirmed is not None and confirmed.judgement.valid else "yellow"
        sentence = f"{believed}{_LIMITS.get(search.limit, search.limit)} ({search.why})"
        lines += [paint(line, colour) for line in wrap(sentence, "  ")]
    return lines
