import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import FailureKind, Phase
from pool_bench.report.live.hold_lines import HoldLineView, HoldSecond, HoldTotals, hold_header, hold_line
from pool_bench.report.live.view import QuietView, make_hold_view
from pool_bench.report.summary.hold_words import holding_words, kinds_words, who_and_why
from pool_bench.results.hold import DropRecord
from pool_bench.results.parts import failures_of
from pool_bench.stats.holds import DropCount
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.runs import Snapshot, Stage
from tests.support.results.holds import (
    CLOSED,
    RESET,
    SHUTDOWN,
    Plan,
    restarted,
    slots_exhausted,
    snapshots_of,
)
from tests.support.results.runs import REFUSED, TOO_MANY, snapshot_of, stats_of

sqlstates = st.sampled_from(["", "57P01"])
keys = st.builds(FailureKey, st.sampled_from(FailureKind), st.sampled_from(Phase), sqlstates)
some_drops = st.dictionaries(st.sampled_from([SHUTDOWN, RESET, CLOSED]), st.integers(1, 9), max_size=2)
plans = st.builds(
    Plan,
    asked=st.integers(1, 60),
    refused=st.dictionaries(keys, st.integers(1, 3), max_size=1),
    rate=st.integers(5, 100),
    hold_s=st.integers(0, 6),
    drops=st.dictionaries(st.integers(0, 5), some_drops),
    reconnect=st.booleans(),
    keepalives=st.integers(0, 5),
    actives=st.integers(0, 5),
).filter(lambda plan: sum(plan.refused.values()) <= plan.asked)


def fields_of(snapshot: Snapshot, totals: HoldTotals, **how: int) -> dict[str, str]:
    line = hold_line(snapshot, totals, asked=how.get("asked", 500), active=True, slots=lambda: (97, 100))
    return dict(zip(hold_header(active=True, slots=True).split(), line.split(), strict=True))


@given(plans, st.booleans(), st.sampled_from([None, (97, 100)]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_line_has_as_many_columns_as_the_header(
    plan: Plan, active: bool, seen: tuple[int, int] | None, watched: bool
) -> None:
    totals = HoldTotals()
    header = hold_header(active=active, slots=watched).split()
    for snapshot in snapshots_of(plan):
        totals.add(snapshot)
        slots = (lambda: seen) if watched else None
        line = hold_line(snapshot, totals, asked=plan.asked, active=active, slots=slots)
        assert len(line.split()) == len(header)


@given(plans)
@settings(max_examples=60, deadline=None)
def test_what_is_held_follows_from_what_happened_and_nothing_is_left_at_the_end(plan: Plan) -> None:
    totals = HoldTotals()
    for snapshot in snapshots_of(plan):
        totals.add(snapshot)
        hold = totals.hold
        assert totals.held == hold.opened + hold.reopened - hold.dropped - hold.closed >= 0
    assert totals.held == 0
    assert totals.opening.ok == totals.hold.opened
    assert totals.opening.failed == sum(plan.refused.values())


def test_a_line_says_what_happened_in_its_second() -> None:
    totals = HoldTotals()
    lines = []
    for snapshot in snapshots_of(restarted()):
        totals.add(snapshot)
        lines.append(fields_of(snapshot, totals))
    shutdown = next(line for line in lines if line["events"] == "drop:server_shutdown=500")
    assert (shutdown["held"], shutdown["dropped"], shutdown["backoff"]) == ("0", "500", "500")
    back = lines[lines.index(shutdown) + 1]
    assert back["events"] == "reconnect:server_starting=500"
    assert (back["held"], back["of"], back["failed"], back["conn/s"]) == ("500", "500", "0", "500")
    assert float(back["p50_ms"]) == pytest.approx(5.0, rel=0.1)
    assert shutdown["active_q/s"] == "900"
    assert shutdown["slots"] == "97/100"
    assert [lines[0]["stage"], lines[1]["stage"], lines[2]["stage"], lines[-1]["stage"]] == [
        "open",
        "open",
        "hold",
        "done",
    ]
    assert lines[-1]["held"] == "0"


def test_failed_queries_and_several_kinds_are_events_of_their_second() -> None:
    snapshot = snapshots_of(slots_exhausted())[1]
    assert snapshot.hold is not None
    snapshot.hold.query_failures = stats_of(failures={REFUSED: 3})
    assert HoldSecond.of(snapshot).events == {"too_many_connections": 403, "query:refused": 3}


def test_once_opening_is_over_the_plain_truth_is_said_once() -> None:
    stream = io.StringIO()
    plan = slots_exhausted()
    view = make_hold_view(stream, stream_is_terminal=False, asked=plan.asked)
    view.begin_run("hold 500", 1, 1, 60.0, 0.0)
    for snapshot in snapshots_of(plan):
        view.update(snapshot)
    view.message("target\x1b[2J is back")
    view.end_run()
    view.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "hold 500 (hold for 1m)"
    assert lines[1] == hold_header()
    assert [line for line in lines if line.startswith("asked")] == [
        "asked 500, holding 97: too_many_connections (53300) 403"
    ]
    assert lines[-1] == "target [2J is back"
    assert len({len(line.split()) for line in lines[1:-1] if not line.startswith("asked")}) == 1


def test_a_snapshot_without_held_connections_has_a_line_too() -> None:
    view = HoldLineView(stream := io.StringIO(), asked=3)
    view.update(snapshot_of(stats_of([1.0]), stage=Stage.OPEN))
    assert stream.getvalue().splitlines()[-1].split()[1] == "open"


def test_a_quiet_view_writes_nothing() -> None:
    assert isinstance(make_hold_view(io.StringIO(), stream_is_terminal=True, asked=1, quiet=True), QuietView)


def test_kinds_are_ranked_and_phases_of_one_kind_added_up() -> None:
    refused_later = FailureKey(FailureKind.REFUSED, Phase.AUTH)
    opening = stats_of(failures={REFUSED: 2, TOO_MANY: 403, refused_later: 1})
    words = "too_many_connections (53300) 403, refused 3"
    assert kinds_words(failures_of(opening)) == words
    assert holding_words(500, 97, opening) == f"asked 500, holding 97: {words}"
    assert holding_words(500, 500, stats_of()) == "asked 500, holding 500"
    many = {FailureKey(kind, Phase.TCP): 1 for kind in FailureKind}
    assert kinds_words(failures_of(stats_of(failures=many))).endswith(
        f"and {len(FailureKind) - 3} more kinds"
    )


def _dropped(key: FailureKey) -> DropRecord:
    return DropRecord.of(key, DropCount(1))


@given(keys)
def test_every_way_to_end_has_words(key: FailureKey) -> None:
    assert who_and_why(_dropped(key)).partition(" ")[0] in {"closed", "reset", "given", "ended"}


def test_a_terminated_backend_and_a_crash_are_told_apart() -> None:
    assert "pg_terminate_backend" in who_and_why(_dropped(SHUTDOWN))
    assert "crashed" in who_and_why(_dropped(FailureKey(FailureKind.SERVER_SHUTDOWN, Phase.HOLD, "57P02")))
    assert "no answer in time" in who_and_why(_dropped(FailureKey(FailureKind.TIMEOUT, Phase.QUERY)))
