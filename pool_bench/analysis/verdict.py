"""Whether a run's figures can be trusted: `valid`, or `suspect` with every reason and what to do about each.

A pure function from a `RunResult` to a `Verdict`. A reason says that the figures are not (only) the target's;
a note says what the figures cannot show. Neither looks at whether the target did well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from pool_bench.analysis.client_verdict import (
    CHEAPEST,
    SLIP_SHARE,
    cheapest_beside,
    client_reasons,
    starved_note,
)
from pool_bench.analysis.cluster_verdict import cluster_reasons
from pool_bench.analysis.reasons import NoteCode, Reason, ReasonCode
from pool_bench.analysis.steadiness import hidden_pause, warmup_transient
from pool_bench.analysis.syn_retransmits import syn_steps, waited_words
from pool_bench.errors import FailureKind, Phase
from pool_bench.stats.generators import SATURATED_LAG_P99_MS
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_duration, format_ms

__all__ = [
    "FEWEST_BEYOND",
    "NoteCode",
    "Reason",
    "ReasonCode",
    "Verdict",
    "is_thin",
    "judge",
    "short_words",
    "verdict_words",
]

FEWEST_BEYOND: Final = 10
# The highest percentile that tables, live lines and curves show for every run.
_SHOWN_PERCENTILE: Final = 99.0
# A schedule error below a millisecond is what a timer costs; above it, it must not be seen in the result.
_SLIGHT_SLIP_MS: Final = 1.0
_DROPPED_SHARE: Final = 0.01
# A search of half of the default range takes at least so long; what is rarer is not seen in percentiles.
_SEARCH_MS: Final = 0.5
_SEARCHED_SHARE: Final = 0.01
# Loads on pools whose latency changes, or which stand still, because that is what they are for.
_CHANGING: Final = ("burst", "ramp", "spike", "reconnect")


_SHORT: Final = {
    "client_saturated": "client was the bottleneck",
    "client_starved": "client waited for a core",
    "client_blocked": "client blocked itself",
    "client_suspended": "client was suspended",
    "generator_lost": "generator process lost",
    "worker_lost": "worker lost",
    "snapshots_missing": "snapshots missing",
    "started_late": "generators started late",
    "clock_skew": "clocks apart",
    "client_fds": "client out of file descriptors",
    "client_ports": "client out of local ports",
    "port_search": "client searched for local ports",
    "schedule_slipped": "schedule slipped",
    "rate_not_achieved": "offered rate not achieved",
    "full_accept_queue": "accept queue full",
    "warmup_not_over": "warm-up not over",
    "few_samples": "too few samples",
    "no_success": "no operation succeeded",
}


def short_words(code: str) -> str:
    """A reason in two or three words, for tables and stamps; one this version does not know by its name."""
    return _SHORT.get(code) or code.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to think of a run: suspect for every one of `reasons`; `notes` do not make it so."""

    reasons: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against the figures."""
        return not self.reasons

    @property
    def words(self) -> str:
        """`valid`, `suspect: warm-up not over; too few samples`, or `failed: no operation succeeded`."""
        return verdict_words([reason.code for reason in self.reasons])


def verdict_words(codes: Sequence[str]) -> str:
    """`valid`, `suspect: warm-up not over; too few samples`, or `failed: no operation succeeded`."""
    if not codes:
        return "valid"
    state = "failed" if ReasonCode.NO_SUCCESS in codes else "suspect"
    return f"{state}: {'; '.join(map(short_words, codes))}"


def is_thin(percentile: float, count: int) -> bool:
    """Whether a percentile of `count` samples has fewer than ten of them beyond it."""
    # In integers: 1 - 0.9999 is not exact, and the limit itself is a likely count.
    beyond = count * (10_000 - round(percentile * 100))
    return 0 <= beyond < FEWEST_BEYOND * 10_000


def judge(run: RunResult) -> Verdict:
    """The verdict on a finished run."""
    reasons = (
        _no_success(run),
        *client_reasons(run),
        *cluster_reasons(run),
        _out_of_descriptors(run),
        _out_of_ports(run),
        _port_search(run),
        _schedule_slipped(run),
        _rate_not_achieved(run),
        _full_accept_queue(run),
        _warming_up(run),
        _few_samples(run),
    )
    return Verdict(
        tuple(reason for reason in reasons if reason is not None),
        tuple(note for note in (_pause_note(run), starved_note(run), _close_note(run)) if note is not None),
    )


def _no_success(run: RunResult) -> Reason | None:
    if run.total.ok or (run.hold is not None and run.hold.opened):
        return None
    if not run.total.attempts and run.warmup.unfinished:
        return Reason(
            ReasonCode.NO_SUCCESS,
            f"No operation was begun while it was measured: {run.warmup.unfinished:,} of the warm-up never "
            "ended.",
            "a shorter --connect-timeout, by which what hangs fails and is counted; `pool-bench check` says "
            "at which step",
        )
    if not run.total.attempts:
        return Reason(
            ReasonCode.NO_SUCCESS,
            "No operation was both begun and ended while it was measured: there is no latency, and no rate.",
            "a longer --duration, or a longer --grace for what was under way",
        )
    return Reason(
        ReasonCode.NO_SUCCESS,
        "No operation succeeded: there is no latency, and no rate but that of failing.",
        "find out why operations fail, the failures above say how",
    )


def _is_changing(run: RunResult) -> bool:
    return run.pool is not None and run.pool.scenario in _CHANGING


def _failures(run: RunResult, kind: FailureKind) -> int:
    counted = [run.total] if run.hold is None else [run.total, run.hold.reconnects]
    return sum(stats.errors.get(kind, 0) for stats in counted)


def _out_of_descriptors(run: RunResult) -> Reason | None:
    count = _failures(run, FailureKind.CLIENT_FDS)
    if not count:
        return None
    option = "--concurrency" if run.hold is None else "--connections"
    if run.pool is not None:
        option = "--size"
    return Reason(
        ReasonCode.CLIENT_FDS,
        f"{count:,} operations failed because this process ran out of file descriptors, one for each "
        "connection. They are failures of the generator, not of the target.",
        f"a higher hard limit (ulimit -Hn, LimitNOFILE= of a systemd unit, fs.file-max), or a lower {option}",
    )


def _out_of_ports(run: RunResult) -> Reason | None:
    count = _failures(run, FailureKind.CLIENT_PORTS)
    if not count:
        return None
    if run.hold is None:
        why = "each connection needs one, and one that this side closes first keeps it for 60 s (TIME_WAIT)"
        cure = "fewer connections a second"
        if run.driver == "psycopg":
            cure = "--driver wire, which lets the server close first; fewer connections a second"
    else:
        why = "a held connection has one of its own"
        cure = "connect from several local addresses (--source-ip, repeated)"
    return Reason(
        ReasonCode.CLIENT_PORTS,
        f"{count:,} operations failed because this machine ran out of local ports for the server's address "
        f"and port: {why}. They are failures of the generator, not of the target.",
        f"{cure}; widen net.ipv4.ip_local_port_range"
        + ("; set net.ipv4.tcp_tw_reuse = 1" if run.hold is None else ""),
    )


def _port_search(run: RunResult) -> Reason | None:
    count = run.client.port_searches
    opened = run.total.attempts if run.hold is None else run.hold.opened + run.hold.reconnects.attempts
    tcp = run.total.phases.get(Phase.TCP)
    median_ms = (run.total.latency if tcp is None else tcp).percentile_ms(50)
    if median_ms is None or count <= _SEARCHED_SHARE * opened or median_ms * SLIP_SHARE > _SEARCH_MS:
        return None
    where = "the latency" if tcp is None else "the phase tcp"
    cures = ["fewer connections to one address, or a wider net.ipv4.ip_local_port_range"]
    if run.hold is not None and run.driver in CHEAPEST:
        cures.insert(0, "several local addresses (--source-ip, repeated)")
    if run.pool is None:
        driver = "" if run.driver in CHEAPEST else f"--driver {cheapest_beside(run.driver)} on "
        cures.insert(0, f"{driver}Linux from 6.3 on, where it has the kernel look in a small range only")
    return Reason(
        ReasonCode.PORT_SEARCH,
        f"For {count:,} connects this machine's kernel searched half of its local ports in vain, as they "
        "are in use to the server's address: 0.5 to 0.8 ms with the default range. That is a part of "
        f"{where} (p50 {format_ms(median_ms)} ms), and it is the client's, not the server's.",
        "; ".join(cures),
    )


def _schedule_slipped(run: RunResult) -> Reason | None:
    if run.rate is None:
        return None
    late_ms, response_ms = run.total.schedule_error.percentile_ms(99), run.total.latency.percentile_ms(99)
    if late_ms is None or late_ms <= _SLIGHT_SLIP_MS:
        return None
    if late_ms <= SATURATED_LAG_P99_MS and late_ms <= SLIP_SHARE * (response_ms or 0.0):
        return None
    has_cheaper = run.driver not in CHEAPEST and run.pool is None
    cheaper = f" --driver {cheapest_beside(run.driver)};" if has_cheaper else ""
    return Reason(
        ReasonCode.SCHEDULE_SLIPPED,
        f"The schedule slipped: the client began operations {format_ms(late_ms)} ms late (p99), "
        "although it had room for them. Response times contain that, so they are an upper bound.",
        f"a lower --rate;{cheaper} or a machine, or a core, that the generator has to itself",
    )


def _rate_not_achieved(run: RunResult) -> Reason | None:
    total = run.total
    if run.rate is None or not total.offered or total.dropped <= _DROPPED_SHARE * total.offered:
        return None
    share = total.dropped / total.offered
    return Reason(
        ReasonCode.RATE_NOT_ACHIEVED,
        f"The offered rate was not achieved: {total.dropped:,} of {total.offered:,} operations that were due "
        f"({share:.1%}) were given up before they were begun, as {run.concurrency:,} were in flight already. "
        "They are missing from the response times, which are too low by them.",
        f"a lower --rate, with which the target keeps up; {'' if run.pool is None else 'a larger --size; '}"
        "or a higher --max-in-flight, to see the queue grow",
    )


def _full_accept_queue(run: RunResult) -> Reason | None:
    if run.pool is not None:
        return None  # whoever waits for a second waits for a connection, not for TCP
    tcp = run.total.phases.get(Phase.TCP)
    steps = syn_steps(run.total.latency if tcp is None else tcp)
    if not steps:
        return None
    if tcp is None:
        where, how_sure = (
            "",
            f"; {run.driver} does not show the phase tcp by itself, which makes this likely only",
        )
    else:
        where, how_sure = " in the phase tcp", ""
    options = "--concurrency or --rate" if run.hold is None else "--open-concurrency or --rate"
    return Reason(
        ReasonCode.FULL_ACCEPT_QUEUE,
        f"{waited_words(steps)}{where}: TCP sent their connection request again, after 1 s and then ever "
        "later (RFC 6298). The server's accept queue was full and dropped the first one, so connections were "
        f"opened faster than the server accepted them{how_sure}.",
        f"a lower {options}; on the server a larger listen backlog (PgBouncer: listen_backlog) and "
        "net.core.somaxconn",
    )


def _warming_up(run: RunResult) -> Reason | None:
    if run.hold is not None or _is_changing(run):
        return None
    transient = warmup_transient(run.total.intervals)
    if transient is None:
        return None
    longer = format_duration(float(ceil(run.warmup_s + transient.seconds)))
    return Reason(
        ReasonCode.WARMUP_NOT_OVER,
        f"The warm-up was not over: in the first {format_duration(round(transient.seconds, 1))} of measuring "
        f"the median latency was {format_ms(transient.from_ms)} ms, then {format_ms(transient.to_ms)} ms. "
        "Both are mixed in the figures.",
        f"--warmup {longer} or longer",
    )


def _few_samples(run: RunResult) -> Reason | None:
    count = run.total.latency.count
    if not count:
        return None  # another reason says so
    # Who holds connections asks how many, not how long the slowest hundredth took to open.
    if run.hold is not None or not is_thin(_SHOWN_PERCENTILE, count):
        return None
    needed = ceil(FEWEST_BEYOND / (1 - _SHOWN_PERCENTILE / 100))
    beyond = count - ceil(count * _SHOWN_PERCENTILE / 100)
    longer = ""
    if run.throughput:
        longer = f", here --duration {format_duration(float(ceil(needed / run.throughput * 1.1)))}"
    return Reason(
        ReasonCode.FEW_SAMPLES,
        f"p99 rests on {count:,} operations, {beyond:,} of them beyond it: the next run would have another.",
        f"{needed:,} operations or more{longer}; or look at lower percentiles only",
    )


def _close_note(run: RunResult) -> Reason | None:
    count = run.total.closed_by_us
    if not count:
        return None
    return Reason(
        NoteCode.CLOSED_BY_US,
        f"{count:,} connections were closed by us: the server did not close them when it was told that they "
        "end. What the connect took counts; a time to close there is none.",
        "ask what stands there whether it frees what it keeps for a client that has left",
    )


def _pause_note(run: RunResult) -> Reason | None:
    if run.hold is not None or run.rate is not None or _is_changing(run):
        return None
    pause = hidden_pause(run)
    if pause is None:
        return None
    length = format_duration(round(pause.seconds, 2))
    return Reason(
        NoteCode.HIDDEN_PAUSE,
        f"The target answered nothing for about {length}. In this closed loop only {pause.shown:,} "
        "operations show it, because workers that wait begin nothing: at the rate of the rest of the run "
        f"about {pause.due:,} would have been due meanwhile. The percentiles hide such pauses.",
        "look at max and at the timeline; load that does not wait for answers (--rate) shows what users feel",
    )
