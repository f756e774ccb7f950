"""A live pool's figures as they pass: from its statistics, or from its Prometheus metrics, in the same rows.

Rows of several pools stand below each other. Lines have columns without spaces, as those of runs have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pool_bench.errors import PoolBenchError
from pool_bench.report.text import clean, ellipsize

if TYPE_CHECKING:
    from rich.console import RenderableType

_PREFIX: Final = "pool_bench_pool_"
_LONGEST_NAME: Final = 24


class MetricsError(PoolBenchError):
    """Metrics could not be had, or hold no pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLook:
    """The server beside a pool at one moment; None for what cannot be seen from here.

    Attributes:
        ping_ms: a round trip on a connection that does nothing else, milliseconds.
        connections: at the server's port, of all clients.
        cores: busy since the look before, 1.0 for a core.
        memory_mb: of its process (PSS), megabytes of 1,000,000 bytes.
    """

    ping_ms: float | None
    connections: int | None
    cores: float | None
    memory_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """One pool at one moment; None for what its metrics do not say.

    Attributes:
        name, state, health, breaker: as the pool says.
        size, max_size, idle, in_use, waiters: connections and callers now.
        utilisation: leased share of `max_size`, 0 to 1.
        rate: leases a second over the last ten seconds.
        wait_p50_ms, wait_p95_ms, wait_p99_ms: checkout latency since the pool was opened, milliseconds.
        acquisitions, timeouts, connect_errors, leaks: counts since then.
        server: what was seen of the server beside it, None where nobody looked.
    """

    name: str
    state: str
    health: str
    breaker: str
    size: float | None
    max_size: float | None
    idle: float | None
    in_use: float | None
    waiters: float | None
    utilisation: float | None
    rate: float | None
    wait_p50_ms: float | None
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    acquisitions: float | None
    timeouts: float | None
    connect_errors: float | None
    leaks: float | None
    server: ServerLook | None = None


