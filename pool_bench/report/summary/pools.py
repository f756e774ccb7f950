"""What pools under one load came to, side by side, in plain text of at most 100 columns.

Rates are medians over the rounds with the extremes beside them; two pools whose extremes overlap are not
called different. Percentiles are those of all rounds' operations together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pool_bench.analysis.verdict import FEWEST_BEYOND, is_thin
from pool_bench.compare.pools import PoolComparison, PoolRounds, Spread
from pool_bench.compare.ranking import best, is_ranked, left_out, rounds_needed
from pool_bench.report.summary.acceptance import acceptance_lines
from pool_bench.report.summary.generators import process_words
from pool_bench.report.summary.pool_server import pool_server_lines
from pool_bench.report.summary.run import WIDTH, wrap
from pool_bench.report.summary.scenarios import shape_lines
from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.results.checkout import CheckoutRecord
from pool_bench.results.thresholds import Threshold
from pool_bench.stats.histogram import Histogram
from pool_bench.units import format_duration, format_ms

_LEGEND: Final = (
    "op/s: median of the rounds, min..max the extremes; wait: from asking for a connection to having it; "
    "op: all of it, from asking to having given back; both over all rounds' operations.",
    "us/op: CPU of this process for an operation; opened: connections in a round; held: the most at once.",
    "overtaken: checkouts served after one that was asked for later; starved: timed out while such a one was "
    "served; Jain: 1 where all clients got as much; client wait: lowest mean, highest mean of a client.",
    "client the bottleneck: the rate is what driver and pool together can do on one core, not the limit of "
    "the server, and part of the waits was spent waiting for that core.",
)
_UNLIKE: Final = (
    "  These do different work when a connection comes back: what differs above may be that work. "
    "--reset always or --reset never makes it the same for all."
)
_COMING_AND_GOING: Final = ("burst", "ramp", "spike")
_FOOTNOTE: Final = f"~ fewer than {FEWEST_BEYOND} operations beyond it"


def contest_summary(
    contest: PoolComparison,
    meaning: str,
    *,
    answer: str | None = None,
    thresholds: Sequence[Threshold] = (),
    colour: bool = False,
) -> str:
    """The figures of the pools under one load; `behaviour_summary` says how to read them.

    Args:
        contest: the pools, each with its rounds.
        meaning: what the scenario shows, in words.
        answer: what is to be said of who did best, None for what the extremes of the rounds allow.
        thresholds: the user's own, which take the place of the targets of `stress` on the same fields.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    sections = [
        _headline(contest, meaning, paint),
        _figures(contest, paint),
        _open_loop(contest, paint),
        shape_lines(contest, paint),
        acceptance_lines(contest, thresholds, paint),
        _behaviour(contest, paint),
        _failures(contest, paint),
        pool_server_lines("pool", [(group.pool, group) for group in contest.groups], paint),
        _notes(contest, paint),
        [paint(line, "bold") for line in wrap(verdict(contest) if answer is None else answer, "  ")],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def behaviour_summary(contests: Sequence[PoolComparison], *, colour: bool = False) -> str:
    """What each pool does besides, and how to read the figures; "" where nothing was measured."""
    paint = Paint(colour=colour)
    pools: dict[str, PoolRounds] = {}
    for contest in contests:
        for group in contest.groups:
            pools.setdefault(group.pool, group)
    if not pools:
        return ""
    lines = [paint("what each does on checkout and on return", "bold")]
    for group in pools.values():
        checkout = group.checkouts[0]
        if group.not_started:
            continue
        lines += wrap(f"  {group.pool} {checkout.version}: {checkout.manner}", "    ")
    resets = {
        _return_of(group) for group in pools.values() if group.pool != "naive" and not group.not_started
    }
    if len(resets) > 1 and any(group.setting.reset == "own" for group in pools.values()):
        lines += [paint(line, "yellow") for line in wrap(_UNLIKE, "  ")]
    lines += ["", paint("how to read the figures", "bold")]
    for words in _LEGEND:
        lines += [paint(line, "dim") for line in wrap(f"  {words}", "    ")]
    return "\n".join(lines)


