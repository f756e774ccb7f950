"""Options that several commands have, with the same names, defaults and words."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeVar

import click

from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.thresholds import Checks, threshold_options
from pool_bench.cli.options.types import Duration, OutputPath
from pool_bench.drivers.base import DRIVER_NAMES, DriverName

if TYPE_CHECKING:
    from pool_bench.targets.postgres import PostgresTarget

PlotFormat = Literal["png", "svg"]

_Function = TypeVar("_Function", bound=Callable[..., object])

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go.

    Attributes:
        json: a file for the result, `-` for stdout; None for one in `directory`.
        plot: a file for the picture; None for one in `directory`.
        plot_format: the format of a picture in `directory`.
        directory: where files go that have no path of their own.
        no_save: write no files but those with a path of their own.
        quiet: no live view.
        verbose: everything that is known of each run, instead of a last screen.
    """

    json: Path | None
    plot: Path | None
    plot_format: PlotFormat
    directory: Path
    no_save: bool
    quiet: bool
    verbose: bool = False

    @property
    def save(self) -> bool:
        """Whether files without a path of their own are written at all."""
        return not self.no_save

    @property
    def json_on_stdout(self) -> bool:
        """True where stdout belongs to a machine."""
        return self.json is not None and str(self.json) == "-"

    @property
    def text(self) -> TextIO:
        """Where people read: stderr where stdout belongs to a machine."""
        return sys.stderr if self.json_on_stdout else sys.stdout

    def check(self) -> None:
        """Make sure that everything can be written.

        Raises:
            UsageError: something cannot; names the option and the path.
        """
        from pool_bench.report.plot.formats import plot_format
        from pool_bench.results.files import check_writable

        if self.json is not None and not self.json_on_stdout:
            check_writable(self.json, option="--json")
        if self.plot is not None:
            plot_format(self.plot, option="--plot")
            check_writable(self.plot, option="--plot")
        if self.save and (self.json is None or self.plot is None):
            check_writable(self.directory, option="--output-dir", directory=True)


WITHOUT_URL: Final = (
    "Without it: DATABASE_URL, else PGHOST, PGHOSTADDR, PGPORT or PGSERVICE, else an embedded PostgreSQL is "
    "started, used and removed."
)


def url_option_to(use: str) -> Callable[[_Function], _Function]:
    """`--url`, which may be repeated to `use`."""
    return click.option(
        "--url",
        "-u",
        "urls",
        multiple=True,
        metavar="URL",
        help="PostgreSQL URL, postgresql://user@host:port/database?sslmode=...; repeat it to "
        f"{use}. {WITHOUT_URL}",
    )


driver_option = click.option(
    "--driver",
    type=click.Choice(DRIVER_NAMES),
    default="wire",
    show_default=True,
    help="How connections are opened: wire (this tool's own, cheapest, sees every phase), or what an "
    "application using asyncpg or psycopg pays.",
)

scram_cache_option = click.option(
    "--scram-cache/--no-scram-cache",
    default=True,
    show_default=True,
    help="Keep SCRAM keys between connections, as poolers do; without, each pays for PBKDF2. [wire]",
)


def name_option(*short: str) -> Callable[[_Function], _Function]:
    """`--name`, with its short form where that letter is free."""
    return click.option(
        "--name", *short, default="", metavar="TEXT", help="A name for the result, for files and legends."
    )


pgbouncer_admin_option = click.option(
    "--pgbouncer-admin",
    "admin_url",
    metavar="URL",
    help="PgBouncer's administration console: its SHOW POOLS, SHOW LISTS and SHOW STATS go into the result.",
)


def watch_option(what: str) -> Callable[[_Function], _Function]:
    """`--watch/--no-watch`, which watches `what`."""
    return click.option(
        "--watch/--no-watch",
        default=None,
        help=f"Watch the server once a second: {what}. [default: watch servers on this machine]",
    )


def watch_held_option(what: str) -> Callable[[_Function], _Function]:
    """`--watch/--no-watch` of commands that hold connections, where watching is half of what they are for."""
    return click.option(
        "--watch/--no-watch",
        default=True,
        show_default=True,
        help=f"Watch the server once a second: {what}.",
    )


calibrate_option = click.option(
    "--calibrate",
    is_flag=True,
    help="First measure what this client costs by itself on this machine, about 1.5 s for each driver and "
    "concurrency.",
)

warmup_option = click.option(
    "--warmup",
    "warmup_s",
    type=Duration(zero=True),
    default="1s",
    show_default=True,
    help="Operations begun in this time before measuring do not count.",
)

