import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.analysis.reasons import ReasonCode
from pool_bench.analysis.verdict import is_thin
from pool_bench.errors import Phase
from pool_bench.report.brief.run import run_brief
from pool_bench.report.summary.run import (
    SHARED_WORKERS_NOTE,
    WIDTH,
    run_summary,
    sweep_table,
)
from pool_bench.report.summary.session_markdown import session_markdown
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.stats.operations import BenchStats, FailureKey
from pool_bench.stats.runs import RunResult
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

LONG = "postgresql://user@a-very-long-host-name.eu-central-1.rds.amazonaws.com:5432/a_database_of_ours"


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_a_summary_has_every_section() -> None:
    text = run_summary(RunRecord.of(typical_run()))
    for words in ("667 conn/s", "20,000 ok", "222 failed", "3 unfinished", "success 98.9%"):
        assert words in text
    for words in (
        "p99.99",
        "stdev",
        "phases, ms",
        "share of mean",
        "53300",
        "sorry, too many clients",
        "time to fail",
    ):
        assert words in text
    for words in ("latency histogram", "loop lag", "uvloop", "still open when the grace period ended"):
        assert words in text
    assert "warm-up: 512 ok, 0 failed, not counted" in text
    assert widest(text) <= WIDTH


@given(
    st.lists(st.floats(0, 4e6), max_size=40),
    st.integers(0, 10**9),
    st.integers(0, 50),
    st.floats(0.01, 1e5) | st.just(0.0),
)
@settings(max_examples=60)
def test_no_run_breaks_the_summary_or_its_width(
    values: list[float], unfinished: int, failed: int, duration_s: float
) -> None:
    failures = {TOO_MANY: failed} if failed else {}
    stats = stats_of(values, failures=failures, unfinished=unfinished, phases=PHASE_SHARES)
    text = run_summary(RunRecord.of(run_of(stats, duration_s=duration_s, client=client_of(cpu_share=0.99))))
    assert widest(text) <= WIDTH
    assert widest(sweep_table(list(map(RunRecord.of, [run_of(stats, duration_s=duration_s)])))) <= WIDTH


@given(st.lists(st.floats(0, 4e6), min_size=1, max_size=60))
@settings(max_examples=60)
def test_the_bars_of_the_text_histogram_add_up_to_every_success(values: list[float]) -> None:
    text = run_summary(RunRecord.of(run_of(stats_of(values))))
    section = text.split("latency histogram, successes\n")[1].split("\n\n")[0]
    counts = re.findall(r"^ *\S+ - \S+ +([\d,]+) ", section, flags=re.MULTILINE)
    assert sum(int(count.replace(",", "")) for count in counts) == len(values)


@pytest.mark.parametrize("stats", [BenchStats(), stats_of(failures={REFUSED: 5}), stats_of(unfinished=4)])
def test_a_run_without_a_success_says_so(stats: BenchStats) -> None:
    text = run_summary(RunRecord.of(run_of(stats)))
    assert "No operation succeeded" in text
    assert "nan" not in text.lower()
    assert "latency histogram" not in text


@pytest.mark.parametrize(
    ("percentile", "count", "thin"),
    [(99.99, 100_000, False), (99.99, 99_999, True), (50, 20, False), (50, 19, True), (99.9, 10_000, False)],
)
def test_percentiles_with_fewer_than_ten_samples_beyond_are_thin(
    percentile: float, count: int, thin: bool
) -> None:
    assert is_thin(percentile, count) is thin


def test_thin_percentiles_are_marked_and_explained_once() -> None:
    text = run_summary(RunRecord.of(run_of(stats_of(lognormal_ms(20_000)))))
    assert "p99.99 ~" in text
    assert "p99 ~" not in text
    assert text.count("fewer than 10 samples beyond it") == 1
    assert "~" not in run_summary(RunRecord.of(run_of(stats_of(lognormal_ms(200_000)))))


def test_shares_of_the_mean_add_up_when_phases_fill_the_operation() -> None:
    text = run_summary(RunRecord.of(typical_run()))
    section = text.split("phases, ms")[1].split("\n\n")[0]
    shares = [float(share) for share in re.findall(r"([\d.]+)%", section)]
    assert sum(shares) == pytest.approx(100, abs=1.0)


def test_what_the_phases_leave_of_an_operation_is_a_row_of_its_own() -> None:
    stats = stats_of([10.0] * 500, phases={Phase.TCP: 0.1, Phase.CLOSE: 0.55})
    text = run_summary(RunRecord.of(run_of(stats)))
    section = text.split("phases, ms")[1].split("\n\n")[0]
    assert re.search(r"^in between +3\d\.\d%", section, flags=re.MULTILINE)
    assert "this client's own work" in section
    shares = [float(share) for share in re.findall(r"([\d.]+)%", section)]
    assert sum(shares) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize("median", [0.1, 4.0, 90.0, 20_000.0])
def test_the_percentiles_fit_a_terminal_of_80_columns(median: float) -> None:
    text = run_summary(RunRecord.of(run_of(stats_of(lognormal_ms(500, median=median)))))
    section = text.split("latency, ms")[1].split("\n\n")[0]
    assert widest("latency, ms" + section) <= 80
    for head in ("min", "p50", "p99.99 ~", "max", "mean", "stdev"):
        assert head in section


