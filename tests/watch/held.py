"""Connections for a watcher to see, and servers that never answer."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg

from pool_bench.targets import Target, parse_target

Connection = psycopg.Connection[tuple[object, ...]]


def target(url: str) -> Target:
    """A target from a URL and nothing else."""
    return parse_target(url, env={}, default_user="nobody")


@contextmanager
def held(url: str, *, idle: int = 0, active: int = 0, in_transaction: int = 0) -> Iterator[list[Connection]]:
    """Hold connections that are idle, run a query without an end, or are idle in a transaction."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(url, autocommit=True))
            for _ in range(idle + active + in_transaction)
        ]
        for connection in connections[:in_transaction]:
            connection.execute("BEGIN")
        busy = connections[in_transaction : in_transaction + active]
        for connection in busy:
            connection.pgconn.send_query(b"SELECT pg_sleep(600)")
        try:
            yield connections
        finally:
            for connection in busy:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)
                connection.pgconn.finish()


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable"


def unused_url() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"postgresql://someone@127.0.0.1:{port}/db?sslmode=disable"
