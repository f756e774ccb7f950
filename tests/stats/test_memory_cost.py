"""Memory for each connection is said only where enough of them stand behind it, and is never negative."""

import pytest

from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.memory_cost import client_cost_each, server_cost_each
from pool_bench.stats.server import PoolerMemory, ServerMemory, ServerObservation

MB = 1 << 20


@pytest.mark.parametrize(
    ("grown", "further", "each"),
    [(-3 * MB, 100, None), (0, 100, None), (40 * MB, 6, None), (MB - 1, 500, None), (40 * MB, 20, 2 * MB)],
)
def test_a_server_costs_what_many_backends_show(grown: int, further: int, each: int | None) -> None:
    assert server_cost_each(grown, further) == each


@pytest.mark.parametrize(
    ("grown", "held", "each"), [(-MB, 1000, None), (MB, 6, None), (1000, 500, None), (MB, 1024, 1024.0)]
)
def test_a_client_costs_what_many_connections_show(grown: int, held: int, each: float | None) -> None:
    assert client_cost_each(grown, held) == each


def test_a_server_whose_memory_shrank_meanwhile_has_no_cost() -> None:
    side = ServerObservation()
    for when, total, backends in (("before", 90 * MB, 0), ("peak", 60 * MB, 100)):
        side.memory[when] = ServerMemory(
            processes=9 + backends, total_bytes=total, backends=backends, idle_backend_bytes=None, sampled=9
        )
    assert side.backend_cost_bytes is None


def test_six_held_connections_show_no_cost_of_one() -> None:
    held = HoldStats(base_rss_bytes=40 * MB, held_rss_bytes=44 * MB)
    held.intervals.append(HoldInterval(1.0, 1.0, "hold", 6, 6, 6, 0, 0))
    assert held.client_bytes_each is None


def test_a_poolers_clients_cost_what_many_of_them_show() -> None:
    side = ServerObservation()
    for when, total, clients in (("before", 3 * MB, 0), ("peak", 5 * MB, 1024)):
        side.pooler_memory[when] = PoolerMemory(processes=1, total_bytes=total, clients=clients)
    assert side.pooler_client_bytes == 2048
