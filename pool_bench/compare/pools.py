"""The rounds of one pool under one load, put together.

A rate is the median of the rounds, with the lowest and the highest beside it. Percentiles are read from
the merged histograms of all rounds; those of single rounds only show how far the rounds lie apart.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from pool_bench.results.checkout import CheckoutRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import PoolSetting


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
    """One pool under one load: its rounds, all of which put a pool under load."""

    runs: tuple[RunRecord, ...]

    @property
    def checkouts(self) -> tuple[CheckoutRecord, ...]:
        """What each run says of the pool."""
        return tuple(run.checkout for run in self.runs if run.checkout is not None)

    @property
    def setting(self) -> PoolSetting:
        """What the pool was asked for, in its first round."""
        setting = self.runs[0].pool_setting
        assert setting is not None  # noqa: S101  # it is a run of a pool
        return setting

    @property
    def pool(self) -> str:
        """The pool's name, with its sizes where there are two."""
        return self.setting.label

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

    def spread(self, figure: Callable[[RunRecord, CheckoutRecord], float | None]) -> Spread | None:
        """A figure over the rounds."""
        return Spread.of(
            figure(run, checkout) for run, checkout in zip(self.runs, self.checkouts, strict=True)
        )

    @property
    def overtaken_share(self) -> float | None:
        """Checkouts that were overtaken, of all that were granted."""
        granted = sum(checkout.fairness.granted for checkout in self.checkouts)
        return sum(checkout.fairness.overtaken for checkout in self.checkouts) / granted if granted else None

    @property
    def bursts(self) -> Histogram:
        """How long bursts took, all rounds."""
        return Histogram.merged(checkout.bursts_histogram for checkout in self.checkouts)


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


def group_by_load(runs: Sequence[RunRecord]) -> list[PoolComparison]:
    """Runs of pools sorted into contests; other runs are left out."""
    loads: dict[tuple[str, int, float | None], dict[str, list[RunRecord]]] = {}
    for run in runs:
        setting = run.pool_setting
        if setting is not None:
            pools = loads.setdefault((setting.scenario, setting.clients, run.rate), {})
            pools.setdefault(setting.label, []).append(run)
    # The first round goes in the order in which the pools were named.
    return [
        PoolComparison(
            scenario,
            clients,
            tuple(PoolRounds(_begun(rounds)) for rounds in pools.values()),
            rate,
        )
        for (scenario, clients, rate), pools in loads.items()
    ]


def _begun(rounds: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """The rounds that began; one where none did, so that the pool has its row."""
    begun = tuple(run for run in rounds if not run.not_started)
    return begun or tuple(rounds[:1])
