"""Runs with the noise of real ones: correlated seconds, drift, heavy tails, stalls, moods from run to run."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from pool_bench.compare.bootstrap import FloatArray
from pool_bench.compare.samples import Round
from pool_bench.stats.histogram import Histogram

_SETTLING: Final = 40
# Latencies drawn for each second: enough to have a p99, few enough for hundreds of runs.
_DRAWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How a run differs from its ideal.

    Attributes:
        per_second: relative standard deviation of a second's rate.
        correlation: of one second with the next, AR(1).
        tails: degrees of freedom of Student's distribution that the shocks have.
        drift: relative standard deviation of how much the rate changes from the run's begin to its end.
        mood: relative standard deviation of the level from run to run.
        stalls: share of seconds in which a twentieth of all operations takes thirty times as long.
    """

    per_second: float = 0.04
    correlation: float = 0.5
    tails: float = 4.0
    drift: float = 0.02
    mood: float = 0.0
    stalls: float = 0.0


def noisy_round(
    rng: np.random.Generator,
    noise: Noise,
    *,
    seconds: int = 30,
    slower: float = 0.0,
    mood: float | None = None,
) -> Round:
    """One run of a server that opens 500 connections a second, or `slower` by that share.

    Args:
        mood: the level of this run, where it is shared with another.
    """
    level = noisy_levels(rng, noise, seconds, mood=mood) + math.log(1 - slower)
    ok = np.round(500 * np.exp(level))
    latencies = rng.lognormal(math.log(8.0), 0.35, (seconds, _DRAWN)) * np.exp(-level)[:, None]
    if noise.stalls:
        stalled = rng.random(seconds) < noise.stalls
        latencies[stalled, : _DRAWN // 20] *= 30
    return round_of(ok, latencies)


def noisy_levels(
    rng: np.random.Generator, noise: Noise, looks: int, *, mood: float | None = None
) -> FloatArray:
    """How far the rate of each look of a run (shape n) is from its ideal, as logarithms."""
    shocks = rng.standard_t(noise.tails, looks + _SETTLING) / math.sqrt(noise.tails / (noise.tails - 2))
    kept = math.sqrt(1 - noise.correlation**2)
    level = np.empty_like(shocks)
    state = 0.0
    for index, shock in enumerate(shocks):
        state = noise.correlation * state + kept * shock
        level[index] = state
    level = noise.per_second * level[_SETTLING:]
    level += noise.drift * rng.standard_normal() * np.linspace(-0.5, 0.5, looks)
    level += noise.mood * rng.standard_normal() if mood is None else mood
    return level


def round_of(ok: FloatArray, latencies: FloatArray) -> Round:
    """A run of these counts (shape n) and latencies in milliseconds (shape n x m)."""
    latency = Histogram()
    latency.record((latencies.ravel() * 1e6).astype(np.int64))
    quantiles = np.percentile(latencies, (50, 95, 99, 100), axis=1, method="inverted_cdf").T
    # As many latencies were drawn in each second; the time is what makes the rate of the whole run right.
    duration_s = len(ok) * latency.count / float(ok.sum())
    return Round(np.ones(len(ok)), ok, np.zeros(len(ok)), quantiles, latency, duration_s)