def _headline(contest: PoolComparison, meaning: str, paint: Paint) -> list[str]:
    setting = contest.groups[0].setting
    rounds = max(len(group.runs) for group in contest.groups)
    parts = [
        contest.who,
        f"size {', '.join(dict.fromkeys(group.setting.size_words for group in contest.groups))}",
        ellipsize(clean(setting.query), 40) if setting.query is not None else "no query",
    ]
    if setting.hold_s:
        parts.append(f"hold {format_duration(setting.hold_s)}")
    parts.append(f"reset {setting.reset}")
    if not setting.prepared:
        parts.append("nothing prepared")
    longest_s = max(run.duration_s for group in contest.groups for run in group.runs)
    parts.append(f"{rounds} round{'s' if rounds > 1 else ''} of {format_duration(round(longest_s, 1))}")
    lines = [paint(clean(contest.label), "bold")]
    lines += [f"  {line}" for line in wrap(f"{meaning}.", "  ")]
    if words := process_words(contest.groups[0].runs[0]):
        lines += [f"  {line}" for line in wrap(f"{words}.", "  ")]
    lines += [f"  {line}" for line in wrap(" · ".join(parts), "  ")]
    return lines


def _figures(contest: PoolComparison, paint: Paint) -> list[str]:
    rows = [["pool", "op/s", "min..max", "wait p50", "p99", "max ms", "op p50", "p99 ms", "failed"]]
    thin = False
    first = best(contest)
    for group in contest.groups:
        waits, whole = group.phase("checkout"), group.latency
        wait50, wait99, wait_max = waits.percentiles_ms((50, 99, 100))
        op50, op99 = whole.percentiles_ms((50, 99))
        mark = is_thin(99, whole.count) and whole.count > 0
        thin = thin or mark
        rate = group.throughput
        rows.append(
            [
                group.pool,
                format_rate(rate.median),
                f"{format_rate(rate.low)}..{format_rate(rate.high)}" if len(group.runs) > 1 else "-",
                format_ms(wait50),
                f"{format_ms(wait99)}{'~' if mark else ''}",
                format_ms(wait_max),
                format_ms(op50),
                f"{format_ms(op99)}{'~' if mark else ''}",
                f"{group.failed:,}",
            ]
        )
    drawn = table(rows, gap=1)
    lines = [paint(drawn[0], "bold")]
    for line, group in zip(drawn[1:], contest.groups, strict=True):
        style = ("red",) if not group.ok else ("green",) if group is first else ()
        lines.append(paint(line, *style))
    if thin:
        lines.append(paint(_FOOTNOTE, "dim"))
    return lines


def _open_loop(contest: PoolComparison, paint: Paint) -> list[str]:
    """What became of the operations that were due, all rounds together."""
    if contest.rate is None:
        return []
    rows = [["pool", "due", "ok", "failed", "unfinished", "dropped", "service p50", "p99 ms", "late p99 ms"]]
    for group in contest.groups:
        parts = [run.open_loop for run in group.runs if run.open_loop is not None]
        service = Histogram()
        for part in parts:
            service.merge(part.service_histogram)
        rows.append(
            [
                group.pool,
                f"{sum(part.offered for part in parts):,}",
                f"{group.ok:,}",
                f"{group.failed:,}",
                f"{group.unfinished:,}",
                f"{sum(part.dropped for part in parts):,}",
                *map(format_ms, service.percentiles_ms((50, 99))),
                format_ms(max((part.schedule_error_ms.p99 or 0.0 for part in parts), default=None)),
            ]
        )
    drawn = table(rows, gap=1)
    words = (
        "op is the response time, from when an operation was due; service, and wait, from when it was begun; "
        "late: how long this client took to begin one for which there was room, in the worst round."
    )
    return [
        paint(drawn[0], "bold"),
        *drawn[1:],
        *(paint(line, "dim") for line in wrap(f"  {words}", "  ")),
    ]


