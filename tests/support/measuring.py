"""Measures a server of known behaviour, and compares what was reported with what the server says it did.

Client and server count every operation of a run, from its first to its last, so both histograms are of the
very same operations. They may differ by 1 %, by one bucket, and by what the client costs itself, which is
measured first (`floor`). Where only operations are counted, a run ends when there are enough of them, however
long that takes. Where it is their times that count, on a machine that others use, too, a measurement and its
floor are repeated, eight times at most, and only where the client's lag or the server's shows that something
held it up: what the client does to itself, it does each time. Where none of them was undisturbed, times of
the last may be longer by what both were held up at most, if both were, but by no more than a quarter.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from pool_bench.analysis.verdict import is_thin
from pool_bench.errors import Phase
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.behaviour import Behaviour, Truth
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.histogram import Histogram, bucket_lower_us, bucket_upper_us
from pool_bench.stats.runs import RunResult
from pool_bench.targets.postgres import parse_target

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0)
_ATTEMPTS = 8
_DISTURBED_MS = 1.0
_MOST_ALLOWANCE = 0.25

Enough = Callable[[RunResult], bool]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run and the truth about it.

    Attributes:
        allowance_ms: what may be added to a time because something held it up.
    """

    run: RunResult
    truth: Truth
    allowance_ms: float = 0.0

    @property
    def held_up_ms(self) -> float:
        """How long something held up client and server at most, together."""
        return sum(lag.max_ns / 1e6 for lag in (self.run.client.lag, self.truth.lag) if lag.count)

    @property
    def disturbed(self) -> bool:
        """Whether something held up client or server."""
        return any(self._held_up())

    @property
    def disturbed_by_others(self) -> bool:
        """Whether something held up both, which a client that holds up itself does not do."""
        return all(self._held_up())

    def _held_up(self) -> list[bool]:
        lags = (self.run.client.lag, self.truth.lag)
        return [lag.count > 0 and lag.max_ns / 1e6 > _DISTURBED_MS for lag in lags]


def measure(behaviour: Behaviour, enough: Enough | None = None, /, **settings: object) -> Measured:
    """Run the bench against a server of this behaviour; without a warm-up, so that every operation counts.

    Args:
        behaviour: the server's.
        enough: ends the run as soon as its result so far is such, in place of `duration_s`.
        settings: those of the `ConnectSpec` that are to be others.
    """
    with ScriptedPostgres(behaviour) as server, closing(StopSwitch()) as stop:
        given: dict[str, object] = {
            "targets": (parse_target(server.url(), env={}, default_user="nobody"),),
            "warmup_s": 0.0,
            "grace_s": 30.0,
            "seed": 1,
        }
        if enough is not None:
            given |= {"duration_s": 0.0, "tick_s": 0.05}
        run = Run(ConnectSpec(**(given | settings)), "truth", stop)  # type: ignore[arg-type]  # checked by ConnectSpec
        run_until(enough, run, stop)
        return Measured(run.result, server.truth())


def run_until(enough: Enough | None, run: Run, stop: StopSwitch) -> None:
    """Let `run` go on to its end, or until there is `enough` of it."""
    for _ in run.snapshots():
        if enough is not None and not stop.requested and enough(run.result):
            stop.request()


def attempts(count: int) -> Enough:
    """Enough are so many operations, whatever became of them."""
    return lambda result: result.total.ok + result.total.failed >= count


def floor_of(**settings: object) -> Histogram:
    """What the client, the kernel and a server that answers at once take together."""
    measured = measure(Behaviour(), **{**settings, "duration_s": 0.6})
    assert measured.run.total.ok == measured.truth.served > 100
    return measured.run.total.latency


def until_undisturbed(
    check: Callable[[Measured, Histogram], None], behaviour: Behaviour, floor: Histogram, **settings: object
) -> None:
    """Measure and `check` against the floor; both once more where client or server was disturbed."""

    def again() -> Histogram:
        nonlocal floor
        floor = floor_of(**settings)
        return floor

    once_more_if_disturbed(
        lambda: measure(behaviour, **settings), lambda measured: check(measured, floor), before_next=again
    )


def once_more_if_disturbed(
    make: Callable[[], Measured],
    check: Callable[[Measured], None],
    before_next: Callable[[], object] = lambda: None,
) -> None:
    """Measure and `check`, and repeat that where client or server was disturbed."""
    for attempt in range(1, _ATTEMPTS + 1):
        measured = make()
        if attempt == _ATTEMPTS and measured.disturbed_by_others:
            measured = replace(measured, allowance_ms=measured.held_up_ms)
        try:
            check(measured)
        except AssertionError:
            if attempt == _ATTEMPTS or not measured.disturbed:
                raise
            before_next()
        else:
            return


def assert_agrees(measured: Measured, reported: Histogram, truth: Histogram, floor: Histogram) -> None:
    """Percentiles as reported are the true ones, but for 1 %, a bucket, its own cost and an allowance."""
    assert reported.count == truth.count
    for name, mine, true, own in zip(
        PERCENTILES,
        reported.percentiles_ms(PERCENTILES),
        truth.percentiles_ms(PERCENTILES),
        floor.percentiles_ms(PERCENTILES),
        strict=True,
    ):
        if is_thin(name, truth.count):
            continue  # too few beyond it to mean anything, as the reports say themselves
        assert mine is not None
        assert true is not None
        assert own is not None
        bucket_ms = _bucket_ms(truth, true)
        slack_ms = max(true * 0.01, bucket_ms)
        most_ms = true + slack_ms + own + min(measured.allowance_ms, true * _MOST_ALLOWANCE)
        assert true - slack_ms <= mine <= most_ms, f"p{name:g}: {mine} ms, in truth {true} ms"


def _bucket_ms(histogram: Histogram, value_ms: float) -> float:
    """Width of the bucket that holds `value_ms`."""
    indices, _ = histogram.nonzero()
    index = next(i for i in indices if bucket_upper_us(indices[indices == i])[0] >= value_ms * 1e3 - 1)
    at = indices[indices == index]
    return float(bucket_upper_us(at)[0] - bucket_lower_us(at)[0] + 1) / 1e3


def phase(run: RunResult, name: Phase) -> Histogram:
    """One phase of a run."""
    return run.total.phases[name]