def test_several_targets_get_a_table() -> None:
    parts = [stats_of(lognormal_ms(300)), stats_of(failures={REFUSED: 3})]
    text = run_summary(RunRecord.of(run_of(per_target=parts, targets=("postgresql://one/db", LONG))))
    assert "postgresql://one/db" in text
    assert "…" in text
    assert widest(text) <= WIDTH


def test_targets_that_share_workers_are_not_told_apart_by_their_rates() -> None:
    parts = [stats_of(lognormal_ms(300)), stats_of(lognormal_ms(300, median=40.0))]
    shared = run_of(per_target=parts, targets=("postgresql://one/db", "postgresql://two/db"))
    note = " ".join(SHARED_WORKERS_NOTE.split())
    assert note in " ".join(run_summary(RunRecord.of(shared)).split())
    assert note in " ".join(run_brief(RunRecord.of(shared)).body(0).split())
    # What does tell them apart stands above it.
    one, two = (
        line.split()
        for line in run_summary(RunRecord.of(shared)).splitlines()
        if line.startswith("postgresql://")
    )
    assert one[1:6] == two[1:6]
    assert float(two[6]) > 5 * float(one[6])
    # A schedule sends as much to each whatever they do, and one target has nobody to be told from.
    scheduled = run_of(per_target=parts, targets=("postgresql://one/db", "postgresql://two/db"))
    scheduled.rate = 60.0
    for other in (scheduled, run_of(per_target=parts[:1])):
        assert "in turn" not in run_summary(RunRecord.of(other))


def saturated(driver: str, cpu_share: float, lag_ms: float) -> RunResult:
    return run_of(stats_of([1.0]), driver=driver, client=client_of(cpu_share=cpu_share, lag_ms=lag_ms))


def saturation_note(run: RunResult) -> str:
    reasons = RunRecord.of(run).judgement.reasons
    return next((one.paragraph for one in reasons if one.code == ReasonCode.CLIENT_SATURATED), "")


def test_a_busy_client_is_told_about_the_cheaper_driver_and_another_machine() -> None:
    note = saturation_note(saturated("asyncpg", 0.97, 0.1))
    assert "used 97% of a core" in note
    assert "--driver wire" in note
    assert "another machine" in note
    assert "upper bound" in note
    assert "--driver wire" not in saturation_note(saturated("wire", 0.97, 0.1))


def test_a_late_but_idle_client_blames_its_neighbours() -> None:
    note = saturation_note(saturated("wire", 0.3, 20.0))
    assert "ms late" in note
    assert "Something kept the generator waiting (other processes" in note


def test_a_client_with_time_to_spare_gets_no_note() -> None:
    assert saturation_note(saturated("wire", 0.3, 0.1)) == ""


def test_server_messages_are_cleaned_and_cut() -> None:
    stats = stats_of(failures={REFUSED: 1})
    stats.failures[REFUSED].sample = "\x1b[2J" + "x" * 500
    text = run_summary(RunRecord.of(run_of(stats)))
    assert "\x1b" not in text
    assert widest(text) <= WIDTH


def test_colour_changes_only_colour() -> None:
    run = typical_run()
    coloured = run_summary(RunRecord.of(run), colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == run_summary(RunRecord.of(run))


def test_the_sweep_table_marks_best_dead_and_saturated_levels() -> None:
    text = sweep_table(list(map(RunRecord.of, sweep_runs())))
    lines = text.splitlines()
    row = {line.split()[0]: line for line in lines[1:8]}
    assert row["64"].endswith("highest")
    assert row["16"].endswith("no success")
    assert " ! " in row["32"] + " "
    assert "Highest throughput: 8,228 conn/s at concurrency 64." in text
    assert "! the client was the bottleneck" in text
    assert widest(text) <= WIDTH


def test_a_sweep_of_failures_has_no_best_level() -> None:
    text = sweep_table(list(map(RunRecord.of, sweep_runs((1, 2), dead=(1, 2)))))
    assert "highest" not in text.lower()
    assert "No level had a success." in text
    assert sweep_table([]) == ""


@pytest.mark.parametrize(("key", "has"), [(REFUSED, False), (TOO_MANY, True)])
def test_sqlstates_are_a_column_only_where_a_failure_has_one(key: FailureKey, *, has: bool) -> None:
    text = run_summary(RunRecord.of(run_of(stats_of(failures={key: 5}))))
    (head,) = [line for line in text.splitlines() if line.startswith("failures ")]
    assert head.split() == ["failures", "phase", *(["sqlstate"] if has else []), "count", "of", "failed"]
    (row,) = [line for line in text.splitlines() if line.startswith(f"{key.kind} ")]
    assert row.split() == [key.kind, key.phase, *([key.sqlstate] if has else []), "5", "100%"]
    markdown = session_markdown(from_session(session_of(run_of(stats_of(failures={key: 5})))))
    assert ("SQLSTATE" in markdown) is has
