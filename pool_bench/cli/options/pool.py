"""Option types and options that the commands of `pool-bench` share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click

from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.loop import MAX_IN_FLIGHT, RateOptions, arrivals_option, seed_option
from pool_bench.cli.options.shared import WITHOUT_URL, grace_option, url_option_to, warmup_option
from pool_bench.cli.options.types import Duration, Rate
from pool_bench.contenders.base import RESET_MODES, ContenderName, ResetMode
from pool_bench.load.spec import ScenarioName

if TYPE_CHECKING:
    from pool_bench.load.spec import PoolSpec
    from pool_bench.targets import Target

# A task each: it bounds what a slip of the finger costs in memory.
MAX_CLIENTS: Final = 100_000

_Name = TypeVar("_Name", bound=str)
_Command = TypeVar("_Command", bound=Callable[..., object])


class Names(click.ParamType[tuple[_Name, ...]], Generic[_Name]):
    """Names of a list, separated by commas, each once, in the user's order.

    Args:
        what: what they name.
        known: the names there are.
        left_out: what `all` does not mean.
    """

    name = "name,..."

    def __init__(self, what: str, known: tuple[_Name, ...], *, left_out: tuple[_Name, ...] = ()) -> None:
        self._what = what
        self._known = known
        self._left_out = left_out

    def convert(
        self, value: str | tuple[_Name, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[_Name, ...]:
        """Read the text."""
        if not isinstance(value, str):
            return value
        chosen: list[_Name] = []
        for word in (part.strip().lower() for part in value.split(",")):
            if word == "all":
                chosen += [name for name in self._known if name not in self._left_out]
                continue
            name = next((name for name in self._known if name == word), None)
            if name is None:
                self.fail(f"unknown {self._what} {word!r} (choose from {', '.join(self._known)})", param, ctx)
            chosen.append(name)
        return tuple(dict.fromkeys(chosen))


class Sizes(click.ParamType[tuple[int, ...]]):
    """Pool sizes, or other numbers, written `1..64` (doubling, both ends included) or `4,8,12`.

    Args:
        at_most: none is larger; None leaves that to others.
    """

    name = "sizes"

    def __init__(self, *, at_most: int | None = None) -> None:
        self._at_most = at_most

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read the text."""
        if not isinstance(value, str):
            return value
        low, dots, high = value.partition("..")
        words = [low, high] if dots else value.split(",")
        if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
            self.fail(f"{value!r} is not a list of sizes (write 1..64 or 4,8,12)", param, ctx)
        numbers = [int(word) for word in words]
        if min(numbers) < 1:
            self.fail("each size must be at least 1", param, ctx)
        if self._at_most is not None and max(numbers) > self._at_most:
            self.fail(f"each must be at most {self._at_most:,}", param, ctx)
        if not dots:
            return tuple(sorted(set(numbers)))
        size, last = numbers
        if size > last:
            self.fail(f"{size} is above {last}", param, ctx)
        sizes = []
        while size < last:
            sizes.append(size)
            size *= 2
        return (*sizes, last)


def _only(_ctx: click.Context, param: click.Parameter, urls: tuple[str, ...]) -> str | None:
    if len(urls) > 1:
        raise click.BadParameter("given more than once; a pool has one target", param=param)
    return urls[0] if urls else None


def _url_option(means: str) -> Decorator[Callable[..., None]]:
    return click.option(
        "--url",
        "-u",
        multiple=True,
        callback=_only,
        metavar="URL",
        help=f"{means} {WITHOUT_URL}",
    )


_POSTGRES_URL: Final = "PostgreSQL URL, postgresql://user@host:port/database?sslmode=..."
# `--url`, once.
url_option = _url_option(_POSTGRES_URL)
any_url_option = _url_option(
    f"{_POSTGRES_URL}, or SurrealDB's, ws://host:port, with SURREAL_USER and SURREAL_PASS."
)


