"""What the figures of a run that held connections mean, and what helps: sentences for its summary."""

from collections.abc import Sequence

from pool_bench.errors import FailureKind, Phase
from pool_bench.holds import HoldStats
from pool_bench.report.summary import saturation_note
from pool_bench.report.syn_steps import SynStep, syn_steps
from pool_bench.runs import RunResult
from pool_bench.stats import BenchStats
from pool_bench.units import format_duration


def hold_notes(run: RunResult) -> list[str]:
    """One paragraph for each thing the reader should know; none where all is well."""
    hold = run.hold or HoldStats()
    total = run.total
    lacking = {key.kind for stats in (total, hold.reconnects) for key in stats.failures}
    notes = [syn_note(total), *(_remedy(kind) for kind in sorted(lacking))]
    saturated = saturation_note(run)
    if saturated:
        notes.append(f"While opening: {saturated}")
    if total.unfinished:
        notes.append(
            f"{total.unfinished:,} connects were still under way when the run ended: they were given up, "
            "and are neither open nor failed in the figures above."
        )
    if hold.emptied:
        notes.append(
            f"No connection was left after {format_duration(hold.hold_s)} and none could come back, so "
            "holding ended there. --reconnect replaces connections that are dropped."
        )
    if hold.forced:
        notes.append(
            f"{hold.forced:,} connections were cut off at the end, because the server had not ended them "
            "in time."
        )
    return [note for note in notes if note]


def syn_note(total: BenchStats) -> str:
    """What steps of whole seconds in connect latency mean and what to do; "" where there are none."""
    tcp = total.phases.get(Phase.TCP)
    steps = syn_steps(total.latency if tcp is None else tcp)
    if not steps:
        return ""
    phase = "" if tcp is None else " in the phase tcp"
    return (
        f"{waited_words(steps)}{phase}: TCP sent their connection request again, after 1 s and then ever "
        "later (RFC 6298). The server's accept queue was full and dropped the first one, so connections were "
        "opened faster than the server accepted them. What helps: a lower --open-concurrency or --rate; on "
        "the server a larger listen backlog (PgBouncer: listen_backlog) and net.core.somaxconn."
    )


def waited_words(steps: Sequence[SynStep]) -> str:
    """`80 connects waited 1 s, 20 waited 3 s`."""
    first, *others = steps
    return ", ".join(
        [
            f"{first.count:,} connects waited {first.delay_s} s",
            *(f"{step.count:,} waited {step.delay_s} s" for step in others),
        ]
    )


def _remedy(kind: FailureKind) -> str:
    if kind is FailureKind.CLIENT_PORTS:
        return (
            "This machine ran out of local ports for the server's address and port. What helps: connect "
            "from several local addresses (--source-ip, repeated), or widen net.ipv4.ip_local_port_range."
        )
    if kind is FailureKind.CLIENT_FDS:
        return (
            "This process ran out of file descriptors, one for each connection. What helps: a higher hard "
            "limit (ulimit -Hn, LimitNOFILE= of a systemd unit, fs.file-max), or fewer --connections."
        )
    return ""
