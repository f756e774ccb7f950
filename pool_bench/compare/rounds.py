"""Sessions that measured settings in rounds: each setting as one, and how the settings differ.

Rounds are put together as if they had been one run: counts are added, histograms merged bucket by
bucket, timelines laid end to end. What is shown of a single round is its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pool_bench.compare.comparison import Comparison, Obstacle, Pair, compare_settings
from pool_bench.compare.settings import Setting, settings_of
from pool_bench.results.model import ResultRecord
from pool_bench.results.parts import FailureRecord, SummaryRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram

_BASE: Final = "base"
# What a change of an option is about is no reason not to compare.
_BY_DESIGN: Final = {
    "driver": (Obstacle.DRIVER,),
    "url": (Obstacle.TARGET, Obstacle.SERVER),
    **dict.fromkeys(("query", "concurrency", "auth", "resolve", "scram-cache"), (Obstacle.SETTING,)),
}


def in_rounds(result: ResultRecord) -> bool:
    """Whether settings were measured in turn, or more than once."""
    return any(run.round is not None for run in result.runs)


def by_setting(result: ResultRecord) -> list[ResultRecord]:
    """`result` as one result for each of its settings, rounds put together; itself without rounds."""
    if not in_rounds(result):
        return [result]
    found: dict[str, list[RunRecord]] = {}
    for setting in settings_of(result):
        found.setdefault(setting.runs[0].setting, []).append(_pooled(setting.runs))
    if len(found) == 1:
        return [replace(result, runs=tuple(runs)) for runs in found.values()]
    return [replace(result, name=name or _BASE, runs=tuple(runs)) for name, runs in found.items()]


def compare_within(result: ResultRecord, *, allow: Sequence[str] = ()) -> Comparison:
    """Compare the settings of one session with its base, level by level."""
    settings = settings_of(result)
    bases = [setting for setting in settings if not setting.runs[0].setting]
    pairs = []
    for setting in settings:
        name = setting.runs[0].setting
        if name and bases:
            level = setting.runs[0].concurrency
            base = next((base for base in bases if base.runs[0].concurrency == level), bases[0])
            pairs.append(_compared(base, setting, allow))
    return Comparison(result, result, tuple(pairs), ())


def _compared(base: Setting, setting: Setting, allow: Sequence[str]) -> Pair:
    name = setting.runs[0].setting
    by_design = [obstacle for key, those in _BY_DESIGN.items() if f"{key}=" in name for obstacle in those]
    if Obstacle.DRIVER in by_design:
        # What a driver costs this client is part of what it is compared for.
        allow = (*allow, Obstacle.SATURATED)
    return compare_settings(base, setting, allow=allow, by_design=by_design, in_turn=True)


def _pooled(runs: Sequence[RunRecord]) -> RunRecord:
    """The rounds of one setting as one run."""
    first = runs[0]
    if len(runs) == 1:
        return first
    duration_s = sum(run.duration_s for run in runs)
    timeline, before_s = [], 0.0
    for run in runs:
        timeline += [replace(second, t=second.t + before_s) for second in run.timeline]
        before_s += run.duration_s
    errors: dict[str, int] = {}
    for run in runs:
        for kind, count in run.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    latency = Histogram.merged(run.histogram for run in runs)
    names = sorted({name for run in runs for name in run.phase_histograms})
    phases = {name: Histogram.merged(run.phase_histograms.get(name) for run in runs) for name in names}
    failure = Histogram.merged(run.failure_histogram for run in runs)
    cpu_s = sum(run.client.cpu_s for run in runs)
    ended = sum(run.ok + run.failed for run in runs)
    return replace(
        first,
        duration_s=duration_s,
        interrupted=any(run.interrupted for run in runs),
        ok=sum(run.ok for run in runs),
        failed=sum(run.failed for run in runs),
        unfinished=sum(run.unfinished for run in runs),
        errors=errors,
        failures=_failures(runs),
        throughput=sum(run.ok for run in runs) / duration_s if duration_s else 0.0,
        latency_ms=_summary(latency),
        failure_ms=_summary(failure),
        phases_ms={name: _summary(histogram) for name, histogram in phases.items()},
        histogram=latency,
        phase_histograms=phases,
        failure_histogram=failure,
        timeline=tuple(timeline),
        client=replace(
            next((run.client for run in runs if run.client.saturated), first.client),
            cpu_s=cpu_s,
            cpu_us_per_op=cpu_s / ended * 1e6 if ended else None,
            cpu_percent=cpu_s / duration_s * 100 if duration_s else None,
            rss_mb=max((run.client.rss_mb or 0.0 for run in runs), default=0.0),
        ),
        targets=(),
        round=None,
    )


def _failures(runs: Sequence[RunRecord]) -> tuple[FailureRecord, ...]:
    found: dict[tuple[str, str, str | None], FailureRecord] = {}
    for run in runs:
        for failure in run.failures:
            key = (failure.kind, failure.phase, failure.sqlstate)
            known = found.get(key)
            found[key] = replace(failure, count=failure.count + (known.count if known else 0))
    return tuple(sorted(found.values(), key=lambda failure: -failure.count))


def _summary(histogram: Histogram) -> SummaryRecord:
    return SummaryRecord(**histogram.summary_ms())
