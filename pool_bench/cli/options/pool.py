"""Option types and options that the commands of `pool-bench` share."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Generic, TypeVar

import click

from pool_bench.cli.options.loop import MAX_IN_FLIGHT, RateOptions
from pool_bench.cli.options.types import Duration, Rate
from pool_bench.contenders.base import RESET_MODES
from pool_bench.load.arrivals import SPACINGS, Spacing

# A task each: it bounds what a slip of the finger costs in memory.
MAX_CLIENTS: Final = 100_000

_Name = TypeVar("_Name", bound=str)
_Command = TypeVar("_Command", bound=Callable[..., object])


class Names(click.ParamType[tuple[_Name, ...]], Generic[_Name]):
    """Names of a list, separated by commas, each once, in the user's order.

    Args:
        known: the names there are.
        left_out: what `all` does not mean.
    """

    name = "name,..."

    def __init__(self, known: tuple[_Name, ...], *, left_out: tuple[_Name, ...] = ()) -> None:
        self._known = known
        self._left_out = left_out

    def convert(
        self, value: str | tuple[_Name, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[_Name, ...]:
        """Read the text."""
        if not isinstance(value, str):
            return value
        found: list[_Name] = []
        for word in (part.strip().lower() for part in value.split(",")):
            if word == "all":
                found += [name for name in self._known if name not in self._left_out]
                continue
            name = next((name for name in self._known if name == word), None)
            if name is None:
                self.fail(f"{word!r} is none of {', '.join(self._known)}", param, ctx)
            found.append(name)
        return tuple(dict.fromkeys(found))


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
            self.fail(f"{value!r} are not sizes (write 1..64 or 4,8,12)", param, ctx)
        numbers = [int(word) for word in words]
        if min(numbers) < 1:
            self.fail("each is at least one", param, ctx)
        if self._at_most is not None and max(numbers) > self._at_most:
            self.fail(f"each is at most {self._at_most:,}", param, ctx)
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


_WITHOUT_URL: Final = (
    "Without it: DATABASE_URL, else PGHOST, PGHOSTADDR, PGPORT or PGSERVICE, else an embedded PostgreSQL is "
    "started, used and removed."
)


def _only(_ctx: click.Context, param: click.Parameter, urls: tuple[str, ...]) -> str | None:
    if len(urls) > 1:
        raise click.BadParameter("a pool has one target, so it is given once", param=param)
    return urls[0] if urls else None


def url_option(command: _Command) -> _Command:
    """`--url`, once."""
    return click.option(
        "--url",
        "-u",
        multiple=True,
        callback=_only,
        metavar="URL",
        help=f"PostgreSQL URL, postgresql://user@host:port/database?sslmode=... {_WITHOUT_URL}",
    )(command)


def urls_option(command: _Command) -> _Command:
    """`--url`, as often as there is something to look at."""
    return click.option(
        "--url",
        "-u",
        "urls",
        multiple=True,
        metavar="URL",
        help="PostgreSQL URL, postgresql://user@host:port/database?sslmode=...; repeat it to look at "
        f"several. {_WITHOUT_URL}",
    )(command)


def lending_options(
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
) -> Callable[[_Command], _Command]:
    """`--pool`, `--scenario`, `--clients`, `--size`, `--hold` and `--reset`.

    The command gets `pools, scenarios, clients, size, hold_s, reset`, of which `hold_s` is seconds, or None
    for the load's own.
    """
    return _all_of(
        click.option(
            "--pool", "-p", "pools", type=pools, default=pools_default, show_default=True, help=pools_help
        ),
        click.option(
            "--scenario",
            "-s",
            "scenarios",
            type=Names(scenarios),
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


def timing_options(duration: str, rounds: int) -> Callable[[_Command], _Command]:
    """`--duration`, `--warmup`, `--grace`, `--rounds` and `--timeout` with these defaults."""
    return _all_of(
        click.option(
            "--timeout",
            type=Duration(),
            default="5s",
            show_default=True,
            help="Bound on one acquire; callers that wait longer fail.",
        ),
        click.option(
            "--duration",
            "-d",
            type=Duration(),
            default=duration,
            show_default=True,
            help="How long to measure in each run.",
        ),
        click.option(
            "--warmup",
            type=Duration(zero=True),
            default="1s",
            show_default=True,
            help="Operations begun in this time before measuring do not count.",
        ),
        click.option(
            "--grace",
            type=Duration(zero=True),
            default="5s",
            show_default=True,
            help="How long operations under way at the end may take to finish; what is left is `unfinished`.",
        ),
        click.option(
            "--rounds",
            type=click.IntRange(min=1),
            default=rounds,
            show_default=True,
            help="How often to measure each; more show what is noise.",
        ),
    )


def _all_of(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Options as one, which show in this order."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def pool_rate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of open-loop load on pools; `command` gets them as one `RateOptions`, named `rates`.

    Rates that change are scenarios here (`ramp`, `spike`).
    """

    @click.option(
        "--rate",
        type=Rate(),
        metavar="R",
        help="Open loop, in place of --clients, for churn, query and sustained: so many operations become "
        "due each second (500/s), whether or not earlier ones have ended; response time counts from when one "
        "was due.",
    )
    @click.option(
        "--arrivals",
        "spacing",
        type=click.Choice(SPACINGS),
        help="How arrivals are spread: evenly, or as independent users come. [default: constant]",
    )
    @click.option("--seed", type=int, metavar="N", help="Makes random arrivals and jitter repeatable.")
    @click.option(
        "--max-in-flight",
        type=click.IntRange(min=1, max=MAX_CLIENTS),
        metavar="N",
        help="Open loop: operations at most. What is due beyond waits, and is dropped where it cannot begin "
        f"within --timeout or before the end. [default: {MAX_IN_FLIGHT:,}]",
    )
    @wraps(command)
    def with_rates(
        *args: object,
        rate: float | None,
        spacing: Spacing | None,
        seed: int | None,
        max_in_flight: int | None,
        **kwargs: object,
    ) -> None:
        for name, value in (("--arrivals", spacing), ("--max-in-flight", max_in_flight)):
            if value is not None and rate is None:
                raise click.UsageError(f"{name} needs --rate: a closed loop has no arrivals")
        rates = RateOptions(
            rate=rate,
            ramp=None,
            steps=None,
            spike=None,
            spacing=spacing,
            seed=seed,
            max_in_flight=max_in_flight,
            slo=None,
            find_max=False,
            max_rate=None,
        )
        command(*args, rates=rates, **kwargs)

    return with_rates
