"""Holding connections: how many may be opened, what watches them, and the run."""

from dataclasses import dataclass, replace

from pool_bench.analysis.walls_ahead import Asked
from pool_bench.cli.limits import local_ports_note
from pool_bench.cli.options.hold import HoldOptions
from pool_bench.cli.places.base import Config
from pool_bench.cli.plan import Measurement, Plan, Start
from pool_bench.cli.session import BenchSession
from pool_bench.cli.status import notify
from pool_bench.cli.walls import KnownLimits, warn_of_walls
from pool_bench.cli.watching import follow_watched
from pool_bench.drivers.network.source_addresses import check_sources
from pool_bench.drivers.refusals import check_settings
from pool_bench.load.run import Run
from pool_bench.load.spec import HoldSpec
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.view import make_hold_view
from pool_bench.report.summary.hold import hold_summary
from pool_bench.results.run import RunRecord
from pool_bench.results.thresholds import Threshold
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.machine.limits import LimitsReader
from pool_bench.watch.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlan(Plan):
    """Open connections, hold them, and close them again.

    Attributes:
        options: what the user said.
        spec: the settings; targets and connections are filled in.
        reserve: leave the servers' reserved slots, and some more, free.
        admin: PgBouncer's administration console, where there is one to ask.
    """

    options: HoldOptions
    spec: HoldSpec
    reserve: bool = False
    admin: PostgresTarget | None = None

    @property
    def connections(self) -> int:
        """As many as were asked for."""
        return self.options.connections

    @property
    def connections_option(self) -> str:
        """The option that says so."""
        return "--connections"

    @property
    def source_ips(self) -> tuple[str, ...]:
        """As the user named them."""
        return self.spec.source_ips

    @property
    def timeout_s(self) -> float:
        """As of every connect."""
        return self.spec.connect_timeout_s

    def thresholds(self) -> tuple[Threshold, ...]:
        """Thresholds on the fields of runs that held connections."""
        return self.session.checks.read(hold=True)

    def check(self) -> None:
        """Make sure that the driver can honour what targets ask for."""
        check_settings(self.spec.driver, self.place.targets)
        self.generators.fit(replace(self.spec, connections=(self.options.connections,)))

    def begin(self, start: Start) -> Measurement:
        """See how many connections may be held, and say what will be in their way."""
        site, targets = start.site, start.site.targets
        if site.is_embedded and self.spec.source_ips:
            # Named targets were checked before anything was started.
            check_sources(self.spec.source_ips, targets, here=self.generators.cluster is None)
        shares, known = share_out(self.options.connections, len(targets)), KnownLimits()
        if start.greeting and not start.stop.requested:
            shares, known = site.guard(
                shares,
                reserve=self.reserve,
                watched=self.options.watch,
                admin=self.admin,
                timeout_s=self.timeout_s,
            )
        spec = self.generators.fit(replace(self.spec, targets=targets, connections=shares))
        reader = LimitsReader(targets, len(spec.source_ips))
        ports, _ = reader.ports()
        taken = 0 if ports is None else ports.used
        note = local_ports_note(targets, shares, spec.source_ips, taken=taken)
        if note is not None and self.generators.is_local:
            notify(note)
        if self.generators.is_local:
            warn_of_walls(_asked(spec, reader), reader, known, notify)
        watcher = None
        if self.options.watch:
            watcher = site.watcher(spec.concurrency, admin=self.admin, find_console=False)
            start.stack.enter_context(watcher)
        run = _HoldRun(self, spec, reader, known, watcher)
        output = self.session.output
        return Measurement(
            config=run.config(),
            view=make_hold_view(
                output.text,
                stream_is_terminal=output.text.isatty(),
                asked=self.options.connections,
                quiet=output.quiet,
                targets=[str(target) for target in targets],
                active=spec.active > 0,
                slots=None if watcher is None else watcher.slots,
            ),
            measure=run.measure,
            answer=run.answer,
            levels=(self.options.connections,),
            span=run.label,
        )


def share_out(connections: int, targets: int) -> tuple[int, ...]:
    """How many connections each of `targets` gets: alike, the first ones one more."""
    each, left = divmod(connections, targets)
    return tuple(each + (index < left) for index in range(targets))


def _asked(spec: HoldSpec, reader: LimitsReader) -> Asked:
    at_once, option = min((spec.open_concurrency, "--open-concurrency"), (spec.batch_size, "--batch-size"))
    return Asked(
        connections=spec.concurrency,
        at_once=0 if spec.rate else min(at_once, spec.concurrency),
        option=option,
        servers=reader.servers,
    )


@dataclass(frozen=True, slots=True)
class _HoldRun:
    """A plan to hold connections, whose server is there.

    Attributes:
        plan: what the user asked for.
        spec: the settings of the run.
        reader: reads this machine's limits.
        known: what the servers said of theirs.
        watcher: looks at the server, None where it is not watched.
    """

    plan: HoldPlan
    spec: HoldSpec
    reader: LimitsReader
    known: KnownLimits
    watcher: Watcher | None

    @property
    def asked(self) -> int:
        """How many connections the user asked for."""
        return self.plan.options.connections

    @property
    def label(self) -> str:
        """The same, as file names have it."""
        return f"n{self.asked}"

    def config(self) -> Config:
        """The settings, for the result file."""
        own, spec = self.plan, self.spec
        return {
            "connections": self.asked,
            "duration_s": spec.duration_s,
            "batch_size": None if spec.rate else spec.batch_size,
            "batch_pause_s": None if spec.rate else spec.batch_pause_s,
            "rate": spec.rate,
            "open_concurrency": spec.open_concurrency,
            "keepalive_s": spec.keepalive_s,
            "keepalive_query": spec.keepalive_query or "ping",
            "active": spec.active,
            "reconnect": spec.reconnect,
            "give_up_s": spec.give_up_s,
            "reserve": own.reserve,
            "watch": own.options.watch,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "scram_cache": spec.scram_cache,
            "source_ips": list(spec.source_ips),
            "pgbouncer_admin": None if own.admin is None else str(own.admin),
        }

    def measure(self, work: BenchSession) -> None:
        """Hold the connections, unless the user has stopped it already."""
        if work.stop.requested:
            return
        run = Run(self.spec, self.label, work.stop, work.crew)
        run.result.asked = self.asked
        work.view.begin_run(run.result.label, 1, 1, self.spec.duration_s, 0.0)
        # This machine's limits are not those of others.
        reader = self.reader if self.plan.generators.is_local else None
        follow_watched(work, run, self.watcher, reader, self.known)
        work.detail(hold_summary(RunRecord.of(run.result), asked=self.asked, colour=work.colour))

    def answer(self, work: BenchSession) -> Brief | None:
        """What became of the connections."""
        runs = work.session.runs
        return hold_brief(RunRecord.of(runs[0]), asked=self.asked, colour=work.colour) if runs else None
