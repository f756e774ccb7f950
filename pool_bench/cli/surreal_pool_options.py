"""Options of `surreal-bench pool`: which pools, under which loads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final

import click

from pool_bench.cli.params import Duration
from pool_bench.cli.pool_options import Names, Sizes
from pool_bench.contenders.base import RESET_MODES, SURREAL_CONTENDER_NAMES, ContenderName, ResetMode
from pool_bench.load.pool_spec import ScenarioName

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

    @click.option(
        "--pool",
        "-p",
        "pools",
        type=Names(SURREAL_CONTENDER_NAMES, left_out=("purreal",)),
        default="reference,shared,naive",
        show_default=True,
        help="reference: this package's pool; shared: one connection for all clients; naive: a connection, "
        "with sign-in, for each query; purreal: that package's pool, where it is installed.",
    )
    @click.option(
        "--scenario",
        "-s",
        "scenarios",
        type=Names(_SCENARIOS),
        default="query,burst,sustained,churn",
        show_default=True,
        help=f"The loads, of {', '.join(_SCENARIOS)}; or all.",
    )
    @click.option(
        "--clients",
        "-c",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="Tasks that ask for connections.",
    )
    @click.option(
        "--stress",
        type=Sizes(),
        default="1000",
        show_default=True,
        metavar="N,...",
        help="How many clients the scenario stress has.",
    )
    @click.option(
        "--size",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Connections of each pool, no more and no fewer.",
    )
    @click.option(
        "--hold",
        "hold_s",
        type=Duration(zero=True),
        default=None,
        metavar="DURATION",
        help="How long an operation keeps its connection after the query. "
        "[default: 1ms in sustained, else 0]",
    )
    @click.option(
        "--query",
        metavar="SURQL",
        default="RETURN 1",
        show_default=True,
        help="What each operation runs.",
    )
    @click.option(
        "--reset",
        type=click.Choice(RESET_MODES),
        default="own",
        show_default=True,
        help="never: the reference pool restores nothing on return.",
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
