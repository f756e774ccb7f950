"""Pictures of results, as PNG or SVG, without a display and without pyplot.

All are drawn from a `ResultRecord`, so the picture of a run and that of its file are the same.
matplotlib is imported when the first picture is drawn.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pool_bench.compare.rounds import by_setting
from pool_bench.errors import UsageError
from pool_bench.report.plot.formats import Format, plot_format
from pool_bench.report.summary.verdict import suspects_words
from pool_bench.results.files import write_atomically
from pool_bench.results.model import ResultRecord, SearchRecord
from pool_bench.results.run import RunRecord

if TYPE_CHECKING:
    from pool_bench.compare.comparison import Comparison
    from pool_bench.report.plot.sheet import Sheet


def plot_run(result: ResultRecord, *, run: int = 0, file_format: Format = "png") -> bytes:
    """One run: latency histogram with percentiles, phases, timeline."""

    def draw() -> "Sheet":
        from pool_bench.report.plot.run import draw_run

        return draw_run(result, result.runs[run])

    return _render(draw, file_format, [result.runs[run]])


def plot_sweep(result: ResultRecord, *, file_format: Format = "png") -> bytes:
    """All runs of a sweep: throughput and latency against concurrency."""

    def draw() -> "Sheet":
        from pool_bench.report.plot.sweep import draw_sweep

        return draw_sweep(result)

    return _render(draw, file_format, result.runs)


def plot_search(result: ResultRecord, search: SearchRecord, *, file_format: Format = "png") -> bytes:
    """A search for the maximum: what was achieved and the latency, against what was offered."""

    def draw() -> "Sheet":
        from pool_bench.report.plot.search import draw_search

        return draw_search(result, search)

    # Trials that missed the objective were to find out what is too much.
    passed = [step.run for step in search.steps if step.passed]
    return _render(draw, file_format, [result.runs[passed[-1]]] if passed else result.runs)


def plot_compare(results: Sequence[ResultRecord], *, file_format: Format = "png") -> bytes:
    """Several results over each other: histograms and percentiles, or curves where one is a sweep."""

    def draw() -> "Sheet":
        from pool_bench.report.plot.compare import draw_compare

        return draw_compare(results)

    return _render(draw, file_format, [run for result in results for run in result.runs])


def plot_hold(results: Sequence[ResultRecord], *, file_format: Format = "png") -> bytes:
    """Runs that held connections: one in full, several over each other.

    Raises:
        UsageError: some of the runs held none.
    """
    from pool_bench.report.plot.hold_compare import draw_hold_compare, only_holds

    holds = only_holds(results)

    def draw() -> "Sheet":
        from pool_bench.report.plot.hold import draw_hold

        if len(holds) > 1:
            return draw_hold_compare(holds)
        return draw_hold(holds[0].result, holds[0].run, holds[0].hold)

    return _render(draw, file_format, [hold.run for hold in holds])


def plot_pools(results: Sequence[ResultRecord], *, file_format: Format = "png") -> bytes:
    """Pools under load, side by side.

    Raises:
        UsageError: some of the runs had no pool.
    """

    def draw() -> "Sheet":
        from pool_bench.compare.pool_sizes import SIZE
        from pool_bench.report.plot.pool_size import draw_sizes
        from pool_bench.report.plot.pools import draw_pools

        sweeps = [
            result
            for result in results
            if any(run.checkout is not None and run.scenario == SIZE for run in result.runs)
        ]
        if sweeps and len(results) > 1:
            raise UsageError(f"{sweeps[0].source} is a sweep of pool sizes: plot such results one by one")
        if sweeps:
            return draw_sizes(sweeps[0])
        return draw_pools(results)

    return _render(draw, file_format, [run for result in results for run in result.runs])


def plot(results: Sequence[ResultRecord], *, file_format: Format = "png") -> bytes:
    """The picture that fits: of one run, of one sweep, of held connections, or a comparison of several.

    Raises:
        UsageError: there is no run to draw, or held connections are to be compared with something else.
    """
    for result in results:
        if not result.runs:
            raise UsageError(f"{result.source} holds no run to plot")
    if not results:
        raise UsageError("no result file to plot")
    if any(run.checkout is not None for result in results for run in result.runs):
        return plot_pools(results, file_format=file_format)
    source = results[0].source
    results = [part for result in results for part in by_setting(result)]
    if not results:
        raise UsageError(f"{source} holds no run to plot: none started")
    if any(run.hold is not None for result in results for run in result.runs):
        return plot_hold(results, file_format=file_format)
    if len(results) == 1 and results[0].find_max is not None and results[0].find_max.steps:
        return plot_search(results[0], results[0].find_max, file_format=file_format)
    if len(results) > 1:
        return plot_compare([answer_of(result) for result in results], file_format=file_format)
    if len(results[0].runs) > 1:
        return plot_sweep(results[0], file_format=file_format)
    return plot_run(results[0], file_format=file_format)


def answer_of(result: ResultRecord) -> ResultRecord:
    """Of a search for the maximum only the run that confirmed it, else its last; anything else as it is."""
    search = result.find_max
    if search is None or not search.steps:
        return result
    passed = [step.run for step in search.steps if step.passed and step.rate == search.rate]
    return replace(result, runs=(result.runs[(passed or [-1])[-1]],), find_max=None)


def save_plot(path: Path, results: Sequence[ResultRecord]) -> None:
    """Draw `results` as `plot` does and write the picture to `path`, as a whole or not at all.

    Raises:
        UsageError: wrong suffix, nothing to draw, or the path cannot be written.
    """
    write_atomically(path, plot(results, file_format=plot_format(path)))


def save_differences(path: Path, comparisons: "Sequence[Comparison]") -> None:
    """Draw the changes of `comparisons` with their intervals and write the picture to `path`.

    Raises:
        UsageError: wrong suffix, nothing to draw, or the path cannot be written.
    """
    if not any(comparison.pairs for comparison in comparisons):
        raise UsageError("there is no setting in common to draw")

    def draw() -> "Sheet":
        from pool_bench.report.plot.differences import draw_differences

        return draw_differences(comparisons)

    both = [result for comparison in comparisons for result in (comparison.base, comparison.new)]
    # A base that is compared with several is there once.
    runs = [run for result in {id(result): result for result in both}.values() for run in result.runs]
    write_atomically(path, _render(draw, plot_format(path), runs))


def stamp_words(runs: Sequence[RunRecord]) -> list[str]:
    """What is stamped on a picture of `runs`: why which of them are suspect; nothing where none is.

    Returns:
        Ways to say it, each shorter than the one before it.
    """
    names = [run.label for run in runs]
    if len(set(names)) < len(names):
        names = [f"run {number}" for number in range(1, len(names) + 1)]
    judged = [
        (name, [] if run.verdict is None else [reason.code for reason in run.verdict.reasons])
        for name, run in zip(names, runs, strict=True)
    ]
    ways = [suspects_words(judged, most) for most in (None, 3, 2, 1, 0)]
    return [] if not ways[0] else sorted(dict.fromkeys(ways), key=len, reverse=True)


def _render(draw: "Callable[[], Sheet]", file_format: Format, runs: Sequence[RunRecord]) -> bytes:
    """Draw a sheet and stamp it: a picture is passed on without the summary that qualifies it."""
    # Without a writable home matplotlib logs that it made a temporary directory, and on its first
    # use that it builds a font cache: neither is about the benchmark.
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from pool_bench.report.plot.sheet import style

        with warnings.catch_warnings(), style():
            # A name in a script the font does not have is drawn as boxes, without a word on stderr.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            target = io.BytesIO()
            metadata = {"Date": None} if file_format == "svg" else None
            sheet = draw()
            words = stamp_words(runs)
            if words:
                sheet.stamp(words)
            sheet.figure.savefig(target, format=file_format, metadata=metadata)
            return target.getvalue()
    finally:
        logger.setLevel(level)
