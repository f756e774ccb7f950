"""Result files compared: what is matched, what is refused and why, and how it is said."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import ALLOWABLE, Comparison, Obstacle, compare
from pool_bench.compare.round_samples import measured_round
from pool_bench.compare.rounds import by_setting, compare_within
from pool_bench.compare.settings import settings_of
from pool_bench.errors import UsageError
from pool_bench.report.plot.differences import draw_differences
from pool_bench.report.plot.figures import plot, save_differences
from pool_bench.report.plot.sheet import style
from pool_bench.report.summary.comparison import comparison_markdown, comparison_text, comparisons_json
from pool_bench.report.summary.rounds import rounds_summary
from pool_bench.results.model import HostRecord, ResultRecord, from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.write import dumps
from pool_bench.stats.operations import Interval
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server import CpuUse, ServerObservation, ServerSample
from tests.support.results.holds import all_refused, loaded_hold, normal, restarted
from tests.support.results.runs import REFUSED, client_of, histogram_of_ms, run_of, session_of, stats_of

LONG_NAME = "a" * 140


def run(
    *,
    slower: float = 0.0,
    seconds: int = 20,
    failed: int = 0,
    seed: int = 1,
    concurrency: int = 8,
    driver: str = "wire",
    setting: str = "",
    number: int | None = None,
) -> RunResult:
    """A run of a steady server with a little noise; `failed` operations in each second."""
    rng = np.random.default_rng(seed)
    parts = [rng.lognormal(2.0 + slower, 0.3, int(rng.normal(300, 6) * (1 - slower))) for _ in range(seconds)]
    stats = stats_of(np.concatenate(parts), failures={REFUSED: failed * seconds} if failed else None)
    for second, part in enumerate(parts, 1):
        interval = Interval(second, 1.0, len(part), failed, 8, 0.1, 0.2, histogram_of_ms(part))
        interval.seal()
        stats.intervals.append(interval)
    made = run_of(stats, concurrency=concurrency, driver=driver, duration_s=float(seconds))
    made.label, made.setting, made.round = f"c{concurrency} {setting}".strip(), setting, number
    return made


def file(*runs: RunResult, name: str = "") -> ResultRecord:
    return from_session(session_of(*runs, name=name))


def obstacles(comparison: Comparison) -> set[Obstacle]:
    return {one.obstacle for pair in comparison.pairs for one in pair.obstructions}


def edited(result: ResultRecord, **changes: object) -> ResultRecord:
    """`result` with these fields of its runs changed."""
    return replace(result, runs=tuple(replace(one, **changes) for one in result.runs))  # type: ignore[arg-type]


def test_the_same_run_shows_no_difference_and_a_slower_one_is_worse() -> None:
    (same,) = compare(file(run()), file(run(seed=2))).pairs
    (slower,) = compare(file(run()), file(run(seed=2, slower=0.1))).pairs
    (faster,) = compare(file(run(slower=0.1)), file(run(seed=2))).pairs
    verdicts = [pair.verdict for pair in (same, slower, faster)]
    assert verdicts == [Change.SAME, Change.WORSE, Change.BETTER]
    assert [figure.quantity.name for figure in same.figures] == ["throughput", "p50", "p95", "p99", "failed"]


def test_values_are_those_of_the_file() -> None:
    result = file(run(failed=3))
    (pair,) = compare(result, file(run(seed=2))).pairs
    values = {figure.quantity.name: figure.base for figure in pair.figures}
    own = result.runs[0]
    assert values["throughput"] == pytest.approx(own.throughput)
    assert values["p99"] == own.histogram.percentile_ms(99)
    assert values["failed"] == pytest.approx(own.failed / (own.ok + own.failed))


def test_what_a_server_that_stood_still_answered_after_measuring_is_compared_too() -> None:
    stalled = run(seconds=2, seed=2)
    measured, late = stalled.total.intervals
    stalled.total.intervals[:] = [Interval(0.5, 0.5, 0, 0, 8, 0.1, 0.2, histogram_of_ms([]))]
    for interval in (measured, late):
        stalled.total.intervals.append(replace(interval, t=interval.t + 1.0))
    stalled.duration_s = 0.5
    result = file(stalled)
    own = measured_round(result.runs[0])
    assert own is not None
    assert own.ok.tolist() == [stalled.total.ok]
    (pair,) = compare(file(run()), result).pairs
    values = {figure.quantity.name: figure.new for figure in pair.figures}
    assert values["p99"] == result.runs[0].histogram.percentile_ms(99)
    # Nothing to resample: the figures of such a file are not shown, instead of an error.
    (empty,) = compare(file(run()), edited(result, timeline=result.runs[0].timeline[:1])).pairs
    assert empty.figures == ()


def test_settings_are_matched_by_label_concurrency_rate_driver_and_setting() -> None:
    base = file(run(concurrency=4), run(concurrency=8), run(concurrency=16))
    new = file(run(concurrency=8, seed=2), run(concurrency=4, seed=3), run(concurrency=32))
    comparison = compare(base, new)
    assert [pair.label for pair in comparison.pairs] == ["c4", "c8"]
    assert [note.partition(" is only in ")[0] for note in comparison.missing] == ["c16 (wire)", "c32 (wire)"]
    assert not compare(base, edited(new, rate=100.0)).pairs
    assert not compare(base, edited(new, scenario="burst")).pairs


def test_runs_of_one_setting_are_its_rounds() -> None:
    result = file(*(run(seed=n, number=n, seconds=5) for n in (1, 2, 3)))
    (setting,) = settings_of(result)
    assert len(setting.runs) == 3
    (pair,) = compare(result, file(*(run(seed=n, number=n, seconds=5) for n in (4, 5, 6)))).pairs
    assert pair.verdict is Change.SAME
    assert pair.figures[0].base == pytest.approx(sum(one.ok for one in result.runs) / 15)


@pytest.mark.parametrize(
    ("obstacle", "new"),
    [
        (Obstacle.TARGET, edited(file(run(seed=2)), target="postgresql://bench@other:5432/app")),
        (Obstacle.SERVER, replace(file(run(seed=2)), server={"product": "PostgreSQL", "version": "17.2"})),
        (Obstacle.HOST, replace(file(run(seed=2)), host=HostRecord(cpus=96, platform="x", python="3.11"))),
        (Obstacle.DRIVER, file(run(seed=2, driver="asyncpg"))),
        (Obstacle.SHORT, file(run(seed=2, seconds=9))),
        (Obstacle.INTERRUPTED, edited(file(run(seed=2)), interrupted=True)),
    ],
)
def test_what_may_not_be_compared_says_why_and_has_no_verdict(obstacle: Obstacle, new: ResultRecord) -> None:
    base = file(run())
    comparison = compare(base, new)
    assert obstacles(comparison) == {obstacle}
    (pair,) = comparison.pairs
    assert pair.verdict is Change.NOT_COMPARABLE
    assert not pair.regressions(0.0)
    words = pair.obstructions[0].words
    assert " ".join(words.split()) in " ".join(comparison_text(comparison).split())
    (allowed,) = compare(base, new, allow=ALLOWABLE).pairs
    if str(obstacle) in ALLOWABLE:
        assert allowed.verdict is not Change.NOT_COMPARABLE
        assert f"allowed: {words}" in allowed.notes
    else:
        assert allowed.verdict is Change.NOT_COMPARABLE


def crowded(one: RunResult, *, machine: float, server: float) -> RunResult:
    """`one`, whose server was watched on a machine of two cores."""
    use = CpuUse(machine=machine, server=server, postmaster=0.1, pooler=None, pooler_busiest=None)
    looks = [ServerSample(float(t), cpu=use if t else None) for t in range(32)]
    one.server_side = ServerObservation(cores=2, origin_s=1.0, seconds=looks)
    return one


def test_runs_for_which_others_had_the_cores_are_not_compared_but_where_they_were_in_turn() -> None:
    quiet = file(crowded(run(), machine=2.0, server=1.4))
    busy = file(crowded(run(seed=2, slower=0.4), machine=2.0, server=0.3))
    assert obstacles(compare(quiet, file(crowded(run(seed=3), machine=1.9, server=1.5)))) == set()
    (pair,) = compare(quiet, busy).pairs
    assert pair.verdict is Change.NOT_COMPARABLE
    (one,) = pair.obstructions
    assert one.obstacle is Obstacle.NEIGHBOURS
    used = 2.0 - 0.3 - busy.runs[0].client.cpu_s / busy.runs[0].duration_s
    assert one.words == f"in the new run other processes used {used:.1f} of 2 cores, and none was free"
    (allowed,) = compare(quiet, busy, allow=["neighbours"]).pairs
    assert allowed.verdict is Change.WORSE
    # Cores were free for whoever wanted one.
    assert obstacles(compare(quiet, file(crowded(run(seed=2), machine=1.7, server=0.1)))) == set()
    rounds = [
        file(*(crowded(run(seed=n + 9 * k, number=n, seconds=5), machine=2.0, server=0.3) for n in (1, 2, 3)))
        for k in (0, 1)
    ]
    # Rounds that follow each other have the same neighbours, and those of the other file have others.
    assert obstacles(compare(*rounds)) == {Obstacle.NEIGHBOURS}
    turns = [
        crowded(run(seed=n + 9 * k, number=n, seconds=5, setting=setting), machine=2.0, server=0.3)
        for n in (1, 2, 3)
        for k, setting in enumerate(("", "query=SELECT 1"))
    ]
    assert obstacles(compare_within(file(*turns))) == set()
    assert obstacles(compare_within(file(*turns[:4]))) == {Obstacle.NEIGHBOURS}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("query=SELECT 1", {"query": "SELECT 1"}),
        ("concurrency=9", {"concurrency": 9}),
        ("resolve=once", {"resolve": "once"}),
        ("auth=token", {"auth": "token"}),
        ("scram-cache=no", {"scram_cache": False}),
        ("resolve=once,query=SELECT 1", {"resolve": "once", "query": "SELECT 1"}),
    ],
)
def test_settings_in_turn_may_differ_in_what_they_were_made_to_differ_in(
    name: str, parameters: dict[str, str | int | bool]
) -> None:
    usual: dict[str, str | int | bool] = {
        "query": "",
        "concurrency": 8,
        "resolve": "each",
        "auth": "signin",
        "scram_cache": True,
    }
    runs = []
    for number in (1, 2, 3):
        for setting, changed in (("", {}), (name, parameters)):
            one = run(seed=number, number=number, seconds=5, setting=setting)
            one.parameters = {**usual, **changed}
            runs.append(one)
    (pair,) = compare_within(file(*runs)).pairs
    assert pair.obstructions == ()
    assert pair.verdict is Change.SAME


def test_a_saturated_client_is_no_basis_for_a_verdict() -> None:
    slow = run(seed=2)
    slow.client = client_of(cpu_share=0.98)
    comparison = compare(file(run()), file(slow))
    assert obstacles(comparison) == {Obstacle.SATURATED}
    assert "98% of a core" in comparison_text(comparison)


def test_the_embedded_server_is_the_same_on_any_port() -> None:
    base, new = (
        edited(replace(file(run(seed=n)), target=url, config={"target_from": "embedded"}), target=url)
        for n, url in ((1, "postgresql://u@127.0.0.1:1111/db"), (2, "postgresql://u@127.0.0.1:2222/db"))
    )
    assert not obstacles(compare(base, new))
    assert obstacles(compare(replace(base, config={}), new)) == {Obstacle.TARGET}


def test_a_new_run_without_a_success_is_worse_and_two_of_them_are_nothing() -> None:
    dead = run_of(stats_of(failures={REFUSED: 900}), concurrency=8, duration_s=20.0)
    dead.label = "c8"
    (pair,) = compare(file(run()), file(dead)).pairs
    assert pair.verdict is Change.WORSE
    assert pair.regressions(0.05)
    assert obstacles(compare(file(dead), file(dead))) == {Obstacle.EMPTY}
    assert obstacles(compare(file(dead), file(run()))) == {Obstacle.EMPTY}


def test_errors_are_a_figure_of_their_own_and_in_no_latency_l10() -> None:
    (pair,) = compare(file(run()), file(run(seed=2, failed=30))).pairs
    figures = {figure.quantity.name: figure for figure in pair.figures}
    assert figures["failed"].verdict is Change.WORSE
    assert figures["failed"].change == pytest.approx(0.09, abs=0.01)
    assert figures["p50"].verdict is Change.SAME
    assert [figure.quantity.name for figure in pair.regressions(0.5)] == ["failed"]


def test_a_regression_counts_from_its_size_on() -> None:
    (pair,) = compare(file(run()), file(run(seed=2, slower=0.1))).pairs
    assert pair.regressions(0.05)
    assert not pair.regressions(0.5)


def test_steps_of_the_wall_clock_change_nothing_l7() -> None:
    base, new = file(run()), file(run(seed=2, slower=0.1))
    (pair,) = compare(base, new).pairs
    for year in (1970, 2038):
        stepped = replace(new, started_at=new.started_at.replace(year=year), finished_at=base.started_at)
        (again,) = compare(base, stepped).pairs
        assert again.figures == pair.figures
        assert again.verdict is pair.verdict


def test_what_ended_in_the_grace_period_belongs_to_the_last_second() -> None:
    whole = file(run(seconds=20)).runs[0]
    late = replace(whole.timeline[-1], t=20.02, seconds=0.02, ok=5)
    taken = measured_round(replace(whole, timeline=(*whole.timeline, late)))
    assert taken is not None
    assert len(taken.ok) == 20
    assert taken.ok[-1] == whole.timeline[-1].ok + 5
    assert taken.seconds.sum() == pytest.approx(20)


def test_held_connections_are_compared_by_opening_keep_alive_and_drops() -> None:
    (pair,) = compare(loaded_hold(normal()), loaded_hold(restarted())).pairs
    assert [figure.quantity.name for figure in pair.figures] == ["opened", "keep-alive p50", "dropped"]
    opened, keepalive, dropped = pair.figures
    # They were open in a moment: too few seconds to know how much that varies.
    assert opened.verdict is Change.UNKNOWN
    assert opened.low is None
    assert keepalive.verdict is Change.SAME
    assert dropped.base == 0.0
    assert dropped.new is not None
    assert dropped.new > 0.4
    # All were dropped in one moment: no tendency, but nothing that a gate lets pass.
    assert dropped.verdict is Change.UNKNOWN
    assert any("too few moments" in note for note in pair.notes)
    assert pair.regressions(0.05) == [dropped]
    assert not pair.regressions(0.9)
    refused = compare(loaded_hold(all_refused()), loaded_hold(all_refused()))
    assert obstacles(refused) == {Obstacle.EMPTY}


def interleaved() -> ResultRecord:
    runs = []
    for number in range(1, 6):
        runs.append(run(seed=number, seconds=4, number=number))
        runs.append(
            run(
                seed=90 + number, seconds=4, number=number, slower=0.3, driver="asyncpg",
                setting="driver=asyncpg",
            )
        )  # fmt: skip
    return file(*runs)


def test_settings_of_one_session_are_compared_with_its_base() -> None:
    comparison = compare_within(interleaved())
    (pair,) = comparison.pairs
    assert pair.verdict is Change.WORSE
    text = rounds_summary(interleaved())
    assert text.startswith("5 rounds of each setting: median (lowest to highest)")
    assert "c8 / c8 driver=asyncpg · wire / asyncpg · 5 rounds each: worse" in text
    assert max(map(len, text.splitlines())) <= 100


def test_rounds_put_together_are_one_run_with_every_operation_l9() -> None:
    result = interleaved()
    parts = by_setting(result)
    assert [part.name for part in parts] == ["base", "driver=asyncpg"]
    for part in parts:
        (whole,) = part.runs
        own = [one for one in result.runs if one.driver == whole.driver]
        assert whole.ok == sum(one.ok for one in own) == whole.histogram.count
        assert whole.throughput == pytest.approx(whole.ok / 20)
        assert [second.t for second in whole.timeline] == pytest.approx(list(range(1, 21)))
        assert whole.latency_ms.p99 == whole.histogram.percentile_ms(99)
    assert by_setting(file(run())) == [file(run())]
    assert plot([result], file_format="svg").startswith(b"<?xml")


def hostile(result: ResultRecord) -> ResultRecord:
    runs: Sequence[RunRecord] = [replace(one, label=f"c8 <b>|{LONG_NAME}") for one in result.runs]
    return replace(result, source=f"/tmp/{LONG_NAME}/<script>|x.json", name="\x1b[31mred", runs=tuple(runs))


COMPARISONS = {
    "worse": lambda: compare(file(run()), file(run(seed=2, slower=0.2))),
    "same": lambda: compare(file(run()), file(run(seed=2))),
    "not comparable": lambda: compare(file(run()), file(run(seed=2, driver="asyncpg", seconds=5))),
    "nothing in common": lambda: compare(file(run()), file(run(concurrency=2))),
    "hold": lambda: compare(loaded_hold(normal()), loaded_hold(restarted())),
    "hostile": lambda: compare(hostile(file(run())), hostile(file(run(seed=2, slower=0.2)))),
    "within": lambda: compare_within(interleaved()),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_fit_a_terminal_json_markdown_and_a_picture(name: str, tmp_path: Path) -> None:
    comparison = COMPARISONS[name]()
    lines = comparison_text(comparison).splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)
    content = json.loads(dumps(comparisons_json([comparison])))
    (written,) = cast("list[dict[str, list[object]]]", content["comparisons"])
    assert len(written["settings"]) == len(comparison.pairs)
    markdown = comparison_markdown(comparison)
    assert "<b>" not in markdown
    assert "<script>" not in markdown
    path = tmp_path / "differences.png"
    if not comparison.pairs:
        with pytest.raises(UsageError, match="no setting in common"):
            save_differences(path, [comparison])
        return
    save_differences(path, [comparison])
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(set(COMPARISONS) - {"nothing in common"}))
def test_no_words_of_the_picture_overlap_or_are_cut_off(name: str) -> None:
    with style():
        sheet = draw_differences([COMPARISONS[name]()])
        sheet.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in sheet.labels]
    width, height = sheet.figure.get_size_inches() * sheet.figure.dpi
    for index, box in enumerate(boxes):
        words = sheet.labels[index].get_text()
        assert box.x0 >= 0, words
        assert box.x1 <= width, words
        assert 0 <= box.y0 < box.y1 <= height, words
        for other in boxes[index + 1 :]:
            assert not box.overlaps(other), words
