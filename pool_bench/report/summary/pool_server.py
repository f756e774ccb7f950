"""What the server went through under each of several pools, or sizes of one, in plain text."""

from collections.abc import Sequence
from typing import Final

from pool_bench.compare.pool_server import PoolServer, server_of
from pool_bench.compare.pools import PoolComparison, PoolRounds
from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, clean, table
from pool_bench.units import format_duration

# Of what the verdict on the client does not say itself.
_SHORT: Final = {
    "server": "the server",
    "pooler": "the pooler",
    "pool": "the pooler's pool",
    "slots": "the server's slots",
    "machine": "this machine",
    "neither": "the pool's size, locks or the network",
}


def pool_server_lines(what: str, groups: Sequence[tuple[str, PoolRounds]], paint: Paint) -> list[str]:
    """A table with a row for each group, and what limited it; none where nobody looked.

    Args:
        what: heads the names of the groups.
    """
    seen = [(name, server) for name, group in groups if (server := server_of(group.runs)) is not None]
    if not seen:
        return []
    pooled = any(server.waiting is not None for _, server in seen)
    head = [what, "server cores", "machine", "connections", "active"]
    rows = [[*head, "pooler cores", "waiting", "longest"] if pooled else head]
    for name, server in seen:
        of = "" if server.slots is None else f" of {server.slots:,}"
        row = [
            name,
            _cores(server.cpu.server),
            f"{_cores(server.cpu.machine)} of {server.cores}",
            f"{server.connections:,}{of}",
            f"{server.active:,}",
        ]
        rows.append([*row, *_pooler(server)] if pooled else row)
    drawn = table(rows)
    lines = [paint("server, the rounds together", "bold"), paint(drawn[0], "bold"), *drawn[1:]]
    for name, server in seen:
        lines += wrap(f"  {name}: {server.limit.words}", "    ")
    notes = dict.fromkeys(note for _, server in seen for note in server.notes)
    return [*lines, *(paint(line, "dim") for note in notes for line in wrap(f"  {clean(note)}", "    "))]


def _cores(cores: float | None) -> str:
    return "-" if cores is None else f"{cores:.2f}"


def _pooler(server: PoolServer) -> tuple[str, str, str]:
    waiting = "-" if server.waiting is None else f"{server.waiting:,}"
    waited = format_duration(server.waited_us / 1e6) if server.waited_us else "-"
    return _cores(server.cpu.pooler), waiting, waited


def limits(contests: Sequence[PoolComparison], client: str) -> str:
    """What limited which pools: `limit: this machine with psycopg (query)`; "" where nothing is known.

    Args:
        client: the same of those that the client limited.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for contest in contests:
        for group in contest.groups:
            server = server_of(group.runs)
            if server is not None and (words := _SHORT.get(server.limit.what)) is not None:
                found.setdefault(words, {}).setdefault(group.pool, []).append(contest.label)
    loads = len(contests)
    parts = []
    for words, pools in found.items():
        names = [
            pool if len(where) == loads else f"{pool} ({', '.join(map(clean, where))})"
            for pool, where in pools.items()
        ]
        parts.append(f"{words} with {', '.join(names)}")
    if not parts:
        return client
    return f"{client or 'limit:'}{'; ' if client else ' '}{'; '.join(parts)}"


def size_limit(groups: Sequence[tuple[int, PoolRounds]], knee: int | None) -> str:
    """What limited the size that is recommended, else the largest, in words; "" where that is not known."""
    by_size = dict(groups)
    size = knee if knee in by_size else groups[-1][0]
    server = server_of(by_size[size].runs)
    if server is None or server.limit.what not in _SHORT:
        return ""
    return f"at size {size:,} {server.limit.words}"
