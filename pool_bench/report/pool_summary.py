"""What pools under one load came to, side by side, in plain text of at most 100 columns.

Rates are medians over the rounds with the extremes beside them; two pools whose extremes overlap are not
called different. Percentiles are those of all rounds' operations together.
"""

from collections.abc import Callable
from typing import Final

from pool_bench.report.pool_groups import Contest, Group, Spread
from pool_bench.report.pool_shapes import shape_lines
from pool_bench.report.summary import FEWEST_BEYOND, WIDTH, is_thin, wrap
from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.units import format_duration, format_ms

_LEGEND: Final = (
    "opened: connections in a round; held: the most at once; overtaken: checkouts served after somebody who "
    "asked later; starved: timed out while such a one was served; Jain: 1 where all clients got as much."
)
_FOOTNOTE: Final = f"~ fewer than {FEWEST_BEYOND} operations beyond it"


def contest_summary(contest: Contest, meaning: str, *, colour: bool = False) -> str:
    """Everything about the pools under one load.

    Args:
        contest: the pools, each with its rounds.
        meaning: what the scenario shows, in words.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    sections = [
        _headline(contest, meaning, paint),
        _figures(contest, paint),
        shape_lines(contest, paint),
        _behaviour(contest, paint),
        _failures(contest, paint),
        _manners(contest, paint),
        _notes(contest, paint),
        _verdict(contest, paint),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _headline(contest: Contest, meaning: str, paint: Paint) -> list[str]:
    setting = contest.groups[0].checkouts[0].setting
    rounds = max(len(group.runs) for group in contest.groups)
    parts = [
        f"{setting.clients:,} clients",
        f"size {setting.size:,}",
        ellipsize(clean(setting.query), 40) if setting.query is not None else "no query",
    ]
    if setting.hold_s:
        parts.append(f"hold {format_duration(setting.hold_s)}")
    parts.append(f"reset {setting.reset}")
    longest_s = max(run.duration_s for run in contest.groups[0].runs)
    parts.append(f"{rounds} round{'s' if rounds > 1 else ''} of {format_duration(round(longest_s, 1))}")
    lines = [paint(clean(contest.label), "bold")]
    lines += [f"  {line}" for line in wrap(f"{meaning}.", "  ")]
    lines += [f"  {line}" for line in wrap(" · ".join(parts), "  ")]
    return lines


def _figures(contest: Contest, paint: Paint) -> list[str]:
    rows = [["pool", "op/s", "min..max", "wait p50", "p99", "max ms", "op p50", "p99 ms", "failed"]]
    thin = False
    best = contest.best
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
                f"{format_rate(rate.low)}..{format_rate(rate.high)}",
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
        style = ("red",) if not group.ok else ("green",) if group is best else ()
        lines.append(paint(line, *style))
    if thin:
        lines.append(paint(_FOOTNOTE, "dim"))
    return lines


def _behaviour(contest: Contest, paint: Paint) -> list[str]:
    rows = [["pool", "us/op", "RSS MB", "opened", "held", "overtaken", "starved", "Jain", "client wait ms"]]
    for group in contest.groups:
        waits = [one.fairness.client_waits_ms for one in group.checkouts]
        known = [each for each in waits if each is not None]
        low = min((each[0] for each in known), default=None)
        high = max((each[2] for each in known), default=None)
        rows.append(
            [
                group.pool,
                _median(group.spread(lambda run, _: run.client.cpu_us_per_op), "{:,.0f}"),
                _median(group.spread(lambda run, _: run.client.rss_mb), "{:,.0f}"),
                _median(group.spread(lambda _, one: one.opened), "{:,.0f}"),
                f"{max(one.size_peak for one in group.checkouts):,}",
                format_percent(group.overtaken_share),
                f"{sum(one.fairness.starved for one in group.checkouts):,}",
                _median(group.spread(lambda _, one: one.fairness.index), "{:.3f}"),
                f"{format_ms(low)}..{format_ms(high)}",
            ]
        )
    drawn = table(rows, gap=1)
    return [
        paint(drawn[0], "bold"),
        *drawn[1:],
        *(paint(line, "dim") for line in wrap(_LEGEND, "")),
    ]


def _median(spread: Spread | None, form: str) -> str:
    return "-" if spread is None else form.format(spread.median)


def _failures(contest: Contest, paint: Paint) -> list[str]:
    lines = []
    for group in contest.groups:
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


def _manners(contest: Contest, paint: Paint) -> list[str]:
    lines = [paint("what each does besides", "bold")]
    for group in contest.groups:
        one = group.checkouts[0]
        lines += wrap(f"  {group.pool} {one.version}: {one.manner}", "    ")
    return lines


def _notes(contest: Contest, paint: Paint) -> list[str]:
    notes = []
    resets = {_return_of(group) for group in contest.groups if group.pool != "naive"}
    if len(resets) > 1 and contest.groups[0].checkouts[0].setting.reset == "own":
        notes.append(
            "These pools do different work when a connection comes back (see above): what differs "
            "may be that work. --reset always or --reset never makes it the same for all."
        )
    busy = [group.pool for group in contest.groups if any(run.client.saturated for run in group.runs)]
    if busy:
        notes.append(
            f"The client was the bottleneck ({', '.join(busy)}): its rate is what this process, "
            "driver and pool together, can do on one core, not the limit of the server, and part of the "
            "latency was spent waiting for that core."
        )
    waits = _timed_out(contest)
    if waits:
        notes.append(
            f"Waits are those of callers that were served. Callers of {', '.join(waits)} that timed "
            "out waited longest, and are counted as failed: the waits above are too low by them."
        )
    return [paint(line, "yellow") for note in notes for line in wrap(note, "  ")]


def _return_of(group: Group) -> str:
    return group.checkouts[0].manner.partition(";")[0]


def _timed_out(contest: Contest) -> list[str]:
    return [
        group.pool for group in contest.groups if any(name.startswith("timeout") for name in group.failures)
    ]


def _verdict(contest: Contest, paint: Paint) -> list[str]:
    best = contest.best
    if best is None:
        return [paint("No operation succeeded.", "red")]
    others = sorted(
        (group for group in contest.groups if group is not best and group.ok),
        key=lambda group: -group.throughput.median,
    )
    if not others:
        return []
    return [paint(line, "bold") for line in wrap(_compared(best, others, lambda g: g.throughput), "  ")]


def _compared(best: Group, others: list[Group], figure: Callable[[Group], Spread]) -> str:
    """Who was fastest, and by how much: only what the rounds allow to be said."""
    top = figure(best)
    words = f"Most operations: {best.pool}, {format_rate(top.median)}/s"
    if len(best.runs) < 2:
        return f"{words}. One round shows no spread: use --rounds to see what is noise."
    faster = [
        f"{top.median / figure(group).median:.2g} x {group.pool}"
        for group in others
        if figure(group).high < top.low
    ]
    alike = [group.pool for group in others if figure(group).high >= top.low]
    told = [f"that is {', '.join(faster)}"] if faster else []
    if alike:
        told.append(f"not told apart from {', '.join(alike)}, whose rounds overlap with its own")
    return f"{words}: {'; '.join(told)}."