def _behaviour(contest: PoolComparison, paint: Paint) -> list[str]:
    rows = [["pool", "us/op", "RSS MB", "opened", "held", "overtaken", "starved", "Jain", "client wait ms"]]
    for group in contest.groups:
        waits = [checkout.fairness.client_waits_ms for checkout in group.checkouts]
        known = [each for each in waits if each is not None]
        low = min((each.min for each in known), default=None)
        high = max((each.max for each in known), default=None)
        rows.append(
            [
                group.pool,
                _median(group.spread(lambda run, _: run.client.cpu_us_per_op), "{:,.0f}"),
                _median(group.spread(lambda run, _: run.client.rss_mb), "{:,.0f}"),
                _median(group.spread(lambda _, checkout: checkout.opened), "{:,.0f}"),
                f"{max(checkout.size_peak for checkout in group.checkouts):,}",
                # Where nobody waits for anybody there is no order to keep.
                "-" if group.pool == "naive" else format_percent(group.overtaken_share),
                f"{sum(checkout.fairness.starved for checkout in group.checkouts):,}",
                # Where clients come and go, the same for all is not what is fair.
                "-" if contest.scenario in _COMING_AND_GOING else _jain(group),
                f"{format_ms(low)}..{format_ms(high)}",
            ]
        )
    drawn = table(rows, gap=1)
    return [paint(drawn[0], "bold"), *drawn[1:]]


def _jain(group: PoolRounds) -> str:
    return _median(group.spread(lambda _, checkout: checkout.fairness.index), "{:.3f}")


def _median(spread: Spread | None, form: str) -> str:
    return "-" if spread is None else form.format(spread.median)


def _failures(contest: PoolComparison, paint: Paint) -> list[str]:
    lines = []
    for group in contest.groups:
        if group.not_started:
            lines += wrap(f"{group.pool} did not start: {clean(group.not_started)}", "    ")
        if not group.failed and not group.unfinished:
            continue
        kinds = [f"{count:,} {name}" for name, count in group.failures.items()]
        if group.unfinished:
            kinds.append(f"{group.unfinished:,} unfinished at the end")
        lines += wrap(f"{group.pool}: {', '.join(kinds)}", "    ")
        samples = [failure for run in group.runs for failure in run.failures]
        if samples:
            most = max(samples, key=lambda failure: failure.count)
            lines.append(paint(f"    e.g. {ellipsize(clean(most.sample), WIDTH - 9)}", "dim"))
    if not lines:
        return []
    return [paint("failures", "bold"), *(paint(line, "red") for line in lines)]


def _notes(contest: PoolComparison, paint: Paint) -> list[str]:
    notes = []
    cut = [group.pool for group in contest.groups if group.interrupted]
    if cut:
        notes.append(f"Interrupted: the figures of {', '.join(cut)} are of what was measured until then.")
    limit = client_limit([contest])
    if limit:
        notes.append(f"{limit}: see below what that means.".capitalize())
    late = _timed_out(contest)
    if late:
        notes.append(
            f"Waits are those of callers that were served. Callers of {', '.join(late)} that timed "
            "out waited longest, and are counted as failed: the waits above are too low by them."
        )
    notes += close_failures(contest)
    return [paint(line, "yellow") for note in notes for line in wrap(note, "  ")]


def close_failures(contest: PoolComparison) -> list[str]:
    """What to say of each pool that could not be closed after a run."""
    notes = []
    for group in contest.groups:
        failed = [checkout.close_failure for checkout in group.checkouts if checkout.close_failure]
        if failed:
            rounds = f" in {len(failed)} of {len(group.runs)} rounds" if len(group.runs) > 1 else ""
            notes.append(f"{group.pool} could not be closed{rounds}: {clean(failed[0])}.")
    return notes


