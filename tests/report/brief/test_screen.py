"""The last screen: at most 24 lines of 80 columns whatever was measured, and the answer last."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.compare.comparison import compare
from pool_bench.compare.pool_sizes import by_size, sizing_of
from pool_bench.compare.pools import group_by_load
from pool_bench.errors import FailureKind, Phase
from pool_bench.report.brief.comparison import comparisons_brief
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.brief.pools import contests_brief, sizes_brief
from pool_bench.report.brief.rounds import rounds_brief
from pool_bench.report.brief.run import CLOSED_LOOP_LINE, run_brief, search_brief, sweep_brief
from pool_bench.report.brief.screen import COLUMNS, ROWS, Brief, Part, crop, fit, rows_of, width
from pool_bench.report.summary.run import run_summary
from pool_bench.results.model import SearchRecord, from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.session import SearchResult
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.runs import RunResult
from tests.support.results.holds import (
    all_refused,
    held_run,
    many,
    normal,
    one_second,
    restarted,
    slots_exhausted,
    watched,
)
from tests.support.results.open_loop import open_run, search_session
from tests.support.results.pools import loaded_runs, pool_session, size_session
from tests.support.results.runs import (
    PHASE_SHARES,
    REFUSED,
    TOO_MANY,
    client_of,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
    sweep_runs,
    typical_run,
)

# A result, a picture and a summary in Markdown.
PATHS = 3


def screen(brief: Brief, below: int = PATHS) -> list[str]:
    """The rows of a terminal of 80 columns that the last screen takes, paths as crosses."""
    body = brief.body(below)
    above = ["", *body.split("\n")] if body else []
    return [*above, *["x"] * below, "", *brief.last.split("\n")]


def check(brief: Brief, below: int = PATHS) -> str:
    lines = screen(brief, below)
    assert len(lines) <= 24, "\n".join(lines)
    assert max(map(width, lines)) <= COLUMNS, max(lines, key=width)
    return "\n".join(lines)


def test_the_answer_of_a_run_is_its_last_lines() -> None:
    text = check(run_brief(RunRecord.of(typical_run())))
    last = text.split("\n\n")[-1]
    words = " ".join(last.split())
    for figure in ("667 conn/s", "p50 2.26 ms", "p99 52.0 ms", "222 of 20,225 failed", "3 unfinished"):
        assert figure in words, (figure, words)
    assert "too_many_connections (53300) 210, refused 12" in words
    assert words.endswith("valid")


def test_the_lecture_on_closed_loops_is_a_line_with_a_link_and_whole_with_every_detail() -> None:
    run = run_of(stats_of(lognormal_ms(20_000)))
    assert len(CLOSED_LOOP_LINE) <= COLUMNS
    assert CLOSED_LOOP_LINE in check(run_brief(RunRecord.of(run)))
    assert "docs/closed-loop.md" in CLOSED_LOOP_LINE
    assert "coordinated omission" not in check(run_brief(RunRecord.of(run)))
    assert "coordinated omission" in run_summary(RunRecord.of(run))
    assert CLOSED_LOOP_LINE not in check(run_brief(RunRecord.of(open_run())))


@given(
    st.lists(st.floats(0, 4e6), max_size=40),
    st.integers(0, 10**9),
    st.integers(0, 50),
    st.floats(0.01, 1e5) | st.just(0.0),
    st.integers(0, 12),
    st.integers(0, 8),
)
@settings(max_examples=60, deadline=None)
def test_no_run_needs_more_than_a_screen(
    values: list[float], unfinished: int, failed: int, duration_s: float, kinds: int, targets: int
) -> None:
    failures = dict.fromkeys(
        (FailureKey(kind, Phase.AUTH, "53300") for kind in list(FailureKind)[:kinds]), failed
    )
    stats = stats_of(values, failures=failures if failed else {}, unfinished=unfinished, phases=PHASE_SHARES)
    names = [f"postgresql://user@{'long-' * number}host/db" for number in range(targets)]
    run = run_of(stats, duration_s=duration_s, client=client_of(cpu_share=0.99))
    run = replace(run, label="name " * 20, targets=tuple(names), per_target=(stats,) * targets)
    record = RunRecord.of(run)
    check(run_brief(record, colour=True))
    check(sweep_brief([record] * 20, colour=True))


def test_a_run_without_a_success_says_so_and_why() -> None:
    text = check(run_brief(RunRecord.of(run_of(stats_of(failures={REFUSED: 5})))))
    words = " ".join(text.split("\n\n")[-1].split())
    assert "0 conn/s, 5 of 5 failed (100%: refused 5) no operation succeeded" in words


@pytest.mark.parametrize("levels", [(1,), (1, 2, 4, 8, 16, 32, 64), tuple(2**n for n in range(20))])
def test_a_sweep_is_a_table_and_its_answer_the_best_level(levels: Sequence[int]) -> None:
    runs = sweep_runs(levels, dead=())
    best = max(runs, key=lambda run: run.throughput)
    text = check(sweep_brief(list(map(RunRecord.of, runs))))
    rows = [
        line.split()[0].replace(",", "") for line in text.splitlines() if re.match(r" *[\d,]+ +[\d,]+ ", line)
    ]
    # Where there is no room for all, the first ones are there and the others are counted.
    assert rows == [str(level) for level in levels[: len(rows)]]
    if len(rows) < len(levels):
        assert f"… {len(levels) - len(rows)} more levels: -v" in text
    assert f"Highest at {best.concurrency:,} workers: " in text.split("\n\n")[-1]


def test_a_sweep_of_failures_has_no_best_level() -> None:
    text = check(sweep_brief(list(map(RunRecord.of, sweep_runs((1, 2), dead=(1, 2))))))
    assert "highest" not in text.lower()
    assert "No level had a success." in text.split("\n\n")[-1]


def test_a_search_ends_in_its_answer_with_the_figures_of_what_confirmed_it() -> None:
    session = search_session()
    search = session.find_max
    assert isinstance(search, SearchResult)
    text = check(search_brief(list(map(RunRecord.of, session.runs)), SearchRecord.of(search), colour=True))
    last = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n\n")[-1].split())
    assert re.match(r"Confirmed: \S+ conn/s of 566/s due, p50 \S+ ms, p99 \S+ ms, 0 of [\d,]+ failed", last)
    assert "Maximum: 566/s meets p99<50ms,errors<1%, confirmed" in last
    assert "valid; limit: the server (at 800/s: p99 180ms, wanted p99<50ms)" in last


def test_of_many_trials_those_around_the_answer_are_shown() -> None:
    session = search_session()
    search = session.find_max
    assert isinstance(search, SearchResult)
    (found,) = [step for step in search.steps if step.kind == "confirm" and step.passed]
    others = [replace(found, rate=float(rate), kind="grow") for rate in range(1, 60)]
    text = check(
        search_brief(
            list(map(RunRecord.of, session.runs)), SearchRecord.of(replace(search, steps=[*others, found]))
        )
    )
    assert re.search(r"^ +566 .* confirmed$", text, re.MULTILINE)
    assert "more trials: -v" in text


def settings_in_rounds(variants: int, rounds: int) -> list[RunResult]:
    runs = []
    for number in range(1, rounds + 1):
        for variant in range(variants):
            run = typical_run(4000, duration_s=12.0)
            run.round, run.setting = number, f"query=SELECT {variant}" if variant else ""
            run.label = f"c50 {run.setting}".strip()
            runs.append(run)
    return runs


@pytest.mark.parametrize(("variants", "rounds"), [(1, 3), (2, 2), (4, 3), (30, 1)])
def test_rounds_end_in_a_verdict_for_each_setting(variants: int, rounds: int) -> None:
    result = from_session(session_of(*settings_in_rounds(variants, rounds)))
    text = check(rounds_brief(result, colour=True))
    last = text.split("\n\n")[-1]
    if variants == 1:
        assert f"c50, median of {rounds}: 333 conn/s" in last
    elif variants <= 4:
        assert last.count("no difference shown") == variants - 1
    else:
        assert "29 settings: 29 no difference shown" in last


@pytest.mark.parametrize("levels", [(4,), (1, 2, 4), tuple(range(1, 60))])
def test_a_comparison_ends_in_a_verdict_however_many_settings_it_has(levels: Sequence[int]) -> None:
    result = from_session(session_of(*sweep_runs(levels, dead=())))
    text = check(comparisons_brief([compare(result, result)], colour=True))
    last = text.split("\n\n")[-1]
    told = f"{len(levels)} settings: " if len(levels) > 3 else "concurrency 4: "
    assert told in last


def test_what_was_held_is_the_last_thing_said() -> None:
    for plan in (normal, slots_exhausted, restarted, all_refused, one_second, many):
        run = held_run(plan(), server_side=watched())
        text = check(hold_brief(RunRecord.of(run), asked=500, colour=True))
        assert "asked 500, held " in text.split("\n\n")[-1]
    words = " ".join(
        check(hold_brief(RunRecord.of(held_run(slots_exhausted())), asked=500)).split("\n\n")[-1].split()
    )
    assert "asked 500, held 97 at peak: too_many_connections (53300) 403; connect p50 " in words


def test_what_dropped_connections_is_shown_before_what_they_cost() -> None:
    text = check(hold_brief(RunRecord.of(held_run(restarted(), server_side=watched())), asked=500))
    assert "pg_terminate_backend" in text
    assert "terminating connection due to administrator command" in text


@pytest.mark.parametrize("scenarios", [1, 3, 9])
def test_pools_end_in_who_did_best(scenarios: int) -> None:
    names = ("churn", "query", "burst", "ramp", "spike", "sustained", "naive", "stress", "reconnect")
    runs = [run for name in names[:scenarios] for run in loaded_runs(pool_session((name,)))]
    text = check(contests_brief(group_by_load(runs), colour=True))
    if scenarios < 9:
        assert text.split("\n\n")[-1].count(": Most operations: ") == min(scenarios, 2)
    else:
        assert "9 loads" in text.split("\n\n")[-1]


@pytest.mark.parametrize("sizes", [5, 30])
def test_sizes_end_in_the_recommendation(sizes: int) -> None:
    rates = {2 * size: 1000.0 * size / (1 + 0.1 * size) for size in range(1, sizes + 1)}
    groups = by_size(loaded_runs(size_session(rates)))
    sizing = sizing_of(groups)
    assert sizing is not None
    assert re.search("Recommended|No recommendation", check(sizes_brief(groups, sizing)).split("\n\n")[-1])


def test_parts_that_matter_least_give_way_first() -> None:
    keep, give = Part(["a"] * 8, rank=2), Part(["b"] * 8, rank=1)
    assert [part.lines[0] for part in fit([give, keep], 17)] == ["b", "a"]
    assert [part.lines[0] for part in fit([give, keep], 16)] == ["a"]
    cut = fit([replace(give, fewest=4), keep], 14)
    assert cut[0].lines == ("b", "b", "b", "b", "… 4 more rows: -v")
    assert [part.lines[0] for part in fit([replace(give, fewest=4), keep], 12)] == ["a"]


def test_a_long_path_takes_the_rows_that_the_body_then_does_not() -> None:
    assert rows_of("wrote " + "p" * 155) == 3
    brief = Brief([Part(["line"] * 30, fewest=3)], ["answer"])
    for below in range(15):
        assert len(screen(brief, below)) == ROWS


def test_colours_take_no_room_and_end_where_a_line_is_cut() -> None:
    line = f"\x1b[31m{'x' * 90}\x1b[0m"
    assert width(line) == 90
    assert crop(line) == f"\x1b[31m{'x' * 79}…\x1b[0m"
    assert crop("short") == "short"


def test_failures_come_with_a_message_of_each() -> None:
    text = check(run_brief(RunRecord.of(run_of(stats_of(failures={TOO_MANY: 3, REFUSED: 2})))))
    assert "e.g. sorry, too many clients already" in text
    assert "e.g. Connection refused" in text
