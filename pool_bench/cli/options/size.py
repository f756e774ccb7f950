"""Options of the commands that look for a pool's size, the same in `pool-bench` and `surreal-bench`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.pool import MAX_CLIENTS, Sizes, Timing
from pool_bench.cli.options.types import Duration
from pool_bench.contenders.base import RESET_MODES, ContenderName, ResetMode

# With the default duration as long as a comparison takes.
_ROUNDS: Final = 5
_PAIR: Final = re.compile(r"(\d+)-(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """The sizes to try.

    Attributes:
        sizes: of a sweep, ascending; empty where pairs are to be compared.
        pairs: connections at least and at most, in the user's order.
    """

    sizes: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def largest(self) -> int:
        """Connections of the largest pool."""
        return max((*self.sizes, *(high for _, high in self.pairs)))


def rounds_of(ctx: click.Context, asked: Asked, timing: Timing) -> Timing:
    """`timing`, with rounds enough for a comparison of pairs where the user named none."""
    named = ctx.get_parameter_source("rounds") is not click.core.ParameterSource.DEFAULT
    return timing if named or not asked.pairs else replace(timing, rounds=_ROUNDS)


class SizesOrPairs(click.ParamType[Asked]):
    """Sizes of a sweep (see `Sizes`), or pairs `1-5,5-10`, among which a number alone is a pair of itself."""

    name = "sizes"

    def convert(self, value: str | Asked, param: click.Parameter | None, ctx: click.Context | None) -> Asked:
        """Read the text."""
        if not isinstance(value, str):
            return value
        if "-" not in value:
            return Asked(sizes=Sizes().convert(value, param, ctx))
        pairs = []
        for word in (part.strip() for part in value.split(",")):
            found = _PAIR.fullmatch(word if "-" in word else f"{word}-{word}")
            if found is None:
                self.fail(f"{word!r} is not a size (write 1-5,5-10,20)", param, ctx)
            low, high = map(int, found.groups())
            if low < 1:
                self.fail("each size must be at least 1", param, ctx)
            if low > high:
                self.fail(f"in {word}, {low} is above {high}", param, ctx)
            pairs.append((low, high))
        pairs = list(dict.fromkeys(pairs))
        if len(pairs) < 2:
            self.fail("it takes two pairs at least to compare them", param, ctx)
        return Asked(pairs=tuple(pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeOptions:
    """Which sizes of which pool, under which load.

    Attributes:
        pool: the pool.
        clients: tasks that ask for connections.
        asked: the sizes.
        hold_s: how long an operation keeps its connection after the query, seconds.
        query: what each operation runs.
        reset: what a pool restores on return.
    """

    pool: ContenderName
    clients: int
    asked: Asked
    hold_s: float
    query: str
    reset: ResetMode


def size_options(
    *,
    pools: tuple[ContenderName, ...],
    clients: int,
    sizes: str,
    query: Callable[[Any], Any],
    reset_help: str,
) -> Decorator[Callable[..., None]]:
    """Add them; the command gets them as one `SizeOptions`, named `options`."""
    return gathered(
        "options",
        SizeOptions,
        click.option(
            "--pool",
            "-p",
            type=click.Choice(pools),
            default="reference",
            show_default=True,
            help="The pool whose size it is.",
        ),
        click.option(
            "--clients",
            "-c",
            type=click.IntRange(min=1, max=MAX_CLIENTS),
            default=clients,
            show_default=True,
            help="Tasks that ask for connections; as many as the largest size at least.",
        ),
        click.option(
            "--sizes",
            "asked",
            type=SizesOrPairs(),
            default=sizes,
            show_default=True,
            metavar="A..B|A,B,...|A-B,...",
            help="Sizes to try: from A to B by doubling, or those named, five at least; or settings to "
            "compare, each with connections at least and at most: 1-5,5-10,20.",
        ),
        click.option(
            "--hold",
            "hold_s",
            type=Duration(zero=True),
            default="0",
            show_default=True,
            help="How long an operation keeps its connection after the query, as your application does.",
        ),
        query,
        click.option(
            "--reset", type=click.Choice(RESET_MODES), default="own", show_default=True, help=reset_help
        ),
    )
