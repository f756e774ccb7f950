"""One frame for all commands that measure: servers, signals, view, runs, files, exit code.

A `Plan` is what the user asked for; once its server is there it becomes a `Measurement`. Both say only what
differs between the commands.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.generators import ONE_PROCESS, GeneratorOptions
from pool_bench.cli.options.shared import SessionOptions
from pool_bench.cli.options.types import EXIT_LEFT
from pool_bench.cli.places.base import Config, Place, Site
from pool_bench.cli.session import BenchSession
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.status import notify
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.child import Crew
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
        tool: as in the result file.
        place: where the targets come from.
        session: what all commands that measure are told alike.
        generators: who generates the load.
    """

    tool: str
    place: Place
    session: SessionOptions
    generators: GeneratorOptions = ONE_PROCESS

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

    @property
    def source_ips(self) -> tuple[str, ...]:
        """Addresses to connect from; empty leaves the choice to the system."""
        return ()

    def thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds that runs are judged by.

        Raises:
            UsageError: one is malformed.
        """
        return self.session.checks.read()

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
        self.session.output.check()
        thresholds = self.thresholds()
        if self.generators.cluster is None:
            self.check()
            raise_file_limit(self.connections, option=self.connections_option)
        elif self.place.is_embedded and not self.generators.is_local:
            raise UsageError(
                "--cluster: other machines do not reach the embedded server; name a server by --url"
            )
        try:
            with ExitStack() as stack:
                stop = stack.enter_context(stop_on_signals(notify))
                if self.generators.cluster is None:
                    return self._do(thresholds, stop)
                crew = stack.enter_context(self.generators.gather(self.source_ips, notify))
                gathered = replace(self.generators, workers=len(crew.posts), cores=crew.cores)
                plan = replace(self, generators=gathered)
                plan.check()
                crew.check_files(self.connections, gathered.in_all, option=self.connections_option)
                return plan._do(thresholds, stop, crew)
        except LeaveNow:
            notify("left without a summary")
            return EXIT_LEFT

    def _do(self, thresholds: tuple[Threshold, ...], stop: StopSwitch, crew: Crew | None = None) -> int:
        with ExitStack() as stack:
            site = stack.enter_context(self.serve())
            greeting = site.greet(stop, timeout_s=self.timeout_s, keep_going=self.session.keep_going)
            measurement = self.begin(Start(site, greeting, stop, stack))
            session = Session(
                tool=self.tool,
                name=self.session.name,
                started_at=datetime.now(UTC),
                argv=redacted_argv(sys.argv),
                targets=tuple(dict.fromkeys(map(str, (*site.targets, *measurement.other_targets)))),
                server=greeting,
                config=site.config() | measurement.config | self.generators.config(),
            )
            stack.callback(measurement.view.close)
            work = BenchSession(
                output=self.session.output,
                checks=self.session.checks,
                require_valid=self.session.require_valid,
                stop=stop,
                view=measurement.view,
                session=session,
                levels=measurement.levels,
                span=measurement.span,
                thresholds=thresholds,
                per_process=self.generators.per_process,
                crew=crew,
            )
            try:
                measurement.measure(work)
            except PoolBenchError:
                work.save(measurement.answer(work))
                raise
            work.save(measurement.answer(work))
            return work.exit_code


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A plan whose server is there.

    Attributes:
        config: the settings, for the result file, besides those of the site.
        view: shows runs under way.
        measure: measures everything; raises what `BenchSession.follow` raises.
        answer: the last screen, None where nothing was measured.
        levels: the concurrency of each run, for the file's name.
        span: stands there instead of the levels.
        other_targets: targets besides the site's.
    """

    config: Config
    view: LiveView
    measure: Callable[[BenchSession], None]
    answer: Callable[[BenchSession], Brief | None]
    levels: tuple[int, ...]
    span: str = ""
    other_targets: tuple[Target, ...] = ()
