"""Where a command's targets are, whether they speak PostgreSQL's protocol or SurrealDB's."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from pool_bench.cli.places.postgres import PostgresPlace, ask, serve, targets_of
from pool_bench.cli.places.surreal import SurrealPlace, ask_surrealdb, serve_surreal, surreal_targets_of
from pool_bench.cli.session import notify
from pool_bench.errors import PoolBenchError
from pool_bench.load.run import StopSwitch
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import SurrealTarget

AnyPlace = PostgresPlace | SurrealPlace
AnyServer = EmbeddedPostgres | EmbeddedSurreal


def serve_any(
    place: AnyPlace, *, connections: int, ending: int = 0, log_setup: bool = False
) -> "AbstractContextManager[AnyServer | None]":
    """The embedded server, sized for `connections`, where no target was named; else nothing.

    Args:
        ending: connections that the server may still have although their client has gone.
        log_setup: have PostgreSQL log its own time for setting each connection up.

    Raises:
        ServerStartError: on entry, the server does not start.
    """
    if isinstance(place, SurrealPlace):
        return serve_surreal(place)
    return serve(place, connections=connections, ending=ending, log_setup=log_setup)


def targets_of_any(place: AnyPlace, server: AnyServer | None, *, tool: str) -> tuple[Target, ...]:
    """The targets of `place`, or what `serve_any` has started for it."""
    if isinstance(place, SurrealPlace):
        return surreal_targets_of(place, server if isinstance(server, EmbeddedSurreal) else None)
    return targets_of(place, server if isinstance(server, EmbeddedPostgres) else None, tool=tool)


def ask_any(
    place: AnyPlace,
    targets: Sequence[Target],
    stop: StopSwitch,
    *,
    timeout_s: float,
    embedded: bool,
    keep_going: bool | None = None,
) -> dict[str, str]:
    """Say on stderr what the first of `targets` that can be used says it is, and return it.

    Raises:
        PoolBenchError: none of them can be used as it was named.
    """
    *others, last = targets
    for target in others:
        try:
            return _ask(place, target, stop, timeout_s, embedded=embedded, keep_going=keep_going)
        except PoolBenchError as error:
            notify(str(error))
    return _ask(place, last, stop, timeout_s, embedded=embedded, keep_going=keep_going)


def _ask(
    place: AnyPlace,
    target: Target,
    stop: StopSwitch,
    timeout_s: float,
    *,
    embedded: bool,
    keep_going: bool | None,
) -> dict[str, str]:
    if isinstance(place, SurrealPlace) and isinstance(target, SurrealTarget):
        auth = place.server.auth
        return ask_surrealdb(
            target, auth, stop, timeout_s=timeout_s, embedded=embedded, keep_going=bool(keep_going)
        )
    if isinstance(target, PostgresTarget):
        return ask(target, stop, timeout_s=timeout_s, embedded=embedded, keep_going=keep_going)
    raise TypeError(f"{target} is no target of {place.origin}")


def config_of(place: AnyPlace, target: Target) -> dict[str, str | int | float | bool | list[str] | None]:
    """What a result file's `config` says of the place."""
    said: dict[str, str | int | float | bool | list[str] | None] = {"target_from": place.origin}
    if isinstance(place, SurrealPlace) and isinstance(target, SurrealTarget):
        said |= {"auth": place.server.auth, "namespace": target.namespace, "database": target.database}
    return said
