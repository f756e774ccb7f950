"""The rounds of one pool under one load, put together.

A rate is the median of the rounds, with the lowest and the highest beside it. Percentiles are read from
the merged histograms of all rounds; those of single rounds only show how far the rounds lie apart.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from pool_bench.results.checkout_reader import LoadedCheckout
from pool_bench.results.model import LoadedRun
from pool_bench.stats.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and the extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of those values that there are, None of none."""
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class PoolRounds:
    """One pool under one load: its rounds, each with what its run says of the pool."""

    runs: tuple[LoadedRun, ...]
    checkouts: tuple[LoadedCheckout, ...]

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self.checkouts[0].setting.name

    @property
    def throughput(self) -> Spread:
        """Operations a second."""
        spread = Spread.of(run.throughput for run in self.runs)
        assert spread is not None  # noqa: S101  # there is a run
        return spread

    @property
    def latency(self) -> Histogram:
        """Of whole operations, all rounds."""
        return Histogram.merged(run.histogram for run in self.runs)

    def phase(self, name: str) -> Histogram:
        """Of one phase (`checkout`, `query`, `hold`, `return`), all rounds."""
        return Histogram.merged(
            run.phase_histograms[name] for run in self.runs if name in run.phase_histograms
        )

    def phase_percentile(self, name: str, percentile: float) -> Spread | None:
        """How far apart the rounds are in a percentile of a phase, milliseconds."""
        return Spread.of(
            run.phase_histograms[name].percentile_ms(percentile)
            for run in self.runs
            if name in run.phase_histograms
        )

    @property
    def not_started(self) -> str:
        """Why it could not even begin; "" where it did."""
        return self.runs[0].not_started

    @property
    def interrupted(self) -> bool:
        """Whether a round was ended before its time."""
        return any(run.interrupted for run in self.runs)

    @property
    def ok(self) -> int:
        """Operations that succeeded, all rounds."""
        return sum(run.ok for run in self.runs)

    @property
    def failed(self) -> int:
        """Operations that failed, all rounds."""
        return sum(run.failed for run in self.runs)

    @property
    def unfinished(self) -> int:
        """Operations that were given up at the end, all rounds."""
        return sum(run.unfinished for run in self.runs)

    @property
    def failures(self) -> dict[str, int]:
        """Failures of all rounds as `kind (phase)`, the most frequent first."""
        counts: dict[str, int] = {}
        for run in self.runs:
            for failure in run.failures:
                name = f"{failure.kind} during {failure.phase}"
                counts[name] = counts.get(name, 0) + failure.count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def spread(self, figure: Callable[[LoadedRun, LoadedCheckout], float | None]) -> Spread | None:
        """A figure over the rounds."""
        return Spread.of(figure(run, one) for run, one in zip(self.runs, self.checkouts, strict=True))

    @property
    def overtaken_share(self) -> float | None:
        """Checkouts that were overtaken, of all that were granted."""
        granted = sum(one.fairness.granted for one in self.checkouts)
        return sum(one.fairness.overtaken for one in self.checkouts) / granted if granted else None

    @property
    def bursts(self) -> Histogram:
        """How long bursts took, all rounds."""
        return Histogram.merged(one.bursts for one in self.checkouts)


@dataclass(frozen=True, slots=True)
class PoolComparison:
    """All pools under one load, in the order in which they were named.

    Attributes:
        scenario: as on the command line.
        clients: tasks that asked for connections; in an open loop, those in flight at most.
        groups: the pools.
        rate: operations due a second, None in a closed loop.
    """

    scenario: str
    clients: int
    groups: tuple[PoolRounds, ...]
    rate: float | None = None

    @property
    def label(self) -> str:
        """The scenario, and how many clients or operations a second where that is part of it."""
        if self.rate is not None:
            return f"{self.scenario} {self.rate:g}/s"
        return f"{self.scenario} {self.clients:,}" if self.scenario == "stress" else self.scenario

    @property
    def who(self) -> str:
        """Who asked for connections, in words."""
        if self.rate is not None:
            return f"{self.rate:g}/s due, {self.clients:,} in flight at most"
        return f"{self.clients:,} clients"


def group_by_load(runs: Sequence[LoadedRun]) -> list[PoolComparison]:
    """Runs of pools sorted into contests; other runs are left out."""
    loads: dict[tuple[str, int, float | None], dict[str, list[tuple[LoadedRun, LoadedCheckout]]]] = {}
    for run in runs:
        if run.checkout is not None:
            setting = run.checkout.setting
            pools = loads.setdefault((setting.scenario, setting.clients, run.rate), {})
            pools.setdefault(setting.name, []).append((run, run.checkout))
    # The first round goes in the order in which the pools were named.
    return [
        PoolComparison(
            scenario,
            clients,
            tuple(
                PoolRounds(tuple(run for run, _ in rounds), tuple(one for _, one in rounds))
                for rounds in map(_begun, pools.values())
            ),
            rate,
        )
        for (scenario, clients, rate), pools in loads.items()
    ]


def _begun(
    rounds: Sequence[tuple[LoadedRun, LoadedCheckout]],
) -> Sequence[tuple[LoadedRun, LoadedCheckout]]:
    """The rounds that began; one where none did, so that the pool has its row."""
    begun = [pair for pair in rounds if not pair[0].not_started]
    return begun or rounds[:1]
