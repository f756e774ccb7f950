"""Options of `surreal-bench pool`: which pools, under which loads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final

import click

from pool_bench.cli.options.pool import MAX_CLIENTS, Names, Sizes, lending_options
from pool_bench.contenders.base import SURREAL_CONTENDER_NAMES, ContenderName, ResetMode
from pool_bench.load.spec import ScenarioName

_SCENARIOS: Final[tuple[ScenarioName, ...]] = ("query", "burst", "sustained", "churn", "stress")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What the options say.

    Attributes:
        pools: the pools, in the user's order.
        scenarios: the loads, likewise.
        clients: tasks that ask for connections.
        stress: how many of them the scenario `stress` has, one after the other.
        size: connections of each pool.
        hold_s: how long an operation keeps its connection after the query, seconds; None for the load's own.
        query: what each operation runs.
        reset: what a pool restores on return.
    """

    pools: tuple[ContenderName, ...]
    scenarios: tuple[ScenarioName, ...]
    clients: int
    stress: tuple[int, ...]
    size: int
    hold_s: float | None
    query: str
    reset: ResetMode


def pool_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add them; `command` gets them as one `PoolOptions`, named `asked`."""

    @lending_options(
        pools=Names(SURREAL_CONTENDER_NAMES, left_out=("purreal",)),
        pools_default="reference,shared,naive",
        pools_help="reference: this package's pool; shared: one connection for all clients; naive: a "
        "connection, with sign-in, for each query; purreal: that package's pool, where it is installed.",
        scenarios=_SCENARIOS,
        scenarios_default="query,burst,sustained,churn",
        clients=100,
        clients_help="Tasks that ask for connections.",
        size=10,
        reset_help="never: the reference pool restores nothing on return.",
    )
    @click.option(
        "--stress",
        type=Sizes(at_most=MAX_CLIENTS),
        default="1000",
        show_default=True,
        metavar="N,...",
        help="How many clients the scenario stress has.",
    )
    @click.option(
        "--query",
        metavar="SURQL",
        default="RETURN 1",
        show_default=True,
        help="What each operation runs.",
    )
    @wraps(command)
    def with_pool(
        *args: object,
        pools: tuple[ContenderName, ...],
        scenarios: tuple[ScenarioName, ...],
        clients: int,
        stress: tuple[int, ...],
        size: int,
        hold_s: float | None,
        query: str,
        reset: ResetMode,
        **kwargs: object,
    ) -> None:
        asked = PoolOptions(
            pools=pools,
            scenarios=scenarios,
            clients=clients,
            stress=stress,
            size=size,
            hold_s=hold_s,
            query=query,
            reset=reset,
        )
        command(*args, asked=asked, **kwargs)

    return with_pool