def rows_of_metrics(text: str) -> list[PoolRow]:
    """The pools in a Prometheus text exposition, by name.

    Raises:
        MetricsError: it is no exposition, or holds no pool's metrics.
    """
    from prometheus_client.parser import text_string_to_metric_families

    figures: dict[str, dict[str, float]] = {}
    words: dict[str, dict[str, str]] = {}
    quantiles: dict[str, dict[str, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(_PREFIX):
                continue
            name = family.name.removeprefix(_PREFIX)
            for sample in family.samples:
                pool = sample.labels.get("pool", "")
                state = sample.labels.get(family.name)
                if state is not None:
                    if sample.value:
                        words.setdefault(pool, {})[name] = state
                elif "quantile" in sample.labels:
                    quantiles.setdefault(pool, {})[sample.labels["quantile"]] = sample.value * 1e3
                elif not sample.name.endswith("_created") or name.endswith("_created"):
                    figures.setdefault(pool, {})[name] = sample.value
    except (ValueError, IndexError, KeyError) as error:
        raise MetricsError("what the URL returns are not Prometheus metrics") from error
    if not figures:
        raise MetricsError(f"the metrics hold no pool: nothing in them begins with {_PREFIX}")
    return [
        _row(pool, values, words.get(pool, {}), quantiles.get(pool, {}))
        for pool, values in sorted(figures.items())
    ]


def _row(
    pool: str, values: Mapping[str, float], words: Mapping[str, str], quantiles: Mapping[str, float]
) -> PoolRow:
    return PoolRow(
        name=pool,
        state=words.get("state", "-"),
        health=words.get("health", "-"),
        breaker=words.get("breaker", "-"),
        size=values.get("size"),
        max_size=values.get("max_size"),
        idle=values.get("idle"),
        in_use=values.get("in_use"),
        waiters=values.get("waiters"),
        utilisation=values.get("utilisation"),
        rate=values.get("checkout_rate"),
        wait_p50_ms=quantiles.get("0.5"),
        wait_p95_ms=quantiles.get("0.95"),
        wait_p99_ms=quantiles.get("0.99"),
        acquisitions=values.get("acquisitions"),
        timeouts=values.get("timeouts"),
        connect_errors=values.get("connect_errors"),
        leaks=values.get("leaks"),
    )


HEADS: Final = (
    ("pool", 12),
    ("state", 8),
    ("health", 8),
    ("size", 7),
    ("idle", 5),
    ("in_use", 6),
    ("waiters", 7),
    ("use%", 5),
    ("leases/s", 9),
    ("p50_ms", 8),
    ("p99_ms", 8),
    ("timeouts", 8),
    ("errors", 6),
    ("leaks", 5),
    ("breaker", 9),
)
# Behind them where somebody looks at the server too.
SERVER_HEADS: Final = (("ping_ms", 8), ("conns", 5), ("srv_cpu", 7), ("srv_MB", 6))


# What a narrow terminal does without, in this order; what is left tells whether something is wrong.
_SPARED: Final = (
    "use%",
    "leaks",
    "p50_ms",
    "srv_MB",
    "idle",
    "breaker",
    "conns",
    "srv_cpu",
    "leases/s",
    "state",
    "p99_ms",
    "timeouts",
    "health",
)


def cells(row: PoolRow) -> list[str]:
    """The row's cells, in the order of `heads`; `-` for what is not known."""
    size = "-" if row.size is None else f"{row.size:.0f}"
    most = "" if row.max_size is None else f"/{row.max_size:.0f}"
    return [
        clean(row.name).replace(" ", "_") or "-",
        clean(row.state) or "-",
        clean(row.health) or "-",
        size + most,
        _count(row.idle),
        _count(row.in_use),
        _count(row.waiters),
        "-" if row.utilisation is None else f"{row.utilisation * 100:.0f}",
        _count(row.rate),
        _ms(row.wait_p50_ms),
        _ms(row.wait_p99_ms),
        _count(row.timeouts),
        _count(row.connect_errors),
        _count(row.leaks),
        clean(row.breaker) or "-",
        *_server_cells(row.server),
    ]


def _server_cells(seen: ServerLook | None) -> list[str]:
    if seen is None:
        return []
    cores = "-" if seen.cores is None else f"{seen.cores:.2f}"
    return [_ms(seen.ping_ms), _count(seen.connections), cores, _count(seen.memory_mb)]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def heads(row: PoolRow) -> tuple[tuple[str, int], ...]:
    """Names and widths of the columns of a row."""
    return HEADS if row.server is None else HEADS + SERVER_HEADS


def header(row: PoolRow) -> str:
    """Names of the columns of `line`."""
    return " ".join(name.rjust(width) for name, width in heads(row))


def line(row: PoolRow) -> str:
    """One row as one line."""
    return " ".join(cell.rjust(width) for cell, (_, width) in zip(cells(row), heads(row), strict=True))


def picture(
    rows: Sequence[PoolRow], width: int, title: str, trouble: str = "", *, outdated: bool = False
) -> "RenderableType":
    """The rows for a terminal of `width` columns, in lines that are never wrapped.

    Args:
        trouble: what is wrong, said below the rows.
        outdated: whether the rows are from before that.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = [cells(row) for row in rows]
    for line in drawn:
        line[0] = ellipsize(line[0], _LONGEST_NAME)
    names = [name for name, _ in (heads(rows[0]) if rows else HEADS)]
    shown = _fitting(names, drawn, width)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for index in shown:
        table.add_column(names[index], justify="left" if index < 3 else "right", no_wrap=True)
    for row, line in zip(rows, drawn, strict=True):
        style = "dim" if outdated else "red" if row.health == "critical" else "yellow" if row.waiters else ""
        table.add_row(*(line[index] for index in shown), style=style)
    parts: list[RenderableType] = [
        Text(ellipsize(clean(title), width - 1), style="bold", no_wrap=True),
        table,
    ]
    if trouble:
        parts.append(Text(ellipsize(clean(trouble), width - 1), style="red", no_wrap=True))
    return Group(*parts)


def _fitting(names: Sequence[str], drawn: Sequence[Sequence[str]], width: int) -> list[int]:
    """Which columns there is room for, by their index in `names`."""
    widths = {
        name: max(len(name), *(len(line[index]) for line in drawn)) if drawn else len(name)
        for index, name in enumerate(names)
    }
    spared = [name for name in _SPARED if name in widths]
    while spared and sum(widths.values()) + len(widths) - 1 > width - 1:
        del widths[spared.pop(0)]
    return [index for index, name in enumerate(names) if name in widths]
