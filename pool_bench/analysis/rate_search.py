"""The search for the highest rate that is sustained: which rate to try next, given how the last one went.

Pure: it neither measures nor waits. The rate is doubled until one fails (or halved until one passes), then
the gap between the highest that passed and the lowest that failed is halved in the logarithm until it is
within the tolerance, and what was found is confirmed by a longer trial. Trials are noisy: a rate that fails
is tried a second time before that is believed, and a rate that passed by luck falls at its confirmation,
after which the search goes on below it, by twice as much each time.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

TrialKind = Literal["raise", "lower", "narrow", "confirm"]
_MOST_CONFIRMATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate to try.

    Attributes:
        rate: operations a second.
        kind: what for; `confirm` is to be the longest.
        again: it has failed once already.
    """

    rate: float
    kind: TrialKind
    again: bool = False


class RateSearch:
    """Says which rate to try next.

    Args:
        first: the rate to begin with, operations a second.
        lowest, highest: no rate outside of these is tried.
        tolerance: how far apart, as a share, the best rate and the worst may stay.

    Attributes:
        trial: the next one; None at the end.
        passed: the highest rate that passed and has not been refuted since, None where there is none.
        failed: the lowest rate that failed, None where none has.
        found: the confirmed rate, None until the end and where there is none.
    """

    def __init__(self, first: float, *, lowest: float, highest: float, tolerance: float = 0.05) -> None:
        if not (0 < lowest <= highest and tolerance > 0):
            raise ValueError("a search needs 0 < lowest <= highest, and a tolerance greater than 0")
        self._lowest = lowest
        self._highest = highest
        self._tolerance = tolerance
        self._good: list[float] = []
        self._confirmations = 0
        self.failed: float | None = None
        self.found: float | None = None
        self.trial: Trial | None = Trial(min(max(first, lowest), highest), "raise")

    @property
    def passed(self) -> float | None:
        """The highest rate that passed and is below all that failed."""
        return self._good[-1] if self._good else None

    def tell(self, *, passed: bool) -> None:
        """How the trial went.

        Raises:
            ValueError: there was none.
        """
        trial = self.trial
        if trial is None:
            raise ValueError("the search is over")
        if not passed and not trial.again and trial.kind != "confirm":
            self.trial = Trial(trial.rate, trial.kind, again=True)
            return
        if passed:
            self._good = sorted({*self._good, trial.rate})
            if trial.kind == "confirm":
                self.found, self.trial = trial.rate, None
                return
        else:
            self.failed = trial.rate if self.failed is None else min(self.failed, trial.rate)
            self._good = [rate for rate in self._good if rate < trial.rate]
        self.trial = self._after_refusal(trial.rate) if trial.kind == "confirm" else self._next()

    def _next(self) -> Trial | None:
        best, worst = self.passed, self.failed
        if worst is None:
            assert best is not None  # noqa: S101  # one of the two is known after a trial
            if best >= self._highest:
                return self._confirm(best)
            return Trial(min(best * 2, self._highest), "raise")
        if best is None:
            return None if worst <= self._lowest else Trial(max(worst / 2, self._lowest), "lower")
        if worst / best <= 1 + self._tolerance:
            return self._confirm(best)
        return Trial(math.sqrt(best * worst), "narrow")

    def _confirm(self, rate: float) -> Trial | None:
        self._confirmations += 1
        return Trial(rate, "confirm") if self._confirmations <= _MOST_CONFIRMATIONS else None

    def _after_refusal(self, rate: float) -> Trial | None:
        """Below a rate that a longer trial has refuted: 1, 2, 4 tolerances down, confirmed straight away."""
        lower = rate / (1 + self._tolerance) ** (1 << (self._confirmations - 1))
        return self._confirm(lower) if lower >= self._lowest else None
