"""Verdict and calibration in the result file."""

from pool_bench.analysis.verdict import Reason, Verdict
from pool_bench.results.json_parts import JsonObject, histogram_to_json, rounded
from pool_bench.stats.calibration import Calibration, ClientFloor, ClientShare


def verdict_to_json(verdict: Verdict) -> JsonObject:
    """`verdict` of a run."""
    return {
        "valid": verdict.valid,
        "reasons": [_reason(reason) for reason in verdict.reasons],
        "notes": [_reason(note) for note in verdict.notes],
    }


def _reason(reason: Reason) -> JsonObject:
    return {"code": str(reason.code), "text": reason.text, "remedy": reason.remedy}


def calibration_to_json(calibration: Calibration) -> JsonObject:
    """`calibration` of a session."""
    return {
        "operation": calibration.operation,
        "seconds": rounded(calibration.seconds),
        "floors": [_floor(floor) for floor in calibration.floors],
    }


def _floor(floor: ClientFloor) -> JsonObject:
    return {
        "driver": floor.driver,
        "concurrency": floor.concurrency,
        "ok": floor.latency.count,
        "failed": floor.failed,
        "throughput": rounded(floor.throughput),
        "latency_ms": floor.latency.summary_ms(),
        "histogram": histogram_to_json(floor.latency),
        "cpu_us_per_op": rounded(floor.cpu_us_per_op),
        "cpu_percent": rounded(floor.client_cpu_share * 100),
        "server_cpu_percent": rounded(floor.server_cpu_share * 100),
    }


def own_to_json(own: ClientShare) -> JsonObject:
    """`calibration` of a run: what of it is this client."""
    return {
        "floor_ms": {"p50": rounded(own.alone.latency.percentile_ms(50))},
        "ceiling": rounded(own.ceiling.throughput),
    }
