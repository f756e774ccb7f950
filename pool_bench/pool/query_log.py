"""Queries that the pool runs for a caller, with a log of their times."""

import asyncio
import logging
import math
import re
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C, as_executable
from pool_bench.pool.lease import Lease

_LOGGER: Final = logging.getLogger("pool_bench.pool.queries")
_LONGEST: Final = 500
# What must be told apart to find literals, which is where passwords are (ALTER ROLE ... PASSWORD '...').
# Where the server's settings or nesting decide how far one goes, it is taken to go to the end.
_TOKEN: Final = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*(?:(?!/\*).)*?\*/ )
    | (?P<name> "[^"]*" )
    | '(?:[^'\\]|''|\\[^'])*'(?!')
    | (?P<tag>\$(?:[^\W\d]\w*)?\$) .*? (?P=tag)
    | (?:'|"|/\*|\$(?:[^\W\d]\w*)?\$) .* \Z
    """,
    re.DOTALL | re.VERBOSE,
)
# What may be a regular expression with a quote in it is taken to go to the end.
_SURREALQL_TOKEN: Final = re.compile(
    r"""
      (?P<comment> (?:--|//|\#)[^\n]* | /\*.*?\*/ )
    | (?P<name> `(?:[^`\\]|\\.)*` | ⟨(?:[^⟩\\]|\\.)*⟩ )
    | '(?:[^'\\]|\\.)*'
    | "(?:[^"\\]|\\.)*"
    | (?:'|"|`|⟨|/\*|/(?=[^/\n]*['"][^\n]*/)) .* \Z
    """,
    re.DOTALL | re.VERBOSE,
)


def shown(sql: str) -> str:
    """A query as it may be logged: in one line, bounded, without its literals."""
    return _in_one_line(_TOKEN.sub(_without_literals, sql))


def shown_surrealql(query: str) -> str:
    """The same for SurrealQL, in which double quotes are those of a literal, too."""
    return _in_one_line(_SURREALQL_TOKEN.sub(_without_literals, query))


def _in_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _without_literals(token: re.Match[str]) -> str:
    if token["name"] is not None:
        return token[0]
    return " " if token["comment"] is not None else "'…'"


async def run_query(name: str, config: PoolConfig, lease: Lease[C], sql: str, timeout_s: float) -> object:
    """Take `lease`, execute, give back, log."""
    began_ns = perf_counter_ns()
    leased_ns = began_ns
    outcome = "failed"
    try:
        async with lease as conn:
            leased_ns = perf_counter_ns()
            target = as_executable(conn, "execute_query")
            left_s = timeout_s - (leased_ns - began_ns) / 1e9
            async with asyncio.timeout(None if math.isinf(timeout_s) else left_s) as limit:
                result = await target.execute(sql)
        outcome = "ok"
        return result
    except TimeoutError as error:
        if leased_ns != began_ns and limit.expired():
            raise TimeoutError(f"pool {name}: the query did not end within {timeout_s:g} s") from error
        raise
    finally:
        log_query(name, config, sql, outcome, leased_ns - began_ns, perf_counter_ns() - leased_ns)


def log_query(
    name: str,
    config: PoolConfig,
    sql: str,
    outcome: str,
    wait_ns: int,
    run_ns: int,
    *,
    show: Callable[[str], str] = shown,
) -> None:
    """Log a query that is over, where `config` wants it: its outcome, and nanoseconds waited and run.

    Args:
        show: takes the literals out of it, by the rules of its language.
    """
    slow_s = config.slow_query
    is_slow = slow_s is not None and run_ns >= slow_s * 1e9
    if not is_slow and not config.log_queries:
        return
    level = logging.WARNING if is_slow else logging.INFO
    note = "slow query" if is_slow else "query"
    _LOGGER.log(
        level,
        "pool %s: %s %s in %.3f ms after waiting %.3f ms: %s",
        name,
        note,
        outcome,
        run_ns / 1e6,
        wait_ns / 1e6,
        show(sql),
    )
