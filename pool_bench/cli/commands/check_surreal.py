"""Whether a SurrealDB can be used, in words: every step of a connection, one line each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns
from typing import Final, TypeVar

import click

from pool_bench.cli.options.types import EXIT_FAILED, EXIT_OK
from pool_bench.cli.places.surreal import SurrealPlace, place_words, serve_surreal, surreal_targets_of
from pool_bench.cli.preflight import run_briefly
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.drivers.surreal.preflight import inspect
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.surreal import AuthMode, SurrealTarget
from pool_bench.units import format_ms

# For all steps together; to start takes a second, too.
_LIMIT_S: Final = 3.5
# A little less, as only the driver knows the step at which it waited in vain.
_CONNECT_LIMIT_S: Final = 3.0
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
_SILENT: Final = "it accepts connections and then says nothing: it hangs, or is no SurrealDB"
# A time-out in one of these came before anybody accepted the connection.
_UNREACHED: Final = (Phase.RESOLVE, Phase.TCP)
_USABLE: Final = "  usable"

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
        fine = run_briefly(_check_all(targets, place.server.auth, embedded=server is not None))
    return EXIT_OK if fine else EXIT_FAILED


async def _check_all(targets: Sequence[SurrealTarget], auth: AuthMode, *, embedded: bool) -> bool:
    """Look at all targets at once, as several that are silent must not take longer than one."""
    fine = True
    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(_check(target, auth, embedded=embedded)) for target in targets]
        for target, look in zip(targets, looks, strict=True):
            lines = await look
            click.echo("\n".join((f"{target}{place_words(target)}, auth {auth}", *lines)))
            fine = fine and lines[-1] == _USABLE
    return fine


async def _check(target: SurrealTarget, auth: AuthMode, *, embedded: bool) -> list[str]:
    """What there is to say of a target; the last line says whether it can be used."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(_LIMIT_S):
            await _ask(target, auth, lines.append, embedded=embedded)
    except ConnectError as error:
        lines.append(_failed(error))
    except TimeoutError:
        lines.append(_failed(ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, f"no end after {_LIMIT_S:g}s")))
    return lines


async def _ask(target: SurrealTarget, auth: AuthMode, say: Callable[[str], None], *, embedded: bool) -> None:
    look = await inspect(target, auth, create=embedded, connect_timeout_s=_CONNECT_LIMIT_S)
    say(f"  it is {look.info.product} {look.info.version}".rstrip())
    if look.missing is not None:
        say(f"  not usable: {look.missing}")
        return
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
    say(f"  connected in {format_ms(connected_ns / 1e6)} ms ({steps})")
    say(f"  a query took {format_ms(query_ns / 1e6)} ms")
    say(_USABLE)


async def _timed(work: Awaitable[T]) -> tuple[T, int]:
    began_ns = perf_counter_ns()
    return await work, perf_counter_ns() - began_ns


def _failed(error: ConnectError) -> str:
    advice = _ADVICE.get(error.kind)
    if error.kind is FailureKind.TIMEOUT and error.phase not in _UNREACHED:
        advice = _SILENT
    return f"  not usable: {error}{f': {advice}' if advice else ''}"
