"""Was it better, worse, or noise? Two result files compared, setting by setting.

What makes runs rounds of one setting, and settings partners, is `compare_settings`. What may not be
compared gets its reasons instead of a verdict; its figures are shown all the same.
The figures of one setting are tested together: each interval has the confidence that Bonferroni's
correction asks for, so that all of them hold at once in 95 % of comparisons, and two runs of the same
thing are called different in at most 5 %. That holds for each setting; a sweep of many is as many
chances. A difference counts only where its whole interval is beyond `SMALLEST`, since a machine differs
from itself by a little from one run to the next, which a single run of each cannot show.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from pool_bench.analysis.reasons import ReasonCode
from pool_bench.analysis.verdict import short_words
from pool_bench.compare.bootstrap import FEWEST_ROUNDS
from pool_bench.compare.change import SMALLEST_SHARE, Change, Figure, Quantity, Scale, judge, unjudged
from pool_bench.compare.neighbours import crowded_words
from pool_bench.compare.pool_figures import sample_rounds
from pool_bench.compare.round_samples import all_of, dropped_round, keepalive_round, measured_round
from pool_bench.compare.samples import Resampled, Round, Sampled
from pool_bench.compare.settings import Setting, differing, partners, settings_of
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram

CONFIDENCE: Final = 0.95
SHORTEST_S: Final = 10.0
# A share that differs by this much without being shown to differ gets an explanation.
_WORTH_A_NOTE: Final = 0.01
# Reasons for which a run's own figures are not those of its setting.
_CLIENT_DOUBTS: Final = frozenset({ReasonCode.CLIENT_BLOCKED, ReasonCode.CLIENT_SUSPENDED})


class Obstacle(StrEnum):
    """Why two settings may not be compared; the values are the words of `--allow`."""

    TARGET = "target"
    SERVER = "server"
    HOST = "host"
    DRIVER = "driver"
    SETTING = "setting"
    SHORT = "short"
    ROUNDS = "rounds"
    SATURATED = "saturated"
    NEIGHBOURS = "neighbours"
    INTERRUPTED = "interrupted"
    EMPTY = "empty"


THROUGHPUT: Final = Quantity(name="throughput", unit="/s", more_is_better=True)
FAILED: Final = Quantity(name="failed", unit="%", scale=Scale.SHARE)
PERCENTILES: Final = (50.0, 95.0, 99.0)
OPENED: Final = Quantity(name="opened", unit="/s", more_is_better=True)
KEEPALIVE: Final = Quantity(name="keep-alive p50", unit="ms")
DROPPED: Final = Quantity(name="dropped", unit="%", scale=Scale.SHARE)

# Nobody can allow these away: there is nothing to compute with.
_ABSOLUTE: Final = frozenset((Obstacle.SHORT, Obstacle.ROUNDS, Obstacle.EMPTY))
# Keeps latencies from being judged, and nothing else.
STARVED: Final = "starved"
ALLOWABLE: Final = (*(str(obstacle) for obstacle in Obstacle if obstacle not in _ABSOLUTE), STARVED)


@dataclass(frozen=True, slots=True)
class Obstruction:
    """Why a pair may not be compared: of which sort, and in words."""

    obstacle: Obstacle
    words: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One setting of two files, compared.

    Attributes:
        base, new: the two; `figures` says how they differ.
        verdict: over all figures.
        obstructions: why it is `Change.NOT_COMPARABLE`; empty otherwise.
        notes: what was allowed, and what the reader should know.
    """

    base: Setting
    new: Setting
    figures: tuple[Figure, ...]
    verdict: Change
    obstructions: tuple[Obstruction, ...]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Names the setting."""
        one, other = self.base.label, self.new.label
        return one if one == other else f"{one} / {other}"

    def regressions(self, share: float) -> list[Figure]:
        """Figures that are worse by at least `share` (0 to 1).

        Failures and drops count in any size where they are shown to be more, and from `share` on even
        where they came in so few moments that an interval says nothing.
        """
        if self.verdict is Change.NOT_COMPARABLE:
            return []
        return [figure for figure in self.figures if _is_regression(figure, share)]


def _is_regression(figure: Figure, share: float) -> bool:
    if figure.quantity.scale is Scale.SHARE:
        return figure.verdict is Change.WORSE or (figure.change or 0.0) >= max(share, SMALLEST_SHARE)
    return figure.verdict is Change.WORSE and figure.size >= share


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two files compared.

    Attributes:
        base, new: the files.
        pairs: the settings that both have.
        missing: settings that only one has, in words.
    """

    base: ResultRecord
    new: ResultRecord
    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]


