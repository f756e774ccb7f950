"""Verdicts: every reason is found, says what to do, and none is made up."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pool_bench.analysis.verdict import Verdict, judge, short_words, verdict_words
from pool_bench.errors import FailureKind, Phase
from pool_bench.results.run import ReasonRecord
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureKey
from pool_bench.stats.runs import RunResult
from tests.support.results.runs import (
    TOO_MANY,
    client_of,
    histogram_of_ms,
    intervals_of,
    lognormal_ms,
    run_of,
    stats_of,
)


def good(count: int = 5000, **changes: object) -> RunResult:
    """A run without a flaw, but for `changes`."""
    values = lognormal_ms(count)
    stats = stats_of(values)
    stats.intervals = intervals_of(values, 10.0)
    return replace(run_of(stats), **changes)  # type: ignore[arg-type]


def codes(run: RunResult) -> list[str]:
    """Codes of the reasons to doubt it."""
    return [str(reason.code) for reason in judge(run).reasons]


def with_failures(run: RunResult, kind: FailureKind) -> RunResult:
    run.total.failed += 7
    run.total.count_failure(FailureKey(kind, Phase.TCP), 7, "no")
    return run


def open_loop(late_ms: float, *, dropped: int = 0) -> RunResult:
    run = good(rate=500.0)
    run.total.offered = run.total.ok + dropped
    run.total.dropped = dropped
    run.total.schedule_error = histogram_of_ms([late_ms] * 100)
    return run


def searching(tcp_ms: float = 0.76, searches: int = 2000) -> RunResult:
    """A run whose kernel had to search for local ports."""
    run = good()
    run.total.phases[Phase.TCP] = histogram_of_ms([tcp_ms] * run.total.ok)
    run.client.port_searches = searches
    return run


def slow_start() -> RunResult:
    run = good()
    for interval in run.total.intervals[:3]:
        interval.p50 = 40.0
    return run


def steps() -> RunResult:
    run = good()
    run.total.phases[Phase.TCP] = histogram_of_ms([0.1] * 4900 + [1001.0] * 80 + [3002.0] * 20)
    return run


def paused(share: float) -> RunResult:
    pauses = histogram_of_ms([share * 10_000 / 100] * 100)
    return good(client=replace(client_of(), pauses=pauses))


@pytest.mark.parametrize(
    ("run", "code", "words", "remedy"),
    [
        (good(client=client_of(cpu_share=0.97)), "client_saturated", "used 97% of a core", "another machine"),
        (good(client=client_of(lag_ms=20)), "client_saturated", "ms late (p99)", "another machine"),
        (
            good(client=client_of(lag_ms=20), embedded=True),
            "client_saturated",
            "the embedded server on the same cores",
            "--url",
        ),
        (paused(0.08), "client_saturated", "garbage collector took 8%", "another machine"),
        (with_failures(good(), FailureKind.CLIENT_FDS), "client_fds", "of the generator", "ulimit -Hn"),
        (
            with_failures(good(), FailureKind.CLIENT_PORTS),
            "client_ports",
            "of the generator",
            "net.ipv4.ip_local_port_range",
        ),
        (searching(), "port_search", "the phase tcp (p50 0.760 ms)", "Linux from 6.3 on"),
        (open_loop(30.0), "schedule_slipped", "late (p99)", "lower --rate"),
        (open_loop(5.0), "schedule_slipped", "upper bound", "lower --rate"),
        (open_loop(0.1, dropped=900), "rate_not_achieved", "900 of 5,900", "--max-in-flight"),
        (steps(), "full_accept_queue", "80 connects waited 1 s, 20 waited 3 s", "somaxconn"),
        (slow_start(), "warmup_not_over", "first 3s of measuring", "--warmup 4s"),
        (good(400), "few_samples", "400 operations, 4 of them beyond", "--duration"),
        (run_of(stats_of(failures={TOO_MANY: 9})), "no_success", "No operation succeeded", "failures above"),
        (run_of(stats_of([])), "no_success", "No operation was both begun and ended", "--grace"),
    ],
)
def test_a_flaw_is_named_explained_and_given_a_remedy(
    run: RunResult, code: str, words: str, remedy: str
) -> None:
    verdict = judge(run)
    assert not verdict.valid
    (reason,) = verdict.reasons
    assert reason.code == code
    assert words in reason.text
    assert remedy in reason.remedy
    state = "failed" if code == "no_success" else "suspect"
    assert verdict.words == f"{state}: {short_words(code)}"
    assert ReasonRecord.of(reason).paragraph.endswith(f"{reason.remedy}.")


@pytest.mark.parametrize(
    "run",
    [
        good(),
        good(1000),
        good(interrupted=True),
        with_failures(good(), FailureKind.TOO_MANY_CONNECTIONS),
        open_loop(0.2),
        open_loop(0.2, dropped=10),
        searching(tcp_ms=30.0),
        searching(searches=50),
    ],
    ids=[
        "good",
        "just enough",
        "interrupted",
        "refused by the server",
        "open loop",
        "few dropped",
        "searches beside a long way",
        "few searches",
    ],
)
def test_a_run_without_a_flaw_is_valid(run: RunResult) -> None:
    assert judge(run) == Verdict()
    assert judge(run).valid
    assert judge(run).words == "valid"


@pytest.mark.parametrize(
    ("driver", "advice"), [("asyncpg", "wire"), ("surrealdb", "surreal"), ("wire", None), ("surreal", None)]
)
@pytest.mark.parametrize("flaw", [open_loop(30.0), good(client=client_of(cpu_share=0.97))])
def test_a_cheaper_driver_is_advised_only_where_there_is_one_for_that_server(
    flaw: RunResult, driver: str, advice: str | None
) -> None:
    (reason,) = judge(replace(flaw, driver=driver)).reasons
    advised = re.findall(r"--driver (\w+)", reason.remedy)
    assert advised == ([] if advice is None else [advice])


def test_every_reason_is_given_at_once() -> None:
    run = with_failures(good(400, client=client_of(cpu_share=0.97)), FailureKind.CLIENT_FDS)
    assert codes(run) == ["client_saturated", "client_fds", "few_samples"]
    assert (
        judge(run).words
        == "suspect: client was the bottleneck; client out of file descriptors; too few samples"
    )


def test_held_connections_are_not_judged_by_their_percentiles() -> None:
    run = good(20, hold=HoldStats(opened=20))
    assert codes(run) == []


def test_failures_of_reconnects_count_for_held_connections() -> None:
    hold = HoldStats(opened=20)
    hold.reconnects = BenchStats(failed=2)
    hold.reconnects.count_failure(FailureKey(FailureKind.CLIENT_PORTS, Phase.TCP), 2, "no")
    (reason,) = judge(good(20, hold=hold)).reasons
    assert reason.code == "client_ports"
    assert "--source-ip" in reason.remedy


def test_a_driver_without_a_tcp_phase_makes_a_full_queue_likely_only() -> None:
    latency = histogram_of_ms([2.0] * 4900 + [1002.0] * 100)
    run = good(driver="asyncpg", total=BenchStats(ok=5000, latency=latency))
    (reason,) = [one for one in judge(run).reasons if one.code == "full_accept_queue"]
    assert "likely" in reason.text


def test_a_code_that_a_newer_version_made_is_still_read() -> None:
    assert verdict_words(["moon_in_the_way"]) == "suspect: moon in the way"


def test_pauses_of_the_collector_add_up() -> None:
    one, other = ClientUsage(wall_s=1.0), ClientUsage(wall_s=1.0)
    one.pauses.record(np.array([2_000_000, 4_000_000], dtype=np.int64))
    other.pauses.record(np.array([10_000_000], dtype=np.int64))
    one.merge(other)
    one.wall_s = 2.0
    assert (one.pauses.count, one.pauses.max_ns) == (3, 10_000_000)
    assert one.pause_share == pytest.approx(0.008)
    assert ClientUsage().pauses == Histogram()
