"""What this client costs by itself, as a table."""

from typing import Final

from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, format_rate, table
from pool_bench.stats.calibration import Calibration
from pool_bench.units import format_duration, format_ms

_BUSY: Final = 0.9
_BUSY_SERVER: Final = "! the null server was busy itself: the client can do more than this row shows"
_MEANING: Final = (
    "p50 with one worker is what this client and the kernel add to each operation; conn/s is the most it can "
    "do with that many workers. us CPU: the client's for each operation; client, server: CPU of one core."
)


def calibration_table(calibration: Calibration, *, colour: bool = False) -> str:
    """One row for each driver and concurrency.

    Returns:
        Lines of at most 80 columns, without a line break at the end; "" where nothing was measured.
    """
    if not calibration.floors:
        return ""
    paint = Paint(colour=colour)
    rows = [["driver", "workers", "conn/s", "p50 ms", "p99 ms", "max ms", "us CPU", "client", "server"]]
    for floor in calibration.floors:
        p50, p99, top = floor.latency.percentiles_ms((50, 99, 100))
        rows.append(
            [
                floor.driver,
                f"{floor.concurrency:,}",
                format_rate(floor.throughput),
                *map(format_ms, (p50, p99, top)),
                "-" if floor.cpu_us_per_op is None else f"{floor.cpu_us_per_op:,.0f}",
                f"{floor.client_cpu_share:.0%}",
                f"{floor.server_cpu_share:.0%}{' !' if floor.server_cpu_share > _BUSY else ''}",
            ]
        )
    drawn = table(rows)
    about = f"{calibration.operation}; {format_duration(calibration.seconds)} each"
    lines = [
        paint("calibration: this client against a server that answers at once", "bold"),
        *(paint(line, "dim") for line in wrap(about, "  ")),
        paint(drawn[0], "bold"),
        *drawn[1:],
        *wrap(_MEANING, "  "),
    ]
    if any(floor.server_cpu_share > _BUSY for floor in calibration.floors):
        lines.append(_BUSY_SERVER)
    failed = sum(floor.failed for floor in calibration.floors)
    if failed:
        lines.append(paint(f"{failed:,} operations failed even so", "red"))
    return "\n".join(lines)