def compare(base: ResultRecord, new: ResultRecord, *, allow: Collection[str] = ()) -> Comparison:
    """Compare each setting of `new` with the same one of `base`.

    Args:
        allow: obstacles (`ALLOWABLE`) that become notes.
    """
    pairs, ours, theirs = partners(settings_of(base), settings_of(new))
    missing = [
        f"{_describe(setting)} is only in {file.source}"
        for alone, file in ((ours, base), (theirs, new))
        for setting in alone
    ]
    compared = [compare_settings(one, other, allow=allow) for one, other in pairs]
    return Comparison(base, new, tuple(compared), (*_not_started(base), *_not_started(new), *missing))


def _not_started(result: ResultRecord) -> list[str]:
    reasons = dict.fromkeys((run.driver, run.not_started) for run in result.runs if run.not_started)
    return [f"{driver} did not start in {result.source}: {why}" for driver, why in reasons]


def compare_settings(
    base: Setting,
    new: Setting,
    *,
    allow: Collection[str] = (),
    by_design: Collection[str] = (),
    in_turn: bool = False,
) -> Pair:
    """Compare two settings, of two files or of one session that measured them in turn.

    Args:
        allow: obstacles that become notes.
        by_design: those that are what the comparison is about, and are not worth a note.
        in_turn: their rounds alternated, so that neighbours of the machine met both.
    """
    found = [obstruction for obstruction in _obstructions(base, new) if obstruction.obstacle not in by_design]
    for name, setting in (("the base", base), ("the new", new)):
        # Rounds in turn have it in their intervals, whoever made it.
        if not (in_turn and len(setting.runs) >= FEWEST_ROUNDS) and (crowd := crowded_words(setting.runs)):
            found.append(Obstruction(Obstacle.NEIGHBOURS, f"in {name} run {crowd}"))
    allowed = [
        obstruction
        for obstruction in found
        if obstruction.obstacle in allow and obstruction.obstacle not in _ABSOLUTE
    ]
    obstructions = tuple(obstruction for obstruction in found if obstruction not in allowed)
    figures = _figures(base, new)
    notes = [f"allowed: {obstruction.words}" for obstruction in allowed]
    if STARVED not in allow and any(map(is_starved, (*base.runs, *new.runs))):
        figures = tuple(
            unjudged(figure.quantity, figure.base, figure.new) if figure.quantity.unit == "ms" else figure
            for figure in figures
        )
        notes.append(
            "latencies are not judged: the client had to wait for its core, and they contain that "
            f"(--allow {STARVED} judges them)"
        )
    verdict = Change.NOT_COMPARABLE if obstructions else _overall(figures)
    circumstances = differing(base.identity.circumstances, new.identity.circumstances)
    if circumstances:
        notes.append(f"measured otherwise: {', '.join(circumstances)}")
    if base.is_pool and any(map(is_saturated, (*base.runs, *new.runs))):
        notes.append("the client was the bottleneck: what differs is what pool and driver cost it")
    notes += [
        f"{figure.quantity.name}: the difference comes from too few moments of the runs to show a tendency"
        for figure in figures
        if figure.quantity.scale is Scale.SHARE
        and figure.verdict in (Change.SAME, Change.UNKNOWN)
        and figure.size >= _WORTH_A_NOTE
    ]
    return Pair(base, new, figures, verdict, obstructions, tuple(notes))


def _describe(setting: Setting) -> str:
    return setting.label if setting.is_pool else f"{setting.label} ({setting.driver})"


def _obstructions(base: Setting, new: Setting) -> list[Obstruction]:
    found = []
    if base.targets != new.targets:
        found.append(Obstruction(Obstacle.TARGET, f"different targets, {base.targets} and {new.targets}"))
    elif (versions := _differing(base, new)) is not None:
        found.append(Obstruction(Obstacle.SERVER, f"different servers, {versions}"))
    if _host(base) != _host(new):
        found.append(Obstruction(Obstacle.HOST, f"different hosts, {_host(base)} and {_host(new)}"))
    if base.driver != new.driver:
        what = "pools" if base.is_pool else "drivers"
        found.append(Obstruction(Obstacle.DRIVER, f"different {what}, {base.driver} and {new.driver}"))
    parameters = differing(base.identity.parameters, new.identity.parameters)
    if parameters:
        found.append(Obstruction(Obstacle.SETTING, f"different settings, {', '.join(parameters)}"))
    for name, setting in (("the base", base), ("the new", new)):
        found += _own_obstructions(name, setting, base)
    return found


