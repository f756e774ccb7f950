"""What the lines, the terminal view and the summary of held connections say in the same words."""

from collections.abc import Iterable
from typing import Final

from pool_bench.analysis.verdict import is_thin
from pool_bench.errors import FailureKind, Phase
from pool_bench.report.text import clean
from pool_bench.results.hold import DropRecord
from pool_bench.results.parts import FailureRecord, SummaryRecord, failures_of
from pool_bench.stats.operations import BenchStats
from pool_bench.units import format_duration, format_ms

_MOST_KINDS: Final = 3

# Who ended a connection, and why, as far as its end shows it.
_ENDS: Final[dict[str, str]] = {
    FailureKind.SERVER_SHUTDOWN: "closed by the server: shutdown, or an operator (pg_terminate_backend)",
    FailureKind.SERVER_STARTING: "closed by the server: it was starting or recovering",
    FailureKind.IDLE_TIMEOUT: "closed by the server: idle for longer than it allows (idle timeout)",
    FailureKind.TOO_MANY_CONNECTIONS: "closed by the server: too many connections",
    FailureKind.AUTH: "closed by the server: it no longer accepts this user",
    FailureKind.CLOSED: "closed by the server, pooler or proxy without a word (FIN)",
    FailureKind.RESET: "reset (RST) by the server or by something on the way, such as a proxy or firewall",
    FailureKind.TLS: "given up: what arrived was no valid TLS",
    FailureKind.PROTOCOL: "given up: what arrived broke the protocol",
}
_BY_SQLSTATE: Final = {
    "57P02": "closed by the server: one of its processes crashed, so it ended all sessions",
    "57P05": "closed by the server: idle_session_timeout",
    "25P03": "closed by the server: idle_in_transaction_session_timeout",
}


def who_and_why(drop: DropRecord) -> str:
    """Who ended a dropped connection and why, in words."""
    if drop.sqlstate is not None and drop.sqlstate in _BY_SQLSTATE:
        return _BY_SQLSTATE[drop.sqlstate]
    if drop.kind == FailureKind.TIMEOUT and not drop.sqlstate:
        if drop.phase == Phase.QUERY:
            return "given up by this client: a query had no answer in time"
        return "given up by the network: the other end no longer answers"
    known = _ENDS.get(drop.kind)
    if known is not None:
        return known
    return "closed by the server: it sent an error" if drop.sqlstate else "ended for another reason"


def kinds_words(failures: Iterable[FailureRecord]) -> str:
    """`too_many_connections (53300) 403, refused 2 and 1 more kind`; "" where nothing failed.

    Phases are left out: failures of one kind and SQLSTATE count together.
    """
    counts: dict[tuple[str, str], int] = {}
    for failure in failures:
        sort = (failure.kind, clean(failure.sqlstate or ""))
        counts[sort] = counts.get(sort, 0) + failure.count
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [
        f"{kind} ({sqlstate}) {count:,}" if sqlstate else f"{kind} {count:,}"
        for (kind, sqlstate), count in ranked[:_MOST_KINDS]
    ]
    more = len(ranked) - _MOST_KINDS
    if more > 0:
        return f"{', '.join(words)} and {more} more {'kind' if more == 1 else 'kinds'}"
    return ", ".join(words)


def latency_words(latency: SummaryRecord, count: int) -> str:
    """`p50 45.6 ms, p90 70.1 ms, max 75.0 ms`: the percentiles that enough values are beyond; "" of none."""
    if not count:
        return ""
    known = ((50, latency.p50), (90, latency.p90), (99, latency.p99))
    words = [f"p{name} {format_ms(value)} ms" for name, value in known if not is_thin(name, count)]
    words.append(f"max {format_ms(latency.max)} ms")
    return ", ".join(words)


def holding_words(asked: int, held: int, opening: BenchStats, gave_up_s: float = 0.0) -> str:
    """The plain truth once opening is over: `asked 500, holding 97: too_many_connections (53300) 403`.

    Args:
        gave_up_s: as in `HoldStats`.
    """
    reasons = [words for words in (gave_up_words(gave_up_s), kinds_words(failures_of(opening))) if words]
    why = ", ".join(reasons)
    return f"asked {asked:,}, holding {held:,}{f': {why}' if why else ''}"


def gave_up_words(gave_up_s: float) -> str:
    """`gave up, none opened in 1m (--give-up)`; "" where opening was not given up."""
    if not gave_up_s:
        return ""
    return f"gave up, none opened in {format_duration(float(round(gave_up_s, 1)))} (--give-up)"