grace_option = click.option(
    "--grace",
    "grace_s",
    type=Duration(zero=True),
    default="5s",
    show_default=True,
    help="How long operations under way at the end may take to finish; what is left is `unfinished`.",
)

resolve_option = click.option(
    "--resolve",
    type=click.Choice(["each", "once"]),
    default="each",
    show_default=True,
    help="Look host names up for each connection, or once before the run. [wire, surreal]",
)

by_address_option = click.option(
    "--by-address",
    is_flag=True,
    help="Results by the address that was really used also where there is only one; where a name or URL has "
    "several they are split by themselves.",
)


def check_split_driver(by_address: bool, driver: DriverName) -> None:
    """Make sure that `driver` tells addresses where results by address are asked for.

    Raises:
        UsageError: Click's own; it does not.
    """
    if by_address and driver == "surrealdb":
        raise click.UsageError("--by-address needs --driver surreal: surrealdb does not tell its addresses")


source_option = click.option(
    "--source-ip",
    "source_ips",
    multiple=True,
    metavar="IP",
    help="Connect from this address of this machine; repeat it to spread connections over several, "
    "each of which has local ports of its own. [wire, surreal]",
)


def check_source_driver(source_ips: Sequence[str], driver: DriverName, able: DriverName) -> None:
    """Make sure that `driver` can choose its address, as only `able` can.

    Raises:
        UsageError: Click's own; it cannot.
    """
    if source_ips and driver != able:
        raise click.UsageError(f"--source-ip needs --driver {able}: {driver} cannot choose its address")


plot_format_option = click.option(
    "--plot-format",
    type=click.Choice(["png", "svg"]),
    default="png",
    show_default=True,
    help="Format of a picture whose file has no name of its own.",
)


def connect_timeout_option(help_text: str) -> Callable[[_Function], _Function]:
    """`--connect-timeout`, which bounds what `help_text` says."""
    return click.option(
        "--connect-timeout",
        "connect_timeout_s",
        type=Duration(),
        default="30s",
        show_default=True,
        help=help_text,
    )


verbose_option = click.option(
    "--verbose", "-v", is_flag=True, help="All figures of each run before the answer, and what they mean."
)


output_options = gathered(
    "output",
    Output,
    click.option(
        "--output-dir",
        "directory",
        type=OutputPath(),
        default="results",
        show_default=True,
        help="Where result and picture go.",
    ),
    click.option("--json", type=OutputPath(), metavar="FILE|-", help="Result file, or - for stdout."),
    click.option("--plot", type=OutputPath(), metavar="FILE.png|svg", help="Picture file."),
    plot_format_option,
    click.option("--no-save", is_flag=True, help="Write nothing to --output-dir."),
    click.option("--quiet", "-q", is_flag=True, help="No line every second, only the summary."),
    verbose_option,
)


keep_going_option = click.option(
    "--keep-going",
    is_flag=True,
    help="Measure although the first connection is refused, finds no such host or database, is rejected, "
    "or meets a certificate that is not valid: failures are then what is counted.",
)

require_valid_option = click.option(
    "--require-valid",
    is_flag=True,
    help="Exit with 1 where a run is suspect: where its figures are not the target's, or rest on too little.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What all commands that measure are told alike.

    Attributes:
        name: the user's name for the result, "" without one.
        output: where results go.
        checks: what must hold of them.
        require_valid: whether a suspect run makes the exit code 1.
        keep_going: measure also targets that the first connection does not get into; None where there is no
            such option.
    """

    name: str
    output: Output
    checks: Checks
    require_valid: bool = False
    keep_going: bool | None = None


def session_options(*short: str, keep_going: bool = True) -> Decorator[Callable[..., None]]:
    """Add them; the command gets them as one `SessionOptions`, named `session`.

    Args:
        short: the short form of `--name`, where that letter is free.
        keep_going: whether there is `--keep-going`.
    """
    more = (keep_going_option,) if keep_going else ()
    return gathered(
        "session",
        SessionOptions,
        name_option(*short),
        threshold_options,
        require_valid_option,
        *more,
        output_options,
    )


def shortest_timeout(targets: "Iterable[PostgresTarget]", connect_timeout_s: float) -> float:
    """The bound on a connect, seconds: what the user said, else the shortest that a URL says."""
    ctx = click.get_current_context()
    given = ctx.get_parameter_source("connect_timeout_s") is not click.core.ParameterSource.DEFAULT
    limits = [target.connect_timeout_s for target in targets if target.connect_timeout_s is not None]
    return connect_timeout_s if given or not limits else min(limits)