def _own_obstructions(name: str, setting: Setting, base: Setting) -> list[Obstruction]:
    """What is wrong with one of the two by itself."""
    found = []
    runs = setting.runs
    seconds = sum(run.duration_s for run in runs)
    if not any(run.ok for run in runs):
        # A new run without any success, where the base had some, is a verdict and no obstacle.
        if setting is base or not any(run.ok for run in base.runs):
            found.append(Obstruction(Obstacle.EMPTY, f"{name} run had no success"))
    elif setting.is_changing:
        if len(runs) < FEWEST_ROUNDS:
            found.append(Obstruction(Obstacle.ROUNDS, _few_rounds(name, setting)))
    elif not setting.is_hold and seconds < SHORTEST_S * 0.98:
        words = f"{name} run is too short: {seconds:.3g} s, and it takes {SHORTEST_S:.0f} s at least"
        found.append(Obstruction(Obstacle.SHORT, words))
    if any(run.interrupted for run in runs):
        found.append(Obstruction(Obstacle.INTERRUPTED, f"{name} run was interrupted"))
    doubts = {reason.code for run in runs if run.verdict is not None for reason in run.verdict.reasons}
    found += [
        Obstruction(Obstacle.SATURATED, f"in {name} run the {short_words(code)}")
        for code in sorted(doubts & _CLIENT_DOUBTS)
    ]
    why = next((run.client.why or "" for run in runs if is_saturated(run)), None)
    if doubts & _CLIENT_DOUBTS:
        why = None  # said already
    # What a pool costs its client is part of what it is compared for.
    if why is not None and not setting.is_pool:
        words = f"in {name} run the client was the bottleneck{f': {why}' if why else ''}"
        found.append(Obstruction(Obstacle.SATURATED, words))
    return found


def _few_rounds(name: str, setting: Setting) -> str:
    count, scenario = len(setting.runs), setting.runs[0].scenario
    return (
        f"{name} run has {count} round{'s' if count > 1 else ''}, and {scenario} takes {FEWEST_ROUNDS}: as "
        "it changes while it is measured, only whole rounds show what is noise"
    )


def is_starved(run: RunRecord) -> bool:
    """Whether the client had to wait for its core, so that the latency is partly its own."""
    return run.verdict is not None and any(reason.code == "client_starved" for reason in run.verdict.reasons)


def is_saturated(run: RunRecord) -> bool:
    """Whether the client was the bottleneck, so that the rate is its own."""
    named = run.verdict is not None and any(
        reason.code == "client_saturated" for reason in run.verdict.reasons
    )
    return named or (run.client.saturated and not is_starved(run))


def _differing(base: Setting, new: Setting) -> str | None:
    """The two servers, where they say that they are not the same."""
    one, other = (
        " ".join(filter(None, (setting.result.server.get("product"), setting.result.server.get("version"))))
        for setting in (base, new)
    )
    return f"{one} and {other}" if one and other and one != other else None


def _host(setting: Setting) -> str:
    host = setting.result.host
    cpus = "?" if host.cpus is None else host.cpus
    return f"{cpus} CPUs {host.platform} Python {host.python}"


def _figures(base: Setting, new: Setting) -> tuple[Figure, ...]:
    if not any(run.ok for run in new.runs) and any(run.ok for run in base.runs):
        return (_nothing_left(base),)
    return _hold_figures(base, new) if base.is_hold else _cycle_figures(base, new)


def _nothing_left(base: Setting) -> Figure:
    seconds = sum(run.duration_s for run in base.runs)
    rate = sum(run.ok for run in base.runs) / seconds if seconds else None
    quantity = OPENED if base.is_hold else THROUGHPUT
    return Figure(quantity, rate, 0.0, -1.0, -1.0, -1.0, Change.WORSE)


def _cycle_figures(base: Setting, new: Setting) -> tuple[Figure, ...]:
    if base.is_changing:
        few = min(len(base.runs), len(new.runs)) < FEWEST_ROUNDS
        return _judged(sample_rounds(base.runs), sample_rounds(new.runs), few=few)
    paired = base.result is new.result
    if paired:
        # Rounds measured in turn; one that was cut off has no counterpart.
        common = {run.round for run in base.runs} & {run.round for run in new.runs}
        base, new = (
            replace(setting, runs=tuple(run for run in setting.runs if run.round in common))
            for setting in (base, new)
        )
    sampled = [sample_cycles(all_of(map(measured_round, setting.runs))) for setting in (base, new)]
    return judge_cycles(*sampled, paired=paired)