def client_limit(contests: Sequence[PoolComparison]) -> str:
    """`limit: this client, not the server, with asyncpg`; "" where it was none."""
    groups = [group for contest in contests for group in contest.groups]
    busy = dict.fromkeys(group.pool for group in groups if any(run.client.saturated for run in group.runs))
    return f"limit: this client, not the server, with {', '.join(busy)}" if busy else ""


def _return_of(group: PoolRounds) -> str:
    return group.checkouts[0].manner.partition(";")[0]


def _timed_out(contest: PoolComparison) -> list[str]:
    return [
        group.pool for group in contest.groups if any(name.startswith("timeout") for name in group.failures)
    ]


def verdict(contest: PoolComparison) -> str:
    """Who did best, and by how much: only what the rounds allow to be said."""
    # At a given rate all do as many operations, as long as they can.
    measure = _RESPONSE if contest.rate is not None else _MEASURES.get(contest.scenario, _THROUGHPUT)
    without = left_out(contest)
    alive = [group for group in contest.groups if group.ok]
    figures = [(group, measure.figure(group)) for group in alive if is_ranked(contest, group)]
    known = [(group, spread) for group, spread in figures if spread is not None]
    if not alive:
        return " ".join(("No operation succeeded.", *without))
    if len(known) < 2:
        return " ".join(without)
    sign = -1 if measure.more_is_better else 1
    known.sort(key=lambda item: sign * item[1].median)
    (first, top), others = known[0], known[1:]
    words = f"{measure.words}: {first.pool}, {measure.form(top.median)}"
    rounds, needed = min(len(group.runs) for group, _ in known), rounds_needed(len(known))
    if rounds < needed:
        few = "one round is" if rounds == 1 else f"{rounds} rounds are"
        ranking = (
            f"No ranking: {few} too few for {len(known)} pools, which take {needed} (--rounds {needed})."
        )
        return " ".join((f"{words}.", ranking, *without))
    apart, alike = [], []
    for group, spread in others:
        overlaps = spread.high >= top.low if measure.more_is_better else spread.low <= top.high
        if overlaps:
            alike.append(group.pool)
        else:
            apart.append(f"{group.pool} {measure.form(spread.median)}")
    told = [f"well apart from {', '.join(apart)}"] if apart else []
    if alike:
        told.append(f"not told apart from {', '.join(alike)}, whose rounds overlap with its own")
    return " ".join((f"{words}: {'; '.join(told)}.", *without))


@dataclass(frozen=True, slots=True)
class _Measure:
    """By what the pools under one sort of load are compared."""

    words: str
    figure: Callable[[PoolRounds], Spread | None]
    form: Callable[[float], str]
    more_is_better: bool = False


def _in_ms(value: float) -> str:
    return f"{format_ms(value)} ms"


def _all_back_s(checkout: CheckoutRecord) -> float | None:
    """When all clients were back; infinite where some never were."""
    if checkout.recovery is None:
        return None
    moment_s = checkout.recovery.after_up_s(checkout.recovery.all_s)
    return math.inf if moment_s is None else moment_s


_THROUGHPUT: Final = _Measure(
    "Most operations", lambda group: group.throughput, lambda rate: f"{format_rate(rate)}/s", True
)
_RESPONSE: Final = _Measure(
    "Lowest p99 of response times",
    lambda group: group.spread(lambda run, _: run.histogram.percentile_ms(99)),
    _in_ms,
)
_MEASURES: Final = {
    "burst": _Measure(
        "Shortest bursts",
        lambda group: group.spread(lambda _, checkout: checkout.bursts_histogram.percentile_ms(50)),
        _in_ms,
    ),
    "spike": _Measure("Lowest p99 of waits", lambda group: group.phase_percentile("checkout", 99), _in_ms),
    "reconnect": _Measure(
        "All clients back soonest",
        lambda group: group.spread(lambda _, checkout: _all_back_s(checkout)),
        lambda seconds: "not all" if seconds == math.inf else format_duration(seconds) or "at once",
    ),
}
