"""`runs[].addresses`: results by the address that was really used."""

from pool_bench.results.json_parts import JsonObject, finite, histogram_to_json, rounded
from pool_bench.stats.addresses import UNKNOWN, AddressStats
from pool_bench.stats.operations import errors_by_name
from pool_bench.stats.runs import RunResult


def addresses_of(run: RunResult) -> list[tuple[str, AddressStats]]:
    """What is known of each address, by address; empty where there was one and nobody asked."""
    rows = sorted((name, row) for name, row in run.total.addresses.items() if not row.is_empty)
    known = [name for name, _ in rows if name != UNKNOWN]
    if not known or (len(known) < 2 and not run.by_address):
        return []
    # What is not known comes last.
    return sorted(rows, key=lambda row: row[0] == UNKNOWN)


def addresses_to_json(run: RunResult) -> list[JsonObject]:
    """`runs[].addresses`; empty where there was one and nobody asked."""
    content: list[JsonObject] = []
    for name, stats in addresses_of(run):
        again = run.hold.reconnects.addresses.get(name) if run.hold is not None else None
        content.append(
            {
                "address": name or None,
                "ok": stats.ok,
                "failed": stats.failed,
                "unfinished": stats.unfinished,
                "passed_over": stats.passed_over,
                "throughput": rounded(stats.ok / run.duration_s if run.duration_s else 0.0),
                "errors": errors_by_name(stats.errors),
                "passed_over_errors": errors_by_name(stats.passed_over_errors),
                "latency_ms": stats.latency.summary_ms(),
                "histogram": histogram_to_json(stats.latency),
                **(
                    {}
                    if run.hold is None
                    else {
                        "dropped": stats.dropped,
                        "dropped_errors": errors_by_name(stats.dropped_errors),
                        "reopened": 0 if again is None else again.ok,
                        "reopen_failed": 0 if again is None else again.failed,
                    }
                ),
                "trouble_share": finite(stats.trouble_share),
            }
        )
    return content
