"""Connections for a watcher to see, and servers that never answer."""

import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import psycopg

from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget, parse_target

Connection = psycopg.Connection[tuple[object, ...]]


def target(url: str) -> PostgresTarget:
    """A target from a URL and nothing else."""
    return parse_target(url, env={}, default_user="nobody")


_ENDLESS = b"DO $$ BEGIN RAISE NOTICE 'begun'; PERFORM pg_sleep(600); END $$"
_PATIENCE_S = 30.0


def await_true(condition: Callable[[], bool]) -> None:
    """Wait, for a bounded time, until something holds that nothing tells us of."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def clients(server: EmbeddedPostgres) -> list[psutil.Process]:
    """The client backends of a server, seen without connecting to it."""
    found = []
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.Error):
            # A backend leaves pg_stat_activity before its process ends.
            title = " ".join(child.cmdline())
            if "127.0.0.1(" in title or "[local]" in title:
                found.append(child)
    return found


def _await_notice(connection: Connection) -> None:
    notices: list[bytes] = []
    connection.pgconn.notice_handler = lambda result: notices.append(result.error_message)
    deadline = time.monotonic() + _PATIENCE_S
    while not notices:
        assert select.select([connection.fileno()], [], [], deadline - time.monotonic())[0]
        connection.pgconn.consume_input()
        connection.pgconn.is_busy()


@contextmanager
def held(
    url: str, *, idle: int = 0, active: int = 0, in_transaction: int = 0, begun: bool = True
) -> Iterator[list[Connection]]:
    """Hold connections that are idle, run a query without an end, or are idle in a transaction.

    Args:
        begun: wait until all those queries run.
    """
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(url, autocommit=True))
            for _ in range(idle + active + in_transaction)
        ]
        for connection in connections[:in_transaction]:
            connection.execute("BEGIN")
        busy = connections[in_transaction : in_transaction + active]
        for connection in busy:
            connection.pgconn.send_query(_ENDLESS)
        try:
            if begun:
                for connection in busy:
                    _await_notice(connection)
            yield connections
        finally:
            # The server notices, by client_connection_check_interval.
            for connection in busy:
                connection.pgconn.finish()


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"postgresql://someone@127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable"


def quiet_port() -> int:
    """A free port that the system hands out to nobody, so that no other end of a connection has it."""
    while True:
        port = random.randint(10_000, 19_999)
        with suppress(OSError), socket.socket(socket.AF_INET6) as one:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.bind(("::", port))
            return port


def unused_url() -> str:
    """A URL at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"postgresql://someone@127.0.0.1:{port}/db?sslmode=disable"
