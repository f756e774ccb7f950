"""Rows by address, and the sentence that names the bad one."""

import json
from typing import cast

import numpy as np
import pytest

from pool_bench.errors import FailureKind
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.brief.run import run_brief
from pool_bench.report.summary.addresses import address_lines, standing_out
from pool_bench.report.summary.run import run_summary
from pool_bench.report.text import Paint
from pool_bench.results.addresses import AddressRecord
from pool_bench.results.read import parse_result
from pool_bench.results.run import RunRecord
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.addresses import AddressStats
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, FailureCount
from pool_bench.stats.runs import RunResult
from tests.support.results.runs import REFUSED, histogram_of_ms, run_of, session_of

_GOOD, _BAD, _THIRD = "192.0.2.1:5432", "192.0.2.2:5432", "[2001:db8::3]:5432"


def _row(
    latency_ms: float, ok: int = 100, *, failed: int = 0, passed_over: int = 0, dropped: int = 0
) -> AddressStats:
    row = AddressStats(ok=ok, failed=failed, passed_over=passed_over, dropped=dropped)
    row.latency = histogram_of_ms(np.full(ok, latency_ms))
    if row.failed:
        row.errors = {FailureKind.REFUSED: row.failed}
    if row.passed_over:
        row.passed_over_errors = {FailureKind.TIMEOUT: row.passed_over}
    if row.dropped:
        row.dropped_errors = {FailureKind.RESET: row.dropped}
    return row


def _run(rows: dict[str, AddressStats]) -> RunResult:
    stats = BenchStats(addresses=rows)
    for row in rows.values():
        stats.ok += row.ok
        stats.failed += row.failed
        stats.latency.merge(row.latency)
    if stats.failed:
        stats.failures = {REFUSED: FailureCount(stats.failed, "Connection refused")}
    return run_of(stats)


def test_each_address_has_a_row_with_its_own_counts_rate_percentiles_and_kinds() -> None:
    run = _run({_BAD: _row(50, ok=40, failed=10), _GOOD: _row(2)})
    lines = address_lines(RunRecord.of(run), Paint(colour=False), width=100)
    assert [line.split() for line in lines[:3]] == [
        ["address", "conn/s", "ok", "failed", "p50", "ms", "p99", "ms"],
        [_GOOD, "10", "100", "0", "2.00", "2.00"],
        [_BAD, "4", "40", "10", "50.0", "50.0", "refused", "10"],
    ]


def _content(run: RunResult) -> dict[str, list[dict[str, int | str | None]]]:
    """What a file says of `run`."""
    content: dict[str, list[dict[str, int | str | None]]] = json.loads(
        dumps(session_to_json(session_of(run)))
    )["runs"][0]
    return content


def _standing_out(rows: dict[str, AddressStats]) -> list[str]:
    run = _run(rows)
    return standing_out([AddressRecord.of(run, name, stats) for name, stats in rows.items()])


def test_a_slow_address_and_one_that_fails_are_named() -> None:
    words = _standing_out({_GOOD: _row(2), _BAD: _row(50, ok=40), _THIRD: _row(3, failed=25)})
    assert words == [
        f"{_BAD} is slow: p50 50.0 ms, the others 2.00 ms",
        f"{_THIRD} fails: 20.0% of what was tried there (refused 25), the others 0%",
    ]


@pytest.mark.parametrize(
    "rows",
    [
        {_GOOD: _row(2), _BAD: _row(3)},
        # Too few to say.
        {_GOOD: _row(2), _BAD: _row(50, ok=5)},
        # All alike.
        {_GOOD: _row(2, failed=20), _BAD: _row(2, failed=22)},
        # Who is not known cannot be named.
        {_GOOD: _row(2), "": _row(2, ok=0, failed=50)},
    ],
)
def test_no_address_is_named_without_a_clear_difference(rows: dict[str, AddressStats]) -> None:
    assert _standing_out(rows) == []


def test_one_address_is_shown_only_where_that_was_asked_for() -> None:
    run = _run({_GOOD: _row(2)})
    assert address_lines(RunRecord.of(run), Paint(colour=False), width=100) == []
    assert "addresses" not in _content(run)
    run.by_address = True
    assert address_lines(RunRecord.of(run), Paint(colour=False), width=100)[1].startswith(_GOOD)


def test_failures_whose_address_is_not_known_are_the_last_row_and_sums_are_whole() -> None:
    run = _run({"": _row(2, ok=0, failed=7), _GOOD: _row(2), _BAD: _row(2)})
    lines = address_lines(RunRecord.of(run), Paint(colour=False), width=100)
    assert lines[3].startswith("not known ")
    rows = _content(run)["addresses"]
    assert [row["address"] for row in rows] == [_GOOD, _BAD, None]
    assert sum(cast(int, row["ok"]) for row in rows) == run.total.ok
    assert sum(cast(int, row["failed"]) for row in rows) == run.total.failed


def test_the_result_file_has_all_of_an_address_and_can_be_read() -> None:
    run = _run({_GOOD: _row(2), _BAD: _row(50, ok=40, failed=10, passed_over=3)})
    session = session_of(run)
    text = dumps(session_to_json(session)).decode()
    parse_result(text, source="here")
    bad = json.loads(text)["runs"][0]["addresses"][1]
    assert bad["address"] == _BAD
    assert (bad["ok"], bad["failed"], bad["passed_over"]) == (40, 10, 3)
    assert bad["errors"] == {"refused": 10}
    assert bad["passed_over_errors"] == {"timeout": 3}
    assert bad["throughput"] == 4.0
    assert bad["latency_ms"]["p50"] == pytest.approx(50, rel=0.01)
    assert bad["histogram"]["encoding"] == "hdr-v2-base64"
    # Of held connections only.
    assert "dropped" not in bad


def test_of_held_connections_drops_and_replacements_are_told() -> None:
    run = _run({_GOOD: _row(2), _BAD: _row(2, dropped=12)})
    run.hold = HoldStats(opened=200)
    run.hold.reconnects.addresses = {_BAD: AddressStats(ok=9, failed=4)}
    lines = address_lines(RunRecord.of(run), Paint(colour=False), width=80)
    assert lines[0].split() == ["address", "ok", "failed", "dropped", "p50", "ms", "p99", "ms"]
    assert lines[-1].startswith(f"{_BAD} fails: 12.0% of what was tried there (reset 12)")
    rows = _content(run)["addresses"]
    assert [(row["dropped"], row["reopened"], row["reopen_failed"]) for row in rows] == [
        (0, 0, 0),
        (12, 9, 4),
    ]
    assert _BAD in hold_brief(RunRecord.of(run), asked=200).body(0)


def test_the_last_screen_and_the_summary_have_the_addresses_in_their_width() -> None:
    many = {f"[2001:db8:1234:5678:9abc:def0:1234:{index:x}]:65432": _row(2, failed=1) for index in range(60)}
    run = _run(many | {_BAD: _row(90)})
    body = run_brief(RunRecord.of(run)).body(0)
    assert "address " in body
    assert max(map(len, body.splitlines())) <= 80
    assert f"{_BAD} is slow" in run_summary(RunRecord.of(run))
    assert max(map(len, run_summary(RunRecord.of(run)).splitlines())) <= 100


def test_names_from_a_server_or_resolver_are_cleaned() -> None:
    lines = address_lines(
        RunRecord.of(_run({"evil\x1b[31m": _row(2), _GOOD: _row(2)})), Paint(colour=False), width=100
    )
    assert "\x1b" not in "\n".join(lines)