urls_option = url_option_to("look at several")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Which pools, under which loads.

    Attributes:
        pools: the pools, in the user's order.
        scenarios: the loads, likewise.
        clients: tasks that ask for connections.
        size: connections of each pool.
        hold_s: how long an operation keeps its connection after the query, seconds; None for the load's own.
        query: what each operation runs, None for the load's own.
        reset: what a pool restores on return.
    """

    pools: tuple[ContenderName, ...]
    scenarios: tuple[ScenarioName, ...]
    clients: int
    size: int
    hold_s: float | None
    query: str | None
    reset: ResetMode

    def spec(self, targets: "tuple[Target, ...]", timing: "Timing") -> "PoolSpec":
        """The settings of every run; what differs between them is filled in later."""
        from pool_bench.load.spec import PoolSpec

        return PoolSpec(
            targets=targets,
            pool=self.pools[0],
            scenario=self.scenarios[0],
            clients=self.clients,
            size=self.size,
            timeout_s=timing.timeout_s,
            reset=self.reset,
            warmup_s=timing.warmup_s,
            duration_s=timing.duration_s,
            grace_s=timing.grace_s,
        )


def pool_options(
    *,
    pools: Names[Any],
    pools_default: str,
    pools_help: str,
    scenarios: tuple[str, ...],
    scenarios_default: str,
    clients: int,
    clients_help: str,
    size: int,
    reset_help: str,
    query: Callable[[Any], Any],
) -> Decorator[Callable[..., None]]:
    """Add them; the command gets them as one `PoolOptions`, named `options`."""
    return gathered(
        "options",
        PoolOptions,
        click.option(
            "--pool", "-p", "pools", type=pools, default=pools_default, show_default=True, help=pools_help
        ),
        click.option(
            "--scenario",
            "-s",
            "scenarios",
            type=Names("scenario", scenarios),
            default=scenarios_default,
            show_default=True,
            help=f"The loads, of {', '.join(scenarios)}; or all.",
        ),
        click.option(
            "--clients",
            "-c",
            type=click.IntRange(min=1, max=MAX_CLIENTS),
            default=clients,
            show_default=True,
            help=clients_help,
        ),
        click.option(
            "--size",
            type=click.IntRange(min=1),
            default=size,
            show_default=True,
            help="Connections of each pool, no more and no fewer.",
        ),
        click.option(
            "--hold",
            "hold_s",
            type=Duration(zero=True),
            default=None,
            metavar="DURATION",
            help="How long an operation keeps its connection after the query. "
            "[default: 1ms in sustained, else 0]",
        ),
        click.option(
            "--reset", type=click.Choice(RESET_MODES), default="own", show_default=True, help=reset_help
        ),
        query,
    )


def prepared_option(command: _Command) -> _Command:
    """`--no-prepared`; the command gets `prepared`."""
    return click.option(
        "--no-prepared",
        "prepared",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Let no pool prepare statements, as suits a pooler that gives each transaction another session.",
    )(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long and how often to measure; see `PoolSpec`.

    Attributes:
        timeout_s, duration_s, warmup_s, grace_s: of each run, seconds.
        rounds: how often each is measured.
    """

    timeout_s: float
    duration_s: float
    warmup_s: float
    grace_s: float
    rounds: int


def timing_options(duration: str, rounds: int) -> Decorator[Callable[..., None]]:
    """Add them with these defaults; the command gets them as one `Timing`, named `timing`."""
    return gathered(
        "timing",
        Timing,
        click.option(
            "--timeout",
            "timeout_s",
            type=Duration(),
            default="5s",
            show_default=True,
            help="Bound on one acquire; callers that wait longer fail.",
        ),
        click.option(
            "--duration",
            "-d",
            "duration_s",
            type=Duration(),
            default=duration,
            show_default=True,
            help="How long to measure in each run.",
        ),
        warmup_option,
        grace_option,
        click.option(
            "--rounds",
            type=click.IntRange(min=1),
            default=rounds,
            show_default=True,
            help="How often to measure each; more show what is noise.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRateOptions(RateOptions):
    """Rates that pools are put under; those that change are scenarios here (`ramp`, `spike`)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: Click's own; something goes with a rate, and there is none.
        """
        for name, value in (("--arrivals", self.spacing), ("--max-in-flight", self.max_in_flight)):
            if value is not None and self.rate is None:
                raise click.UsageError(f"{name} needs --rate: a closed loop has no arrivals")


# The command gets them as one `PoolRateOptions`, named `rates`.
pool_rate_options = gathered(
    "rates",
    PoolRateOptions,
    click.option(
        "--rate",
        type=Rate(),
        metavar="R",
        help="Open loop, in place of --clients, for churn, query and sustained: operations become due at "
        "this rate (500/s), whether or not earlier ones have ended; response time counts from when one was "
        "due.",
    ),
    arrivals_option,
    seed_option,
    click.option(
        "--max-in-flight",
        type=click.IntRange(min=1, max=MAX_CLIENTS),
        metavar="N",
        help="Open loop: operations at most. What is due beyond waits, and is dropped where it cannot begin "
        f"within --timeout or before the end. [default: {MAX_IN_FLIGHT:,}]",
    ),
)
