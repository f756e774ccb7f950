import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import FailureKind, Phase
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.summary.hold import hold_summary, survival_rows, verdict
from pool_bench.report.summary.run import WIDTH
from pool_bench.report.summary.server import format_bytes
from pool_bench.results.hold import HoldRecord, SurvivalRecord
from pool_bench.results.parts import SummaryRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server import ServerMemory, ServerObservation, ServerSample
from pool_bench.units import format_ms
from tests.report.live.test_hold_lines import plans
from tests.support.results.holds import (
    FDS,
    PORTS,
    SHUTDOWN,
    Plan,
    all_refused,
    held_run,
    many,
    normal,
    one_second,
    restarted,
    slots_exhausted,
    watched,
)
from tests.support.results.runs import REFUSED, TOO_MANY, lognormal_ms, stats_of


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def section(text: str, head: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(head))


def test_the_first_line_says_what_became_of_what_was_asked() -> None:
    run = held_run(slots_exhausted())
    assert (
        verdict(RunRecord.of(run), asked=500)
        == "asked 500, held 97 at peak: too_many_connections (53300) 403"
    )
    assert hold_summary(RunRecord.of(run), asked=500).startswith(verdict(RunRecord.of(run), asked=500) + "\n")
    assert (
        verdict(RunRecord.of(held_run(normal())), asked=500) == "asked 500, held 500 at peak: none was lost"
    )
    assert verdict(RunRecord.of(held_run(restarted())), asked=500).endswith(
        "held 500 at peak: 536 dropped, 536 replaced"
    )
    assert (
        verdict(RunRecord.of(held_run(Plan(asked=91))), asked=500)
        == "asked 500, held 91 at peak: 409 not tried"
    )


def test_a_summary_has_every_section() -> None:
    run = held_run(restarted(), server_side=watched())
    text = hold_summary(RunRecord.of(run), asked=500)
    for words in (
        "500 opened  0 failed  536 dropped  536 replaced  500 closed",
        "opening 167ms (3,000 conn/s) · holding 1m · closing 40ms",
        "connect, ms",
        "phases, ms",
        "pg_terminate_backend",
        "idle_session_timeout",
        "without a word (FIN)",
        "reset (RST)",
        "terminating connection due to administrator command",
        "1,072 attempts  536 ok  536 failed",
        "keep-alive",
        "active",
        "in use at peak 501 of 513 slots (max_connections), 3 reserved for superusers",
        "client connections: 1 before the run, 1 after it",
        "backends at peak: idle 500, active 1",
        "each further backend cost the server 1.81 MB",
        "each further client connection cost PgBouncer 2 KB",
        "scaled up from 200 processes",
        "permission denied",
        "memory 1.76 KB for each connection held at peak",
        "CPU 1.2% of a core while holding",
    ):
        assert words in text, words
    assert widest(text) <= WIDTH


