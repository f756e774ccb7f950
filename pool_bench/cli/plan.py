"""One frame for all commands that measure: servers, signals, view, runs, files, exit code.

A `Plan` is what the user asked for; once its server is there it becomes a `Measurement`. Both say only what
differs between the commands.
"""

import sys
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.thresholds import NO_CHECKS, Checks
from pool_bench.cli.options.types import EXIT_LEFT
from pool_bench.cli.places.base import Config, Place, Site
from pool_bench.cli.session import BenchSession
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.status import notify
from pool_bench.errors import PoolBenchError
from pool_bench.load.run import StopSwitch
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.view import LiveView
from pool_bench.results.session import Session
from pool_bench.results.thresholds import Threshold
from pool_bench.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(ABC):
    """What the user asked for.

    Attributes:
        tool, name: as in the result file.
        place: where the targets come from.
        output: where results go.
        checks: what must hold of them.
        require_valid: whether a suspect run makes the exit code 1.
        keep_going: measure also targets that the first connection does not get into; None where there is no
            such option.
    """

    tool: str
    name: str
    place: Place
    output: Output
    checks: Checks = NO_CHECKS
    require_valid: bool = False
    keep_going: bool | None = None

    @property
    @abstractmethod
    def connections(self) -> int:
        """Connections that are open at once, at most."""

    @property
    @abstractmethod
    def connections_option(self) -> str:
        """The option that says so."""

    @property
    @abstractmethod
    def timeout_s(self) -> float:
        """Bound on the first connection, seconds."""

    def thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds that runs are judged by.

        Raises:
            UsageError: one is malformed.
        """
        return self.checks.read()

    @abstractmethod
    def check(self) -> None:
        """Make sure, before anything starts, that this can be measured.

        Raises:
            UsageError: it cannot.
        """

    def serve(self) -> AbstractContextManager[Site]:
        """The place with its server."""
        return self.place.serve(tool=self.tool, connections=self.connections)

    @abstractmethod
    def begin(self, start: "Start") -> "Measurement":
        """Get ready, the server being there.

        Raises:
            PoolBenchError: it cannot be measured.
        """

    def run(self) -> int:
        """Measure, show it, and write the files.

        Returns:
            The exit code: 0; 1 where a run had no success, a threshold failed, or a run is suspect and must
            not be; 130 where the user left.

        Raises:
            UsageError: a setting turned out to be impossible.
            ServerStartError: the embedded server does not start.
            GeneratorError: a generator process failed; what was measured before is saved.
            PoolBenchError: the target cannot be used.
        """
        self.output.check()
        thresholds = self.thresholds()
        self.check()
        raise_file_limit(self.connections, option=self.connections_option)
        try:
            with ExitStack() as stack:
                stop = stack.enter_context(stop_on_signals(notify))
                site = stack.enter_context(self.serve())
                greeting = site.greet(stop, timeout_s=self.timeout_s, keep_going=self.keep_going)
                measurement = self.begin(Start(site, greeting, stop, stack))
                session = Session(
                    tool=self.tool,
                    name=self.name,
                    started_at=datetime.now(UTC),
                    argv=redacted_argv(sys.argv),
                    targets=tuple(dict.fromkeys(map(str, (*site.targets, *measurement.other_targets)))),
                    server=greeting,
                    config=site.config() | measurement.config(),
                )
                view = measurement.view(self.output.text)
                stack.callback(view.close)
                work = BenchSession(
                    output=self.output,
                    checks=self.checks,
                    require_valid=self.require_valid,
                    stop=stop,
                    view=view,
                    session=session,
                    levels=measurement.levels,
                    span=measurement.span,
                    thresholds=thresholds,
                )
                try:
                    measurement.measure(work)
                except PoolBenchError:
                    work.save(measurement.answer(work))
                    raise
                work.save(measurement.answer(work))
                return work.exit_code
        except LeaveNow:
            notify("left without a summary")
            return EXIT_LEFT


@dataclass(frozen=True, slots=True)
class Start:
    """What is there when measuring can begin.

    Attributes:
        site: the place with its server.
        greeting: what the server said it is, {} where it did not.
        stop: ends the session early.
        stack: closes what the measurement opens.
    """

    site: Site
    greeting: dict[str, str]
    stop: StopSwitch
    stack: ExitStack

    @property
    def is_silent(self) -> bool:
        """Whether the server gave no answer although it was waited for."""
        return not self.greeting and not self.stop.requested


class Measurement(ABC):
    """A plan whose server is there."""

    @property
    @abstractmethod
    def levels(self) -> tuple[int, ...]:
        """The concurrency of each run, for the file's name."""

    @property
    def span(self) -> str:
        """Stands there instead of the levels; "" for none."""
        return ""

    @property
    def other_targets(self) -> tuple[Target, ...]:
        """Targets besides the site's."""
        return ()

    @abstractmethod
    def config(self) -> Config:
        """The settings, for the result file, besides those of the site."""

    @abstractmethod
    def view(self, stream: TextIO) -> LiveView:
        """What shows runs under way on `stream`."""

    @abstractmethod
    def measure(self, work: BenchSession) -> None:
        """Measure everything.

        Raises:
            UsageError, GeneratorError: as `BenchSession.follow`.
        """

    @abstractmethod
    def answer(self, work: BenchSession) -> Brief | None:
        """The last screen; None where nothing was measured."""
