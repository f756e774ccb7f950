"""Options of what a CI job asks of a benchmark: thresholds, and a summary in Markdown."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.cli.options.types import OutputPath

if TYPE_CHECKING:
    from pool_bench.results.thresholds import Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What must hold of the results, and where a summary of them goes.

    Attributes:
        texts: thresholds as the user wrote them.
        abort_on_fail: end a run as soon as one of them is lost.
        summary: a Markdown file, None for none.
    """

    texts: tuple[str, ...] = ()
    abort_on_fail: bool = False
    summary: Path | None = None

    def read(self, *, hold: bool = False, pool: bool = False) -> "tuple[Threshold, ...]":
        """The thresholds, checked against the fields that results of this tool have.

        Args:
            hold: of a tool that holds connections.
            pool: of one that puts pools under load.

        Raises:
            UsageError: a threshold is malformed or of no known field, or the summary cannot be written.
        """
        from pool_bench.results.files import check_writable
        from pool_bench.results.thresholds import known_fields, read_thresholds

        if self.summary is not None:
            check_writable(self.summary, option="--summary")
        return read_thresholds(self.texts, known_fields(hold=hold, pool=pool)) if self.texts else ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: Click's own; there is nothing that could fail.
        """
        if self.abort_on_fail and not self.texts:
            raise click.UsageError("--abort-on-fail needs --threshold")


NO_CHECKS: Final = Checks()

# The command gets them as one `Checks`, named `checks`.
threshold_options = gathered(
    "checks",
    Checks,
    click.option(
        "--threshold",
        "texts",
        multiple=True,
        metavar="CONDITION",
        help='Exit with 1 unless this holds of every run: "p99<20ms", "throughput>400", "errors.timeout==0", '
        '"errors<0.1%", or any field of a run in the result file, such as "phases.auth.p99<5ms" or '
        '"client.cpu_percent<80%". Repeatable.',
    ),
    click.option(
        "--abort-on-fail",
        is_flag=True,
        help="End as soon as a threshold is lost: a count at once, a share of errors once one failure less "
        "would not save it, percentiles and throughput after 3 failing seconds (not in the first 5 s).",
    ),
    click.option(
        "--summary",
        "summary",
        type=OutputPath(),
        metavar="FILE.md",
        help="Write a Markdown summary, for the page of a CI job.",
    ),
)
