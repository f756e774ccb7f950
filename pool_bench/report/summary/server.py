"""What was seen of the server during a run, in plain text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, clean, ellipsize, table
from pool_bench.results.server import ServerMemoryRecord, ServerSampleRecord, ServerSideRecord
from pool_bench.units import format_duration

_POOL_COUNTS: Final = ("cl_", "sv_")
# In the order in which people ask for them; further ones come after.
_WHEN: Final[tuple[str, ...]] = ("before", "during", "peak", "after")


def format_bytes(count: float) -> str:
    """`850 B`, `1.8 KB`, `1.9 MB`, `12 GB`: powers of 1024, two digits or more that mean something."""
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if abs(size) < 1023.5:
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.5 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.3g} GB" if abs(size) < 99.5 else f"{size:,.0f} GB"


def server_lines(side: ServerSideRecord | None, paint: Paint, first: Sequence[str] = ()) -> list[str]:
    """Slots, backends by state, pools and memory, and what could not be seen; none where nobody looked.

    Args:
        first: lines to put before them.
    """
    if side is None:
        return []
    lines = [*first, *_sessions(side), *_slots(side), *_busiest(side), *_memory(side), *_pooler_memory(side)]
    notes = [line for note in side.notes for line in wrap(f"  {clean(note)}", "    ")]
    if not lines and not notes:
        return []
    return [paint("server", "bold"), *lines, *(paint(note, "dim") for note in notes)]


def _slots(side: ServerSideRecord) -> list[str]:
    lines = []
    if side.used_peak is not None:
        limit = f" of {side.max_connections:,} slots (max_connections)" if side.max_connections else " slots"
        reserved = [
            f"{count:,} {words}"
            for count, words in (
                (side.superuser_reserved, "reserved for superusers"),
                (side.reserved, "reserved for pg_use_reserved_connections"),
            )
            if count
        ]
        words = f", {' and '.join(reserved)}" if reserved else ""
        lines.append(f"  in use at peak {side.used_peak:,}{limit}{words}")
    around = [
        f"{count:,} {when}"
        for count, when in ((side.in_use_before, "before the run"), (side.in_use_after, "after it"))
        if count is not None
    ]
    if around:
        lines.append(f"  client connections: {', '.join(around)}")
    return lines


def _sessions(side: ServerSideRecord) -> list[str]:
    counters = dict(side.sessions)
    begun = counters.pop("sessions", None)
    if begun is None:
        return []
    ends = "".join(f", {count:,} {clean(name)}" for name, count in counters.items() if count)
    begun_by = " begun by the pooler" if side.pooled else ""
    return [f"  sessions{begun_by} from before the run to after it: {begun:,}{ends}"]


def pool_counts(pools: Mapping[str, int]) -> dict[str, int]:
    """Clients and servers of PgBouncer's pools by state; other figures of `SHOW POOLS` are no counts."""
    return {name: count for name, count in pools.items() if name.startswith(_POOL_COUNTS)}


def busiest(seconds: Sequence[ServerSampleRecord]) -> ServerSampleRecord | None:
    """The look with the most backends and pool members; None without a look."""
    return max(
        seconds,
        key=lambda look: sum(look.states.values()) + sum(pool_counts(look.pools).values()),
        default=None,
    )


def _busiest(side: ServerSideRecord) -> list[str]:
    look = busiest(side.timeline)
    if look is None:
        return []
    lines = []
    for title, counts in (
        (f"{_served(side)}s at peak", look.states),
        ("PgBouncer pools at peak", pool_counts(look.pools)),
        ("PgBouncer lists at peak", look.lists),
    ):
        known = sorted(
            ((count, ellipsize(clean(name), 30)) for name, count in counts.items() if count), reverse=True
        )
        if known:
            words = ", ".join(f"{name} {count:,}" for count, name in known)
            lines += wrap(f"  {title}: {words}", "    ")
    waited_us = max(second.pools.get("maxwait_us", 0) for second in side.timeline)
    if waited_us:
        waited = format_duration(waited_us / 1e6)
        lines.append(f"  longest wait for a server connection in PgBouncer: {waited}")
    return lines


def _memory(side: ServerSideRecord) -> list[str]:
    if not side.memory:
        return []
    rows = [["  memory (PSS)", "processes", "total", f"{_served(side)}s"]]
    if not side.one_process:
        rows[0].append("each idle backend")
    for when in _in_order(side.memory):
        memory = side.memory[when]
        cells = [f"{memory.processes:,}", format_bytes(memory.total_bytes), f"{memory.backends:,}"]
        if not side.one_process:
            each = memory.idle_backend_bytes
            cells.append("-" if each is None else format_bytes(each))
        rows.append([f"    {ellipsize(clean(when), 30)}", *cells])
    lines = table(rows)
    if any(_is_sample(memory) for memory in side.memory.values()):
        at_most = max(memory.sampled for memory in side.memory.values() if _is_sample(memory))
        lines.append(f"    totals are scaled up from {at_most:,} processes looked at")
    cost = side.backend_cost_bytes
    if cost is not None:
        lines.append(f"  each further {_served(side)} cost the server {format_bytes(cost)}")
    return lines


def _served(side: ServerSideRecord) -> str:
    """What is counted at the server, where one is."""
    return "connection" if side.one_process else "backend"


def _pooler_memory(side: ServerSideRecord) -> list[str]:
    if not side.pooler_memory:
        return []
    name = clean(side.pooler_name)
    rows = [[f"  memory of {name} (PSS)", "processes", "total", "clients"]]
    for when in _in_order(side.pooler_memory):
        memory = side.pooler_memory[when]
        cells = (f"{memory.processes:,}", format_bytes(memory.total_bytes), f"{memory.clients:,}")
        rows.append([f"    {ellipsize(clean(when), 30)}", *cells])
    lines = table(rows)
    cost = side.pooler_client_bytes
    if cost is not None:
        lines.append(f"  each further client connection cost {name} {format_bytes(cost)}")
    return lines


def _in_order(measured: Iterable[str]) -> list[str]:
    """When memory was measured, first things first."""
    return sorted(measured, key=lambda when: _WHEN.index(when) if when in _WHEN else len(_WHEN))


def _is_sample(memory: ServerMemoryRecord) -> bool:
    return memory.sampled < memory.processes
