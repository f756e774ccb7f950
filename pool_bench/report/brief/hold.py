"""The last screen of commands that hold connections."""

from pool_bench.report.brief.headline import verdict_lines
from pool_bench.report.brief.screen import COLUMNS, Brief, Part
from pool_bench.report.summary.addresses import address_lines
from pool_bench.report.summary.generators import generator_lines
from pool_bench.report.summary.hold import (
    drop_lines,
    held_by,
    query_lines,
    reconnect_lines,
    survival_lines,
    verdict,
)
from pool_bench.report.summary.hold_words import latency_words
from pool_bench.report.summary.run import failure_lines, latency_lines, target_lines, wrap
from pool_bench.report.summary.server import format_bytes
from pool_bench.report.summary.unfinished import hanging_words
from pool_bench.report.text import Paint, clean, ellipsize, format_rate
from pool_bench.results.hold import HoldRecord
from pool_bench.results.parts import SummaryRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration, format_ms


def hold_brief(run: RunRecord, *, asked: int, colour: bool = False) -> Brief:
    """The last screen of a run that held connections.

    Args:
        asked: connections the user asked for.
    """
    paint, hold = Paint(colour=colour), held_by(run)
    setting = f"{clean(run.label)} · {run.driver}{' · interrupted' if run.interrupted else ''}"
    opening = latency_lines(run.latency_ms, run.ok, paint, title="connect, ms") if run.ok else []
    remedies = [line for reason in run.judgement.reasons for line in wrap(f"Helps: {reason.remedy}.", "  ")]
    hanging = [paint(line, "yellow") for words in hanging_words(run) for line in wrap(words, "  ")]
    return Brief(
        (
            Part([paint(ellipsize(setting, COLUMNS), "bold"), *_spans(hold)], rank=70),
            Part(opening, rank=60),
            Part(target_lines(run, paint, width=COLUMNS), rank=50, fewest=4, rows="targets"),
            Part(address_lines(run, paint, width=COLUMNS), rank=86, fewest=4, rows="lines"),
            Part(generator_lines(run, paint, width=COLUMNS), rank=84, fewest=3, rows="processes"),
            Part(failure_lines(run, paint, width=COLUMNS), rank=90, fewest=4, rows="lines"),
            Part(hanging, rank=88),
            Part(drop_lines(hold, paint), rank=85, fewest=4, rows="lines"),
            Part(reconnect_lines(hold, paint), rank=55, fewest=3, rows="lines"),
            Part(query_lines(hold, paint), rank=75, fewest=3, rows="lines"),
            Part(survival_lines(hold, paint) if hold.dropped else [], rank=30),
            Part(_costs(run, hold), rank=80),
            Part([paint(line, "dim") for line in remedies], rank=40),
            Part([paint("Details: -v", "dim")], rank=65),
        ),
        _headline(run, hold, asked, paint),
    )


def _spans(hold: HoldRecord) -> list[str]:
    rate = f" ({format_rate(hold.opened / hold.open_s)} conn/s)" if hold.open_s and hold.opened else ""
    held = f" · holding {format_duration(hold.hold_s)}" if hold.hold_s else ""
    forced = f" ({hold.forced:,} forced)" if hold.forced else ""
    closing = f" · closing {format_duration(hold.close_s)}{forced}"
    return wrap(f"opening {format_duration(hold.open_s)}{rate}{held}{closing}", "  ")


def _costs(run: RunRecord, hold: HoldRecord) -> list[str]:
    """What a connection cost the server, a pooler and this client, in one line each."""
    side = run.server_side
    costs = []
    if side is not None and side.used_peak is not None:
        limit = f" of {side.max_connections:,}" if side.max_connections else ""
        costs.append(f"{side.used_peak:,}{limit} slots in use at peak")
    if side is not None and (cost := side.backend_cost_bytes) is not None:
        costs.append(
            f"{format_bytes(cost)} for each further {'connection' if side.one_process else 'backend'}"
        )
    if side is not None and (cost := side.pooler_client_bytes) is not None:
        costs.append(f"PgBouncer {format_bytes(cost)} for each further client")
    if hold.client_bytes_each is not None:
        costs.append(f"this client {format_bytes(hold.client_bytes_each)} for each")
    return wrap(f"server: {', '.join(costs)}", "  ") if costs else []


def _median_and_p99(latency: SummaryRecord) -> str:
    return f"p50 {format_ms(latency.p50)} ms, p99 {format_ms(latency.p99)} ms"


def _headline(run: RunRecord, hold: HoldRecord, asked: int, paint: Paint) -> list[str]:
    whole = hold.held_peak >= asked and not hold.dropped and not run.failed
    style = "green" if whole else "yellow" if hold.held_peak else "red"
    words = [verdict(run, asked=asked)]
    again = hold.reconnects
    if run.ok:
        words.append(f"connect {_median_and_p99(run.latency_ms)}")
    if again.ok:
        words.append(f"reconnect {latency_words(again.latency_ms, again.ok)}")
    if hold.keepalive_ms.p50 is not None:
        words.append(f"keep-alive {_median_and_p99(hold.keepalive_ms)}")
    return [
        *(paint(line, "bold", style) for line in wrap("; ".join(words), "  ")),
        *verdict_lines(run, paint),
    ]
