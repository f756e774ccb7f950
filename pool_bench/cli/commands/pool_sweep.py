"""Runs of one pool, round by round with each of its sizes: for a law, or to compare settings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from pool_bench.cli.commands.pools import OVERHEAD_S, follow_pool, make_pool_view, require_answer
from pool_bench.cli.options.pool import Timing
from pool_bench.cli.places.base import Config, Site
from pool_bench.cli.plan import Measurement, Start
from pool_bench.cli.session import BenchSession
from pool_bench.cli.status import notify
from pool_bench.cli.watching import WatchedPlan
from pool_bench.compare.readiness import settings_too_short
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import UsageError
from pool_bench.load.spec import PoolSpec
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.pool_progress import Progress
from pool_bench.results.model import from_session
from pool_bench.results.thresholds import Threshold
from pool_bench.units import format_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSweepPlan(WatchedPlan, ABC):
    """Measure one pool with several sizes.

    Attributes:
        spec: the settings of every run; the sizes are filled in.
        timing: how long, and how often.
        is_contest: whether sizes are compared, with a row for each run.
    """

    is_contest: ClassVar[bool]
    spec: PoolSpec
    timing: Timing

    @property
    @abstractmethod
    def words(self) -> list[str]:
        """The sizes, as the user wrote them."""

    @abstractmethod
    def turns(self, round_: int) -> list[PoolSpec]:
        """The runs of a round (from 1), in their order."""

    @abstractmethod
    def check_sizes(self) -> None:
        """Make sure that such sizes can be measured.

        Raises:
            UsageError: they cannot.
        """

    @abstractmethod
    def answer(self, work: BenchSession) -> Brief | None:
        """The last screen, None where nothing was measured that tells."""

    @property
    def connections_option(self) -> str:
        """The option that says so."""
        return "--sizes"

    @property
    def timeout_s(self) -> float:
        """As of every acquire."""
        return self.spec.timeout_s

    def thresholds(self) -> tuple[Threshold, ...]:
        """Thresholds on the fields of runs with a pool."""
        return self.session.checks.read(pool=True)

    def check(self) -> None:
        """Make sure that there are enough clients, and that the pool can honour what the target asks for."""
        _ = self.watched
        self.check_sizes()
        if self.spec.clients < self.connections:
            raise UsageError(
                f"--clients {self.spec.clients:,} use one connection each at most, and --sizes "
                f"go up to {self.connections:,}"
            )
        check_settings(self.spec.pool, self.place.targets)

    def begin(self, start: Start) -> Measurement:
        """Make sure that the server answers."""
        require_answer(start)
        return Measurement(
            config=self._config(),
            view=make_pool_view(self.session.output, start.site.targets[0]),
            measure=partial(self._measure, start.site),
            answer=self.answer,
            levels=(self.spec.clients,),
        )

    def _config(self) -> Config:
        spec = self.spec
        return {
            "pool": spec.pool,
            "sizes": self.words,
            "clients": spec.clients,
            "rounds": self.timing.rounds,
            "reset": spec.reset,
            "prepared": spec.prepared,
            "query": spec.query,
            "hold_s": spec.hold_s,
            "timeout_s": spec.timeout_s,
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            **self.watching_config,
        }

    def _measure(self, site: Site, work: BenchSession) -> None:
        rounds = self.timing.rounds
        specs = [
            replace(spec, targets=site.targets, round=round_)
            for round_ in range(1, rounds + 1)
            for spec in self.turns(round_)
        ]
        total, each_s = len(specs), self.spec.duration_s + self.spec.warmup_s + OVERHEAD_S
        notify(f"{total} runs, about {format_duration(total * each_s)}")
        if self.is_contest:
            for line in settings_too_short(rounds, self.spec.duration_s):
                notify(line)
        progress = Progress(total, rounds, each_s)
        for number, spec in enumerate(specs, 1):
            if work.stop.requested:
                return
            with self.watcher(site, spec.targets, spec.size) as watcher:
                follow_pool(work, spec, watcher, number=number, total=total, rounds=rounds)
            work.keep()
            if self.is_contest:
                row = from_session(replace(work.session, runs=work.session.runs[-1:])).runs[0]
                for line in progress.lines(row, number):
                    work.row(line)
