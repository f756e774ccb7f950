"""Options of open-loop load: the rate at which operations are due, its shape over time, and its limits."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from pool_bench.cli.limits import room_for_files
from pool_bench.cli.options.gathering import gathered
from pool_bench.cli.options.rates import RateRamp, RateSpike, RateSteps, SloParam, Spike
from pool_bench.cli.options.types import Rate
from pool_bench.load.arrivals import SPACINGS, Profile, Spacing, constant, ramp, spike, steps

if TYPE_CHECKING:
    from pool_bench.analysis.objectives import Objectives
    from pool_bench.analysis.rate_search import Trial
    from pool_bench.load.spec import OpenLoop

MAX_IN_FLIGHT: Final = 1_000
# Beyond any client that this is; it bounds what a slip of the finger costs.
_HIGHEST_RATE: Final = 1_000_000.0
_FIRST_RATE: Final = 100.0
_DEFAULT_MAX_RATE: Final = 20_000.0
# How long a trial of a search lasts.
_SHORTEST_S: Final = 2.0
_LONGEST_S: Final = 60.0
# A confirmation is worth this many trials.
_CONFIRMATION: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """What the user said about rates; None for what they did not say.

    Attributes:
        rate, ramp, steps, spike: operations a second, and how they change.
        spacing: how arrivals are spread.
        seed: makes random arrivals repeatable.
        max_in_flight: connections at most.
        find_max: search for the highest rate that meets `slo`, from `rate` on, up to `max_rate`.
    """

    rate: float | None
    ramp: tuple[float, float] | None = None
    steps: tuple[float, ...] | None = None
    spike: Spike | None = None
    spacing: Spacing | None
    seed: int | None
    max_in_flight: int | None
    slo: "Objectives | None" = None
    find_max: bool = False
    max_rate: float | None = None

    def profile(self, duration_s: float) -> Profile | None:
        """The rate over `duration_s` seconds (0: until stopped), None where no rate was asked for.

        Raises:
            click.UsageError: the options contradict each other.
        """
        self._check_search()
        if self.find_max:
            return constant(self.first_rate)
        shapes = [f"--{name}" for name in ("rate", "ramp", "steps") if getattr(self, name) is not None]
        if len(shapes) > 1:
            raise click.UsageError(f"{' and '.join(shapes)} exclude each other: each says what the rate is")
        if not shapes:
            self._refuse_orphans()
            return None
        if duration_s == 0 and self.rate is None:
            raise click.UsageError(f"{shapes[0]} spreads over --duration, which must be greater than 0")
        if self.spike is not None:
            self._check_spike(self.spike, duration_s)
        profile = self._shape(duration_s)
        if profile.highest > _HIGHEST_RATE:
            raise click.UsageError(
                f"{profile.highest:,.0f}/s is more than any client can begin: at most {_HIGHEST_RATE:,.0f}/s"
            )
        return profile

    @property
    def first_rate(self) -> float:
        """The rate that a search begins with, operations a second."""
        return min(self.rate or _FIRST_RATE, self.highest_rate)

    @property
    def highest_rate(self) -> float:
        """The highest rate that a search tries, operations a second."""
        return self.max_rate or _DEFAULT_MAX_RATE

    def _check_search(self) -> None:
        if not self.find_max:
            for name, value in (("--slo", self.slo), ("--max-rate", self.max_rate)):
                if value is not None:
                    raise click.UsageError(f"{name} needs --find-max")
            return
        if self.slo is None:
            raise click.UsageError('--find-max needs --slo, such as --slo "p99<50ms,errors<0.1%"')
        for name in ("ramp", "steps", "spike"):
            if getattr(self, name) is not None:
                raise click.UsageError(f"--find-max and --{name} exclude each other: it sets the rate itself")
        if self.rate is not None and self.rate > self.highest_rate:
            raise click.UsageError(
                f"--rate {self.rate:g}/s, the first to try, is above --max-rate {self.highest_rate:g}/s"
            )
        if self.highest_rate > _HIGHEST_RATE:
            raise click.UsageError(f"--max-rate is {_HIGHEST_RATE:,.0f}/s at most")

    def _refuse_orphans(self) -> None:
        for name, value in (
            ("--spike", self.spike),
            ("--arrivals", self.spacing),
            ("--max-in-flight", self.max_in_flight),
        ):
            if value is not None:
                wanted = "--rate" if name == "--spike" else "--rate, --ramp, --steps or --find-max"
                raise click.UsageError(f"{name} needs {wanted}: a closed loop has no arrivals")

    def _check_spike(self, spike: Spike, duration_s: float) -> None:
        if self.rate is None:
            raise click.UsageError("--spike needs --rate: the rate before and after it")
        if duration_s and spike.begin_s + spike.seconds > duration_s:
            raise click.UsageError(
                f"--spike ends after {spike.begin_s + spike.seconds:g} s, but --duration is {duration_s:g} s"
            )

    def _shape(self, duration_s: float) -> Profile:
        if self.ramp is not None:
            return ramp(*self.ramp, duration_s)
        if self.steps is not None:
            return steps(self.steps, duration_s)
        rate = self.rate or 0.0
        if self.spike is not None:
            return spike(rate, self.spike.rate, self.spike.begin_s, self.spike.seconds)
        return constant(rate)

    @property
    def seed_or_new(self) -> int | None:
        """The seed; a new one where random arrivals have none, so that the result file can name it."""
        if self.seed is None and self.spacing == "poisson":
            return random.SystemRandom().getrandbits(32)
        return self.seed

    @property
    def label(self) -> str:
        """The shape in a word, for labels and file names: `r500`, `ramp100-2000`, `r500-spike2000`."""
        if self.find_max:
            return "max"
        if self.ramp is not None:
            return "ramp{:g}-{:g}".format(*self.ramp)
        if self.steps is not None:
            return f"steps{'-'.join(f'{rate:g}' for rate in self.steps)}"[:40]
        return f"r{self.rate:g}" + (f"-spike{self.spike.rate:g}" if self.spike is not None else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindMax:
    """What to search for.

    Attributes:
        objectives: what a rate must meet.
        first: the rate to begin with, operations a second.
        highest: the highest to try.
        spacing: how arrivals are spread.
        pause_s: between two trials, seconds.
    """

    objectives: "Objectives"
    first: float
    highest: float
    spacing: Spacing
    pause_s: float

    @property
    def lowest(self) -> float:
        """The lowest rate that can be judged within the longest trial, operations a second."""
        return min(self.objectives.samples / _LONGEST_S, self.first, self.highest)

    def length_s(self, trial: "Trial", confirm_s: float) -> float:
        """How long a trial is to last, seconds; a confirmation `confirm_s` at least."""
        needed = min(max(self.objectives.samples / trial.rate, _SHORTEST_S), _LONGEST_S)
        return max(confirm_s, _CONFIRMATION * needed) if trial.kind == "confirm" else needed


@dataclass(frozen=True, slots=True)
class Loop:
    """How operations begin: closed, by so many workers, or open, when the schedule says so.

    Attributes:
        profile: the rate over time, None in a closed loop.
        levels: the concurrency of each run; in an open loop one, the connections at most.
        rates: what the user said about rates.
    """

    profile: Profile | None
    levels: tuple[int, ...]
    rates: RateOptions

    @property
    def label(self) -> str:
        """Names the run of an open loop; "" in a closed one."""
        return "" if self.profile is None else self.rates.label

    @property
    def open_loop(self) -> "OpenLoop | None":
        """The schedule of every run, None in a closed loop."""
        from pool_bench.load.spec import OpenLoop

        if self.profile is None:
            return None
        return OpenLoop(profile=self.profile, spacing=self.rates.spacing or "constant")

    def find_max(self, pause_s: float) -> FindMax | None:
        """The search that was asked for, with `pause_s` seconds between its trials; None for none."""
        rates = self.rates
        if rates.slo is None:
            return None
        return FindMax(
            objectives=rates.slo,
            first=rates.first_rate,
            highest=rates.highest_rate,
            spacing=rates.spacing or "constant",
            pause_s=pause_s,
        )


def levels_of(concurrency: int | None, low: int | None, high: int | None) -> tuple[int, ...]:
    """One level, ten where none was said, or doubling from `low` to `high`, both included.

    Raises:
        UsageError: Click's own; the options do not go together.
    """
    if low is None and high is None:
        return (10 if concurrency is None else concurrency,)
    if concurrency is not None:
        raise click.UsageError("--concurrency and --concurrency-min/--concurrency-max exclude each other")
    if low is None or high is None:
        raise click.UsageError("--concurrency-min and --concurrency-max belong together")
    if low > high:
        raise click.UsageError(f"--concurrency-min {low} is above --concurrency-max {high}")
    levels = []
    while low < high:
        levels.append(low)
        low *= 2
    return (*levels, high)


def loop_of(
    rates: RateOptions, duration_s: float, concurrency: int | None, low: int | None, high: int | None
) -> Loop:
    """The loop that the options of rates and those of concurrency, as `levels_of` takes them, ask for.

    Raises:
        click.UsageError: the options contradict each other.
    """
    profile = rates.profile(duration_s)
    if profile is None:
        return Loop(None, levels_of(concurrency, low, high), rates)
    if any(value is not None for value in (concurrency, low, high)):
        raise click.UsageError(
            "--concurrency excludes --rate, --ramp, --steps and --find-max: the loop is either closed or open"
        )
    return Loop(profile, (rates.max_in_flight or room_for_files(MAX_IN_FLIGHT),), rates)


arrivals_option = click.option(
    "--arrivals",
    "spacing",
    type=click.Choice(SPACINGS),
    help="How arrivals are spread: evenly, or as independent users come. [default: constant]",
)
seed_option = click.option(
    "--seed", type=int, metavar="N", help="Makes random arrivals and jitter repeatable."
)

# The command gets them as one `RateOptions`, named `rates`.
rate_options = gathered(
    "rates",
    RateOptions,
    click.option(
        "--rate",
        type=Rate(),
        metavar="R",
        help="Open loop: operations become due at this rate (500/s), whether or not earlier ones "
        "have ended; response time counts from when one was due. Failures do not slow it down.",
    ),
    click.option(
        "--ramp",
        type=RateRamp(),
        metavar="A..B",
        help="Open loop: a rate that goes from A to B over --duration (100/s..2000/s).",
    ),
    click.option(
        "--steps",
        type=RateSteps(),
        metavar="A,B,...",
        help="Open loop: each rate for an equal share of --duration (100/s,200/s,400/s).",
    ),
    click.option(
        "--spike",
        type=RateSpike(),
        metavar="R@T+L",
        help="With --rate: a rate of R from second T on, for L (2000/s@10s+5s).",
    ),
    arrivals_option,
    click.option(
        "--find-max", is_flag=True, help="Search for the highest rate that meets --slo, and confirm it."
    ),
    click.option(
        "--slo",
        type=SloParam(),
        metavar="SLO",
        help='What the rate must meet: "p99<50ms,errors<0.1%"; p50 to p99.99, max, errors, errors.KIND, '
        "dropped. Less than 1% of errors and of dropped is always asked for.",
    ),
    click.option(
        "--max-rate",
        type=Rate(),
        metavar="R",
        help=f"The highest rate to try; --rate is the first. [default: {_DEFAULT_MAX_RATE:,.0f}/s]",
    ),
    seed_option,
    click.option(
        "--max-in-flight",
        type=click.IntRange(min=1),
        metavar="N",
        help="Open loop: connections at most. What is due beyond waits, and is dropped where it cannot begin "
        f"within --connect-timeout or before the end. [default: {MAX_IN_FLIGHT:,}, or what files allow]",
    ),
)
