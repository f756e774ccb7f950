"""Whether a SurrealDB can be used, in words: every step of a connection, one line each."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter_ns
from typing import Final, TypeVar

import click

from pool_bench.cli.params import EXIT_FAILED, EXIT_OK
from pool_bench.cli.surreal_place import (
    SurrealPlace,
    place_words,
    serve_surreal,
    surreal_targets_of,
)
from pool_bench.drivers.surreal import SurrealDriver
from pool_bench.drivers.surreal_look import look_at
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets_surreal import AuthMode, SurrealTarget
from pool_bench.units import format_ms

# For all steps at one target together; to start takes a second, too.
_LIMIT_S: Final = 3.5
_ADVICE: Final = {
    FailureKind.REFUSED: "nothing listens there: is the server running, and is it this port?",
    FailureKind.TIMEOUT: "nothing answers: a firewall, or a wrong address?",
    FailureKind.DNS: "that name has no address",
    FailureKind.TLS: "no TLS that can be trusted: ws:// or http:// where it has none, --ca-file where it is "
    "its own authority",
    FailureKind.AUTH: "user, password, --level or --auth are not what the server knows",
    FailureKind.PROTOCOL: "whatever answers there is no SurrealDB, or speaks TLS (wss://, https://)",
    FailureKind.CLOSED: "whatever answers there is no SurrealDB, or speaks TLS (wss://, https://)",
}

T = TypeVar("T")


def check(place: SurrealPlace) -> int:
    """Connect to every target and say what happened, on stdout.

    Returns:
        The exit code: 0 where all can be used, else 1.

    Raises:
        UsageError: a target cannot be used like this.
        ServerStartError: the embedded server does not start.
    """
    with serve_surreal(place) as server:
        targets = surreal_targets_of(place, server)
        fine = [
            asyncio.run(_check(target, place.server.auth, embedded=server is not None)) for target in targets
        ]
    return EXIT_OK if all(fine) else EXIT_FAILED


async def _check(target: SurrealTarget, auth: AuthMode, *, embedded: bool) -> bool:
    click.echo(f"{target}{place_words(target)}, auth {auth}")
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await _ask(target, auth, embedded=embedded)
    except ConnectError as error:
        return _failed(error)
    except TimeoutError:
        return _failed(ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, f"no end after {_LIMIT_S:g}s"))


async def _ask(target: SurrealTarget, auth: AuthMode, *, embedded: bool) -> bool:
    look = await look_at(target, auth, create=embedded)
    click.echo(f"  it is {look.info.product} {look.info.version}".rstrip())
    if look.missing is not None:
        click.echo(f"  not usable: {look.missing}")
        return False
    driver = SurrealDriver(target, auth=auth)
    await driver.prepare()
    connection, connected_ns = await _timed(driver.connect())
    try:
        _, query_ns = await _timed(connection.execute("RETURN 1"))
    finally:
        await connection.close()
    steps = ", ".join(
        f"{phase} {format_ms(ns / 1e6)}"
        for phase, ns in connection.phases_ns.items()
        if phase not in (Phase.QUERY, Phase.CLOSE)
    )
    click.echo(f"  connected in {format_ms(connected_ns / 1e6)} ms ({steps})")
    click.echo(f"  a query took {format_ms(query_ns / 1e6)} ms")
    click.echo("  usable")
    return True


async def _timed(work: Awaitable[T]) -> tuple[T, int]:
    began_ns = perf_counter_ns()
    return await work, perf_counter_ns() - began_ns


def _failed(error: ConnectError) -> bool:
    advice = _ADVICE.get(error.kind)
    click.echo(f"  not usable: {error}{f': {advice}' if advice else ''}")
    return False
