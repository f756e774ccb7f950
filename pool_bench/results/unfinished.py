"""`runs[].hanging`: operations that never ended."""

from pool_bench.analysis.unfinished import hanging_of
from pool_bench.results.json_parts import JsonObject, rounded
from pool_bench.stats.runs import RunResult


def hanging_to_json(run: RunResult) -> list[JsonObject]:
    """`runs[].hanging` of the result file; times in seconds."""
    return [
        {
            "begun": one.begun,
            "phase": None if one.phase is None else str(one.phase),
            "count": one.count,
            "limit": one.limit or None,
            "limit_s": rounded(one.limit_s),
        }
        for one in hanging_of(run)
    ]