def judge_cycles(
    base: Mapping[Quantity, Sampled], new: Mapping[Quantity, Sampled], *, paired: bool = False
) -> tuple[Figure, ...]:
    """All figures of one setting, judged so that they hold together with `CONFIDENCE`."""
    if not base or not new:
        return ()
    confidence = 1 - (1 - CONFIDENCE) / len(base)
    return tuple(
        judge(quantity, before, new[quantity], confidence=confidence, paired=paired)
        for quantity, before in base.items()
    )


def _judged(
    base: Mapping[Quantity, Sampled], new: Mapping[Quantity, Sampled], *, few: bool
) -> tuple[Figure, ...]:
    """Figures of whole rounds; of too `few` of them they are shown only."""
    known = {quantity: (before, new[quantity]) for quantity, before in base.items() if quantity in new}
    confidence = 1 - (1 - CONFIDENCE) / max(len(known), 1)
    return tuple(
        unjudged(quantity, before.value, after.value)
        if few or not all(map(math.isfinite, (*before.rounds, *after.rounds)))
        else judge(quantity, before, after, confidence=confidence, paired=False)
        for quantity, (before, after) in known.items()
    )


def sample_cycles(rounds: Sequence[Round]) -> dict[Quantity, Sampled]:
    """The figures of connect cycles; empty without a timeline that has a success."""
    if not any(((round_.ok > 0) & np.isfinite(round_.quantiles_ms[:, 0])).any() for round_ in rounds):
        return {}
    resampled = Resampled(rounds)
    figures = {THROUGHPUT: resampled.throughput()}
    for percentile in PERCENTILES:
        figures[Quantity(name=f"p{percentile:g}", unit="ms")] = resampled.percentile(percentile)
    figures[FAILED] = resampled.failed_share()
    return figures


def _hold_figures(base: Setting, new: Setting) -> tuple[Figure, ...]:
    confidence = 1 - (1 - CONFIDENCE) / 3
    sides = [_held(setting.runs) for setting in (base, new)]
    figures = []
    for quantity, before in sides[0].items():
        after = sides[1][quantity]
        if before.sample is None or after.sample is None:
            figures.append(unjudged(quantity, before.value, after.value))
        else:
            figures.append(judge(quantity, before.sample, after.sample, confidence=confidence, paired=False))
    return tuple(figures)


@dataclass(frozen=True, slots=True)
class _Held:
    """A figure of held connections: its value, and a sample where there were seconds enough for one."""

    value: float | None
    sample: Sampled | None


def _held(runs: Sequence[RunRecord]) -> dict[Quantity, _Held]:
    holds = [run.hold for run in runs if run.hold is not None]
    seconds = sum(run.duration_s for run in runs)
    rate = sum(run.ok for run in runs) / seconds if seconds else None
    opened = all_of(map(measured_round, runs))
    asked = all_of(map(keepalive_round, holds))
    drops = all_of(dropped_round(run, hold) for run, hold in zip(runs, holds, strict=True))
    merged = Histogram()
    for hold in holds:
        merged.merge(hold.keepalive_histogram)
    ever = sum(hold.opened + hold.reopened for hold in holds)
    share = sum(hold.dropped for hold in holds) / ever if ever else None
    return {
        OPENED: _Held(rate, Resampled(opened).throughput() if _enough(opened) else None),
        KEEPALIVE: _Held(
            merged.percentile_ms(50), Resampled(asked).percentile(50) if _enough(asked) else None
        ),
        DROPPED: _Held(share, Resampled(drops).failed_share() if _enough(drops) else None),
    }


def _enough(rounds: Sequence[Round]) -> bool:
    return sum(float(round_.seconds.sum()) for round_ in rounds) >= SHORTEST_S * 0.98


def _overall(figures: Iterable[Figure]) -> Change:
    verdicts = {figure.verdict for figure in figures}
    if {Change.BETTER, Change.WORSE} <= verdicts:
        return Change.MIXED
    for verdict in (Change.WORSE, Change.BETTER):
        if verdict in verdicts:
            return verdict
    return Change.UNKNOWN if verdicts == {Change.UNKNOWN} else Change.SAME
