"""Keeps connections that are held from the slots that a PostgreSQL reserves for its operators, and more."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pool_bench.cli.status import notify
from pool_bench.errors import PoolBenchError
from pool_bench.targets.postgres import Host, PostgresTarget
from pool_bench.watch.postgres.slots import Slots, guard_note, look_at_slots, room


def look_at_servers(
    targets: Sequence[PostgresTarget], timeout_s: float
) -> dict[tuple[Host, ...], Slots | None]:
    """The slots of each server; blocks for `timeout_s` seconds at most for each."""
    slots: dict[tuple[Host, ...], Slots | None] = {}
    for target in targets:
        if target.hosts not in slots:
            slots[target.hosts] = look_at_slots(target, timeout_s)
    return slots


def respect_reserved_slots(
    targets: Sequence[PostgresTarget],
    shares: Sequence[int],
    looks: Mapping[tuple[Host, ...], Slots | None],
    *,
    watched: bool = True,
) -> tuple[int, ...]:
    """Lower `shares` so that every server keeps its reserved slots, and five more, free; says so.

    Args:
        targets: where to; several of them may be the same server.
        shares: connections to each of `targets`.
        looks: what `look_at_servers` gave.
        watched: one more slot is for the watcher.

    Raises:
        PoolBenchError: no connection may be opened at all.
    """
    asked: Counter[tuple[Host, ...]] = Counter()
    for target, share in zip(targets, shares, strict=True):
        asked[target.hosts] += share
    allowed = dict(asked)
    notes = []
    for hosts, count in asked.items():
        slots = looks[hosts]
        free = None if slots is None else room(slots, count, watched=watched)
        if free is not None:
            allowed[hosts] = free
        note = guard_note(slots, count, watched=watched)
        if note is not None:
            notes.append(note)
    kept = []
    for target, share in zip(targets, shares, strict=True):
        kept.append(min(share, allowed[target.hosts]))
        allowed[target.hosts] -= kept[-1]
    if not any(kept):
        raise PoolBenchError("; ".join(notes))
    for note in notes:
        notify(note)
    return tuple(kept)
