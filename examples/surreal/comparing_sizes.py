"""Compare sizes of the SurrealDB pool: the same load on each, three rounds in turn.

    uv run python examples/surreal/comparing_sizes.py [URL USER PASSWORD]

Without a URL it starts the embedded SurrealDB, and removes it at the end. `surreal-bench size` does this
for other loads, in a process of its own and with everything that a benchmark has to look after; here client
and pool share this one, which is enough to see that more connections are not always faster.
"""

import asyncio
import sys
from statistics import median, quantiles
from time import perf_counter

from pool_bench.servers import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool

SIZES, CLIENTS, ROUNDS, SECONDS = (1, 4, 16), 50, 3, 0.5


async def measure(size: int, url: str, user: str, password: str) -> tuple[float, float]:
    """Queries a second, and p99 of a query with its wait for a connection, milliseconds."""
    took_s: list[float] = []
    async with SurrealDBConnectionPool(
        url,
        {"username": user, "password": password},
        "example",
        "example",
        min_connections=size,
        max_connections=size,
        acquisition_timeout=60.0,
    ) as pool:
        end = perf_counter() + SECONDS

        async def client() -> None:
            while (asked := perf_counter()) < end:
                await pool.execute_query("RETURN 1")
                took_s.append(perf_counter() - asked)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(took_s) / SECONDS, quantiles(took_s, n=100)[-1] * 1000


def compare(url: str, user: str, password: str) -> None:
    """Measure all in turn, in changing order, and print medians."""
    figures: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for round_ in range(ROUNDS):
        for size in SIZES if round_ % 2 == 0 else reversed(SIZES):
            figures[size].append(asyncio.run(measure(size, url, user, password)))
    print(f"{CLIENTS} clients, median of {ROUNDS} rounds")
    for size, rounds in figures.items():
        rate, p99_ms = (median(column) for column in zip(*rounds, strict=True))
        print(f"{size:3} connections {rate:8,.0f} queries/s   p99 {p99_ms:7.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare(*sys.argv[1:4])
    else:
        with EmbeddedSurreal() as server:
            compare(server.url, server.user, server.password)