@given(plans, st.sampled_from([None, watched()]), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_no_run_breaks_the_summary_or_its_width_and_its_counts_add_up(
    plan: Plan, side: ServerObservation | None, more: int
) -> None:
    run = held_run(plan, server_side=side)
    text = hold_summary(RunRecord.of(run), asked=plan.asked + more)
    assert widest(text) <= WIDTH
    assert "nan" not in text.lower()
    assert run.hold is not None
    found = re.search(
        r"^([\d,]+) opened  ([\d,]+) failed  ([\d,]+) dropped  ([\d,]+) replaced  ([\d,]+) closed",
        text,
        re.MULTILINE,
    )
    assert found is not None
    opened, failed, dropped, replaced, closed = (int(one.replace(",", "")) for one in found.groups())
    assert opened + failed == plan.asked
    assert opened + replaced == dropped + closed
    if dropped:
        rows = re.findall(r"^\w+ +\w+ +(?:(?:\w{5}|-) +)?([\d,]+) ", section(text, "dropped"), re.MULTILINE)
        assert sum(int(row.replace(",", "")) for row in rows) == dropped


@pytest.mark.parametrize(
    ("count", "percentiles"),
    [(9, []), (19, []), (20, ["p50"]), (99, ["p50"]), (100, ["p50", "p90"]), (1000, ["p50", "p90", "p99"])],
)
def test_reconnects_have_those_percentiles_that_enough_of_them_are_beyond(
    count: int, percentiles: list[str]
) -> None:
    run = held_run(Plan(asked=count, hold_s=9, drops={3: {SHUTDOWN: count}}, reconnect=True))
    assert run.hold is not None
    latency = run.hold.reconnects.latency
    assert latency.count == count
    told = [f"{name} {format_ms(latency.percentile_ms(float(name[1:])))} ms" for name in percentiles]
    words = ", ".join([*told, f"max {format_ms(latency.percentile_ms(100))} ms"])
    assert (
        f"  latency {words}"
        in section(hold_summary(RunRecord.of(run), asked=count), "reconnects").splitlines()
    )
    answer = " ".join("\n".join(hold_brief(RunRecord.of(run), asked=count).headline).split())
    assert f"{count:,} dropped, {count:,} replaced; " in answer
    assert f"reconnect {words};" in answer
    # All of them are in the file, with what they are read from.
    kept = HoldRecord.of(run.hold, connections=count, asked=None).reconnects
    assert kept.latency_ms == SummaryRecord.of(latency)
    assert kept.histogram == latency.bucketed()


@pytest.mark.parametrize("make", [all_refused, one_second, many])
def test_extremes_have_a_summary_too(make: object) -> None:
    assert callable(make)
    plan = make()
    text = hold_summary(RunRecord.of(held_run(plan)), asked=plan.asked)
    assert text.startswith(f"asked {plan.asked:,}, held ")
    assert ("connect, ms" in text) is (make is not all_refused)
    assert widest(text) <= WIDTH


def test_nothing_at_all_is_no_traceback() -> None:
    run = RunResult(label="", concurrency=0, driver="wire", targets=(), hold=HoldStats())
    assert hold_summary(RunRecord.of(run), asked=0).startswith("asked 0, held 0 at peak")


def test_hostile_messages_are_cleaned_and_cut() -> None:
    run = held_run(Plan(asked=9, hold_s=2, drops={0: {SHUTDOWN: 2}}, refused={TOO_MANY: 1}))
    assert run.hold is not None
    boom = "\x1b[2J\r\n\u202e" + "x" * 500
    for drop in run.hold.drops.values():
        drop.sample = boom
    run.total.failures[TOO_MANY].sample = boom
    run.hold.query_failures = stats_of(failures={REFUSED: 1})
    run.hold.query_failures.failures[REFUSED].sample = boom
    side = watched(9)
    side.notes.append(boom)
    side.seconds[5].states["\x1b]0;gone\x07"] = 10**6
    run.server_side = side
    text = hold_summary(RunRecord.of(run), asked=9)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert widest(text) <= WIDTH


def test_colour_changes_only_colour() -> None:
    run = held_run(restarted(), server_side=watched())
    coloured = hold_summary(RunRecord.of(run), asked=500, colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == hold_summary(RunRecord.of(run), asked=500)


def notes(run: RunResult) -> str:
    return " ".join(hold_summary(RunRecord.of(run), asked=run.concurrency).split())


def test_lost_connection_requests_are_explained_with_what_helps() -> None:
    rng = np.random.default_rng(1)
    fast = lognormal_ms(400, median=2.0)
    slow = np.concatenate([1002 + rng.uniform(0, 20, 80), 3002 + rng.uniform(0, 20, 20)])
    run = held_run(Plan(latency_ms=np.concatenate([fast, slow])))
    run.total.phases.clear()
    text = notes(run)
    assert "80 connects waited 1 s, 20 waited 3 s: TCP sent their connection request again" in text
    for words in ("accept queue", "RFC 6298", "--open-concurrency", "--rate", "net.core.somaxconn"):
        assert words in text
    # The steps of the handshake itself count where they are known: these were in another phase.
    run.total.phases[Phase.TCP] = stats_of(lognormal_ms(500, median=0.3)).latency
    assert "accept queue" not in notes(run)


def test_limits_of_this_machine_come_with_their_remedy() -> None:
    text = notes(held_run(Plan(refused={PORTS: 20, FDS: 3})))
    for words in ("--source-ip", "net.ipv4.ip_local_port_range", "ulimit -Hn"):
        assert words in text
    assert "--source-ip" not in notes(held_run(Plan(refused={TOO_MANY: 20})))


def test_what_was_given_up_forced_or_emptied_is_said() -> None:
    stopped = held_run(Plan(asked=900, rate=100, stop_at_s=0.5))
    assert "7 connects were still under way when the run ended" in notes(stopped)
    assert "interrupted" in notes(stopped)
    assert verdict(RunRecord.of(stopped), asked=900).endswith(
        f"{900 - stopped.total.attempts} not tried, 7 unfinished"
    )
    forced = notes(held_run(Plan(forced=3)))
    assert "closing 40ms (3 forced)" in forced
    assert "3 connections were cut off at the end" in forced
    emptied = notes(held_run(restarted(reconnect=False)))
    assert "No connection was left after 1m" in emptied
    assert "--reconnect" in emptied


def test_a_client_that_was_busy_while_opening_is_told() -> None:
    run = held_run(normal())
    busy = replace(run, client=replace(run.client, cpu_s=run.client.wall_s))
    assert "While opening: The client was the bottleneck" in notes(busy)


@given(
    st.lists(
        st.tuples(st.floats(0.001, 1e6), st.floats(0, 1)), min_size=1, max_size=50, unique_by=lambda p: p[0]
    )
)
def test_rows_of_the_survival_curve_are_few_fall_and_end_where_it_ends(
    pairs: list[tuple[float, float]],
) -> None:
    shares = sorted((share for _, share in pairs), reverse=True)
    ages = sorted(age for age, _ in pairs)
    curve = [SurvivalRecord(0.0, 1.0), *map(SurvivalRecord, ages, shares)]
    rows = survival_rows(curve)
    assert 1 <= len(rows) <= 9
    assert rows[-1] == curve[-1]
    assert [row.age_s for row in rows] == sorted({row.age_s for row in rows})
    assert [row.share for row in rows] == sorted((row.share for row in rows), reverse=True)
    assert survival_rows([]) == []


def test_survival_is_read_from_its_steps() -> None:
    text = hold_summary(RunRecord.of(held_run(restarted())), asked=500)
    rows = dict(re.findall(r"^ +(\w+) +([\d.]+)%", section(text, "survival"), flags=re.MULTILINE))
    assert rows["10s"] == "100"
    assert rows["30s"] == "51.7"
    assert len(rows) == len(section(text, "survival").splitlines()) - 2
    assert "every connection was still open when it was closed, the oldest 1m old" in hold_summary(
        RunRecord.of(held_run(normal())), asked=500
    )


def test_several_targets_have_a_row_each() -> None:
    run = held_run(normal())
    parts = (
        stats_of(lognormal_ms(300)),
        stats_of(failures={FailureKey(FailureKind.DNS, Phase.RESOLVE): 200}),
    )
    two = replace(run, targets=("postgresql://one/db", "postgresql://two/db"), per_target=parts)
    assert "postgresql://two/db" in hold_summary(RunRecord.of(two), asked=500)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (850, "850 B"),
        (1800, "1.76 KB"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (1_900_000, "1.81 MB"),
        (26 << 30, "26 GB"),
    ],
)
def test_bytes_read_well(count: int, words: str) -> None:
    assert format_bytes(count) == words


def test_a_pooler_is_summed_up_by_its_pools_and_memory_by_whatever_was_measured() -> None:
    side = ServerObservation(
        seconds=[
            ServerSample(0.0, pools={"cl_active": 1}, lists={"used_clients": 1}),
            ServerSample(
                1.0,
                pools={"cl_active": 15_000, "sv_idle": 20, "cl_waiting": 0, "maxwait_us": 4_500_000},
            ),
        ],
        memory={"later": ServerMemory(1, 60 << 20, 0, None, 1), "peak": ServerMemory(9, 1, 2, 3, 9)},
    )
    lines = section(
        hold_summary(RunRecord.of(held_run(normal(), server_side=side)), asked=500), "server"
    ).splitlines()
    assert "  PgBouncer pools at peak: cl_active 15,000, sv_idle 20" in lines
    assert "  longest wait for a server connection in PgBouncer: 4.5s" in lines
    assert [line.split()[0] for line in lines if line.startswith("    ")] == ["peak", "later"]
    assert not any("slots" in line or "scaled" in line for line in lines)


def test_an_unwatched_server_says_nothing() -> None:
    assert "server" not in hold_summary(RunRecord.of(held_run(normal())), asked=500).split("client")[0]
