"""Reasons to doubt a run that lie with its client: it used its core, had none, stood still, or was stopped.

Which of them it was is `RunResult.client_state`, by the kernel's account. Each says what figures still mean.
"""

from typing import Final

from pool_bench.analysis.reasons import NoteCode, Reason, ReasonCode
from pool_bench.stats.client_time import ClientState
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_duration, format_ms

# What a client adds of its own must not be seen in the result.
SLIP_SHARE: Final = 0.1
# This tool's own drivers, for PostgreSQL and for SurrealDB.
CHEAPEST: Final = ("wire", "surreal")


def cheapest_beside(driver: str) -> str:
    """The driver that does what `driver` does for the least CPU time."""
    return "surreal" if driver == "surrealdb" else "wire"


def client_reasons(run: RunResult) -> tuple[Reason | None, ...]:
    """What kept the client from being on time, and whether it was suspended."""
    late = None
    match run.client_state:
        case ClientState.SATURATED:
            late = _saturated(run)
        case ClientState.BLOCKED:
            late = _blocked(run)
        case ClientState.STARVED if not _is_slight(run):
            late = _starved(run)
    return late, _suspended(run), _lost(run)


def _lost(run: RunResult) -> Reason | None:
    lost = [part for part in run.generators if part.lost and not part.worker_lost]
    if not lost:
        return None
    who = "; ".join(f"process {part.number}: {part.lost}" for part in lost)
    return Reason(
        ReasonCode.GENERATOR_LOST,
        f"{len(lost)} of {len(run.generators)} generator processes were lost before the end ({who}). What "
        "they had measured until their last second counts, and the others went on, with less load than was "
        "asked for.",
        "find out who ended them (the out-of-memory killer, a limit of a service manager); measure again",
    )


def _saturated(run: RunResult) -> Reason | None:
    why = run.client_limits
    if why is None:
        return None
    words = [f"{_where(run)}The client was the bottleneck: {why}."]
    if run.worst.is_busy:
        words.append(
            "The rate is what this client can do, not the limit of the target, and the latency is an "
            "upper bound: part of it was spent waiting for the client. "
            "Another concurrency does not change that."
        )
    else:
        own = "" if run.driver in CHEAPEST else f"long work of {run.driver} in its event loop, "
        others = "the embedded server on the same cores" if run.embedded else "other processes"
        words.append(
            f"Something kept the generator waiting ({own}{others}, a stolen or throttled core), "
            "so the latency is an upper bound: part of it was spent waiting for the client."
        )
    return Reason(ReasonCode.CLIENT_SATURATED, " ".join(words), "; or ".join(_cures(run)))


def _where(run: RunResult) -> str:
    return "While opening: " if run.hold is not None else ""


def _cures(run: RunResult) -> list[str]:
    cures = []
    if run.driver not in CHEAPEST and run.pool is None:
        cheapest = cheapest_beside(run.driver)
        cures.append(f"use --driver {cheapest}, which spends a fraction of the CPU on each connection")
    if run.worst.is_busy and run.worst.client.time.cores > run.client.processes:
        cures.append("let more processes generate the load (--processes auto)")
    if run.embedded:
        cures.append(
            "measure a server on another machine (--url), since the embedded one shares this machine's cores "
            f"with the client; or {'fewer clients' if run.pool is not None else 'a lower concurrency'}; "
            "or a machine with more cores"
        )
    else:
        cures.append("run the generator on another machine, or give it a core the server does not use")
    return cures


def _blocked(run: RunResult) -> Reason | None:
    why = run.client_limits
    if why is None:
        return None
    time = run.worst.client.time
    if time.late_running_s >= time.late_standing_s:
        what = f"ran for {_seconds(time.late_running_s)} in all without looking at its sockets"
    else:
        what = f"stood still for {_seconds(time.late_standing_s)} in all, in a call or frozen from outside"
    cures = _cures(run) if run.driver not in CHEAPEST or run.pool is not None else []
    cures.append("look for a debugger, a slow disk or swapping where the client runs")
    return Reason(
        ReasonCode.CLIENT_BLOCKED,
        f"{_where(run)}The client blocked itself: {why}. It did not wait for a core, but {what}. "
        "The latency is an upper bound: part of it was spent waiting for the client.",
        "; or ".join(cures),
    )


def _seconds(seconds: float) -> str:
    return format_duration(max(seconds, 0.001))


def _is_slight(run: RunResult) -> bool:
    """Whether what the client waited for a core is small beside the latency that contains it."""
    lag_ms, latency_ms = run.worst.client.lag.percentile_ms(99), run.total.latency.percentile_ms(99)
    return run.rate is None and lag_ms is not None and lag_ms <= SLIP_SHARE * (latency_ms or 0.0)


def _by(run: RunResult) -> str:
    return f" ({run.starved_by})" if run.starved_by else ""


def _starved(run: RunResult) -> Reason | None:
    why = run.client_limits
    if why is None:
        return None
    client = run.worst.client
    quota = ["a higher CPU quota for the client"] if client.time.throttled_s else []
    return Reason(
        ReasonCode.CLIENT_STARVED,
        f"{_where(run)}The client waited for a core{_by(run)}: {why}, though it used only "
        f"{client.cpu_share:.0%} of one. The rate is what target and client do together on these cores. "
        "The latency is an upper bound: part of it was spent waiting for the client.",
        "; or ".join([*quota, *_cures(run)]),
    )


def starved_note(run: RunResult) -> Reason | None:
    """What the client waited for a core, where that is small beside the latency."""
    if run.client_state is not ClientState.STARVED or not _is_slight(run):
        return None
    lag_ms, latency_ms = run.worst.client.lag.percentile_ms(99), run.total.latency.percentile_ms(99)
    return Reason(
        NoteCode.CLIENT_STARVED,
        f"{_where(run)}The client waited for a core{_by(run)}: of a latency of {format_ms(latency_ms)} ms "
        f"(p99) that is {format_ms(lag_ms)} ms (p99) at most. It does not lower the rate.",
        "; or ".join(_cures(run)),
    )


def _suspended(run: RunResult) -> Reason | None:
    time = run.client.time
    if not time.suspensions:
        return None
    times = "once" if time.suspensions == 1 else f"{time.suspensions:,} times"
    aside = run.total.aside
    set_aside = f", nor are {aside:,} operations that were under way then" if aside else ""
    return Reason(
        ReasonCode.CLIENT_SUSPENDED,
        f"The client was suspended {times}, for {_seconds(time.suspended_s)} in all (Ctrl-Z, SIGSTOP, or "
        f"this machine slept). That time is not in the figures{set_aside}; but the target may have gone on.",
        "measure again without stopping it",
    )
