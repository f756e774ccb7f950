"""Walls that are said before a run: where there is room nothing is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.analysis.walls_ahead import Asked, walls_ahead
from pool_bench.stats.walls import AcceptQueue, Evidence, ServerProcess, Use


def seen(**changes: object) -> Evidence:
    return Evidence(**({"held": 0, "in_flight": 0} | changes))  # type: ignore[arg-type]


def asked(connections: int, at_once: int = 0, servers: int = 1) -> Asked:
    return Asked(connections=connections, at_once=at_once, option="--batch-size", servers=servers)


@pytest.mark.parametrize(
    ("limit", "somaxconn", "cure"),
    [
        (128, 4096, "PgBouncer: listen_backlog"),
        (128, 128, "raise net.core.somaxconn"),
        (128, None, "backlog"),
    ],
)
def test_more_connects_at_once_than_an_accept_queue_takes(
    limit: int, somaxconn: int | None, cure: str
) -> None:
    queue = AcceptQueue("port 6432", 0, limit)
    (line,) = walls_ahead(asked(1000, limit + 2), seen(queues=[queue]), somaxconn=somaxconn)
    assert f"port 6432 has room for 128, but {limit + 2} connects may begin at once (--batch-size)" in line
    assert cure in line
    # Linux takes one more than its size.
    assert walls_ahead(asked(1000, limit + 1), seen(queues=[queue]), somaxconn=somaxconn) == []
    assert walls_ahead(asked(1000, 0), seen(queues=[queue])) == []


def test_several_sockets_on_a_port_share_what_comes() -> None:
    queues = [AcceptQueue("port 6432", 0, 128)] * 4
    assert walls_ahead(asked(1000, 400), seen(queues=queues)) == []
    assert len(walls_ahead(asked(1000, 600), seen(queues=queues))) == 1


def test_more_connections_than_a_server_has_descriptors_for() -> None:
    process = ServerProcess("pgbouncer", 4711, Use(1024, 24))
    (line,) = walls_ahead(asked(1001), seen(processes=[process]))
    assert "pgbouncer (process 4711) may have 1,024 descriptors, 24 are in use: 1,001" in line
    assert walls_ahead(asked(1000), seen(processes=[process])) == []
    forking = ServerProcess("postgres", 4711, Use(1024, 24), forks=True)
    assert walls_ahead(asked(5000), seen(processes=[forking])) == []
    assert walls_ahead(asked(5000), seen(processes=[ServerProcess("hidden", 1)])) == []


def test_more_connections_than_pgbouncer_has_room_for() -> None:
    (line,) = walls_ahead(asked(98), seen(clients=Use(100, 3)))
    assert line == "PgBouncer's max_client_conn is 100, 3 are there: 98 connections do not fit"
    assert walls_ahead(asked(97), seen(clients=Use(100, 3))) == []
    # Spread over two servers each gets half.
    assert walls_ahead(asked(194, servers=2), seen(clients=Use(100, 3))) == []


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 9))
def test_where_nothing_is_seen_nothing_is_said(connections: int, at_once: int, servers: int) -> None:
    assert walls_ahead(asked(connections, at_once, servers), seen()) == []
