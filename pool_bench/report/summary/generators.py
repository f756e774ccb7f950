"""Results by generator process."""

from pool_bench.report.text import Paint, clean, ellipsize, format_rate, table
from pool_bench.results.generators import WorkerRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_ms


def process_words(run: RunRecord) -> str:
    """What several processes did together, where a pool was put under load: the products; "" else."""
    if run.processes < 2 or run.clients is None or run.size is None:
        return ""
    return (
        f"{run.processes} processes, each with {run.clients:,} clients and {run.size:,} connections: "
        f"{run.processes * run.clients:,} clients and {run.processes * run.size:,} connections"
    )


def generator_lines(run: RunRecord, paint: Paint, *, width: int) -> list[str]:
    """A row of at most `width` columns for each generator process; none where nobody asked."""
    if not run.generators:
        return []
    has_hosts = any(row.host for row in run.generators)
    heads = ["process", *(["host"] if has_hosts else []), "op/s", "ok", "failed", "p50 ms", "p99 ms"]
    cells = [
        [*heads, "CPU", "lag p99", ""],
        *(
            [
                f"{row.number}",
                *([clean(row.host)] if has_hosts else []),
                format_rate(row.throughput),
                f"{row.ok:,}",
                f"{row.failed:,}",
                format_ms(row.latency_ms.p50),
                format_ms(row.latency_ms.p99),
                f"{row.cpu_percent:.0f}%",
                format_ms(row.loop_lag_ms.p99),
                clean(f"lost: {row.lost}" if row.lost else "" if row.state == "free" else row.state),
            ]
            for row in run.generators
        ),
    ]
    drawn = [ellipsize(line, width) for line in table(cells, left=(len(cells[0]) - 1,), gap=1)]
    return [paint(drawn[0], "bold"), *drawn[1:], *(ellipsize(_clock(row), width) for row in run.workers)]


def _clock(row: WorkerRecord) -> str:
    drift = "" if row.clock_drift_ms is None else f", drift {row.clock_drift_ms:+.2f} ms"
    return (
        f"clock of {clean(row.name)}: {row.clock_offset_ms:+,.2f} ms from ours, give or take "
        f"{row.clock_uncertainty_ms:.2f} ms{drift}"
    )
