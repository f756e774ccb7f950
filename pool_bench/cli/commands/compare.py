"""`compare`: is a result better than another, worse, or is the difference noise?"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pool_bench.cli.entry import run_command
from pool_bench.cli.help_pages import Command
from pool_bench.cli.options.shared import verbose_option
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_OK, OutputPath, Share
from pool_bench.cli.status import busy
from pool_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pool_bench.compare.comparison import Comparison

# `report.compare.ALLOWABLE`, whose import would make `--help` slow.
_ALLOWABLE: Final = (
    *("target", "server", "host", "driver", "setting"),
    *("saturated", "neighbours", "interrupted", "starved"),
)


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="BASE NEW...", type=click.Path(path_type=Path))
@click.option(
    "--fail-on-regression",
    type=Share(),
    metavar="SHARE",
    help="Exit with 1 where a figure is shown to be worse, and is by this much (5%) or more; also where more "
    "operations fail, where settings cannot be compared, and where there are none in common.",
)
@click.option(
    "--allow",
    type=click.Choice(_ALLOWABLE),
    multiple=True,
    metavar="WHAT",
    help="Compare all the same where this differs between the files or is wrong with one: "
    f"{', '.join(_ALLOWABLE[:-1])} or {_ALLOWABLE[-1]}. Repeatable.",
)
@click.option("--json", "json_path", type=OutputPath(), metavar="FILE|-", help="As JSON, - for stdout.")
@click.option("--summary", "summary_path", type=OutputPath(), metavar="FILE.md", help="As Markdown.")
@click.option("--plot", "plot_path", type=OutputPath(), metavar="FILE.png|svg", help="As a picture.")
@verbose_option
@click.pass_context
def compare(
    ctx: click.Context,
    files: tuple[Path, ...],
    fail_on_regression: float | None,
    allow: tuple[str, ...],
    json_path: Path | None,
    summary_path: Path | None,
    plot_path: Path | None,
    verbose: bool,
) -> None:
    """Compare result files: better, worse, or no difference shown, with intervals for every change.

    Each NEW is compared with BASE, setting by setting. One file alone is compared within itself, if
    it was measured with --interleave.

    Intervals are block-bootstrap intervals over the seconds and rounds of the runs. Those of one
    setting hold together in 95 % of comparisons, so two runs of the same thing are called different in at
    most 5 %.
    """
    run_command(
        ctx,
        lambda: partial(
            _compare, files, fail_on_regression, allow, json_path, summary_path, plot_path, verbose=verbose
        ),
    )


def _compare(
    files: "Sequence[Path]",
    fail_on_regression: float | None,
    allow: "Sequence[str]",
    json_path: Path | None,
    summary_path: Path | None,
    plot_path: Path | None,
    *,
    verbose: bool,
) -> int:
    from pool_bench.compare.comparison import compare as compare_results
    from pool_bench.compare.rounds import compare_within, in_rounds
    from pool_bench.report.brief.comparison import comparisons_brief
    from pool_bench.report.brief.screen import rows_of
    from pool_bench.report.plot.figures import save_differences
    from pool_bench.report.plot.formats import plot_format
    from pool_bench.report.summary.comparison import comparison_markdown, comparison_text, comparisons_json
    from pool_bench.report.text import colour_wanted
    from pool_bench.results.files import check_writable, write_atomically
    from pool_bench.results.read import load_result
    from pool_bench.results.write import dumps, write_json

    on_stdout = json_path is not None and str(json_path) == "-"
    for path, option in ((json_path, "--json"), (summary_path, "--summary"), (plot_path, "--plot")):
        if path is not None and not (option == "--json" and on_stdout):
            check_writable(path, option=option)
    if plot_path is not None:
        plot_format(plot_path, option="--plot")
    results = [load_result(file) for file in files]
    for result in results:
        if not result.runs:
            raise UsageError(f"{result.source} holds no run to compare")
    base, *others = results
    if others:
        comparisons = [compare_results(base, other, allow=allow) for other in others]
    elif in_rounds(base) and any(run.setting for run in base.runs):
        comparisons = [compare_within(base, allow=allow)]
    else:
        raise UsageError(f"{base.source} has nothing to be compared with: name a second file")
    text = sys.stderr if on_stdout else sys.stdout
    brief = comparisons_brief(comparisons, colour=colour_wanted(text))
    files = [path for path in (None if on_stdout else json_path, summary_path, plot_path) if path is not None]
    if verbose:
        print(
            "\n\n".join(comparison_text(each, colour=colour_wanted(text)) for each in comparisons), file=text
        )
    elif body := brief.body(sum(rows_of(f"wrote {path}") for path in files) + (plot_path is not None)):
        print(body, file=text, flush=True)
    if json_path is not None:
        content = comparisons_json(comparisons)
        if on_stdout:
            sys.stdout.write(dumps(content).decode("utf-8"))
        else:
            write_json(json_path, content)
    if summary_path is not None:
        markdown = "\n".join(map(comparison_markdown, comparisons))
        write_atomically(summary_path, markdown.encode("utf-8", "replace"))
    if plot_path is not None:
        with busy(f"drawing {plot_path}"):
            save_differences(plot_path, comparisons)
    for path in files:
        print(f"wrote {path}", file=sys.stderr, flush=True)
    print(f"\n{brief.last}", file=text, flush=True)
    if fail_on_regression is None:
        return EXIT_OK
    reasons = [reason for each in comparisons for reason in regressions(each, fail_on_regression)]
    for reason in reasons:
        print(f"regression: {reason}", file=sys.stderr)
    return EXIT_FAILED if reasons else EXIT_OK


def regressions(comparison: "Comparison", share: float) -> list[str]:
    """Why a gate on this comparison stays shut, one line each; empty where it may open.

    What could not be compared keeps it shut as well: a gate that saw nothing has nothing to say.

    Args:
        share: how much worse a figure may get, 0 to 1.
    """
    from pool_bench.compare.change import Change
    from pool_bench.report.summary.comparison import cells, describe

    reasons = []
    for pair in comparison.pairs:
        if pair.verdict is Change.NOT_COMPARABLE:
            reasons.append(f"{describe(pair)}: not comparable: {pair.obstructions[0].words}")
        for figure in pair.regressions(share):
            name, before, after, change, *_ = cells(figure)
            reasons.append(f"{describe(pair)}: {name} {before} -> {after} ({change})")
    if not comparison.pairs:
        reasons.append(f"{comparison.base.source} and {comparison.new.source} have no setting in common")
    return reasons
