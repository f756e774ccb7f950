"""Option types of rates that change over time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pool_bench.units import parse_duration, parse_rate

if TYPE_CHECKING:
    from pool_bench.analysis.objectives import Objectives


@dataclass(frozen=True, slots=True)
class Spike:
    """`rate` operations a second for `seconds`, from `begin_s` of the measured time on."""

    rate: float
    begin_s: float
    seconds: float


class RateRamp(click.ParamType[tuple[float, float]]):
    """Two rates, written `100/s..2000/s`."""

    name = "rates"

    def convert(
        self, value: str | tuple[float, float], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        first, dots, last = value.partition("..")
        if not dots:
            self.fail(f"{value!r} is not a ramp (write 100/s..2000/s)", param, ctx)
        try:
            return parse_rate(first), parse_rate(last)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class RateSteps(click.ParamType[tuple[float, ...]]):
    """Several rates, written `100/s,200/s,400/s`."""

    name = "rates"

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(parse_rate(part) for part in value.split(","))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class RateSpike(click.ParamType[Spike]):
    """A rate, when it begins and how long it lasts, written `2000/s@10s+5s`."""

    name = "spike"

    def convert(self, value: str | Spike, param: click.Parameter | None, ctx: click.Context | None) -> Spike:
        """Read the text."""
        if isinstance(value, Spike):
            return value
        rate, at, when = value.partition("@")
        begin, plus, length = when.partition("+")
        if not at or not plus:
            self.fail(f"{value!r} is not a spike (write 2000/s@10s+5s: rate, begin, length)", param, ctx)
        try:
            spike = Spike(parse_rate(rate), parse_duration(begin), parse_duration(length))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if spike.seconds == 0:
            self.fail("the length of a spike must be greater than 0", param, ctx)
        return spike


class SloParam(click.ParamType["Objectives"]):
    """Objectives, written `p99<50ms,errors<0.1%`."""

    name = "slo"

    def convert(
        self, value: "str | Objectives", param: click.Parameter | None, ctx: click.Context | None
    ) -> "Objectives":
        """Read the text."""
        # Statistics need NumPy, which --help must not wait for.
        from pool_bench.analysis.objectives import parse_objectives

        if not isinstance(value, str):
            return value
        try:
            return parse_objectives(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
