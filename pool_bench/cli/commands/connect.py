"""Opening and closing connections: sweeps, rounds of several settings, open loops and searches."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final

from pool_bench.analysis.client_verdict import CHEAPEST
from pool_bench.analysis.walls_ahead import Asked
from pool_bench.cli.commands.find_max import find_maximum
from pool_bench.cli.limits import time_wait_note
from pool_bench.cli.options.connect import ConnectOptions
from pool_bench.cli.options.loop import FindMax, Loop
from pool_bench.cli.options.rounds import Step, Variant, plan
from pool_bench.cli.places.base import Config, Site
from pool_bench.cli.plan import Measurement, Start
from pool_bench.cli.session import BenchSession, lose
from pool_bench.cli.status import notify
from pool_bench.cli.walls import KnownLimits, warn_of_walls
from pool_bench.cli.watching import WatchedPlan, follow_watched
from pool_bench.drivers.network.source_addresses import check_sources
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import UsageError
from pool_bench.load.calibrate import calibrate, settings_for
from pool_bench.load.run import GeneratorError, Run
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.brief.run import run_brief, search_brief, sweep_brief
from pool_bench.report.brief.screen import Brief
from pool_bench.report.live.view import make_view
from pool_bench.report.summary.calibration import calibration_table
from pool_bench.report.summary.run import sweep_table
from pool_bench.report.summary.server_lines import watched_summary
from pool_bench.results.model import ResultRecord, SearchRecord, from_session
from pool_bench.results.run import RunRecord
from pool_bench.stats.runs import RunResult
from pool_bench.targets import Target
from pool_bench.units import format_duration
from pool_bench.watch.machine.limits import LimitsReader

_SILENT_PAUSE_S: Final = 2.0
_CALIBRATION_S: Final = 1.0
# What an open loop may have in flight at most says nothing about what it will have.
_OPEN_LOOP_LEVEL: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectPlan(WatchedPlan):
    """Open and close connections.

    Attributes:
        options: what the user said.
        loop: how operations begin.
        spec: the settings of every run; targets and concurrency are filled in.
        variants: settings measured in turn with `spec`.
    """

    options: ConnectOptions
    loop: Loop
    spec: ConnectSpec
    variants: tuple[Variant, ...] = ()

    @property
    def connections(self) -> int:
        """Connections in flight at most, in any of the runs."""
        return max(step.spec.concurrency for step in self.steps(self.place.targets))

    @property
    def connections_option(self) -> str:
        """The option that bounds the loop."""
        return "--concurrency" if self.spec.open_loop is None else "--max-in-flight"

    @property
    def timeout_s(self) -> float:
        """As of every connect."""
        return self.spec.connect_timeout_s

    @property
    def source_ips(self) -> tuple[str, ...]:
        """As the user named them."""
        return tuple(self.options.source_ips)

    def steps(self, targets: tuple[Target, ...]) -> tuple[Step, ...]:
        """All runs, in their order."""
        spec = replace(self.spec, targets=targets)
        steps = plan(spec, self.loop.levels, self.variants, self.options.rounds, self.loop.label)
        return tuple(replace(step, spec=self.generators.fit(step.spec)) for step in steps)

    def check(self) -> None:
        """Make sure that drivers can honour what targets ask for, and that watching is not contradicted."""
        _ = self.watched
        if self.options.calibrate and any(step.spec.processes > 1 for step in self.steps(self.place.targets)):
            raise UsageError("--calibrate measures what one process can do: leave out --processes")
        if self.options.calibrate and self.generators.cluster is not None:
            raise UsageError("--calibrate measures what this machine can do: leave out --cluster")
        if self.options.source_ips:
            check_sources(self.options.source_ips, self.place.targets, here=self.generators.cluster is None)
            for step in self.steps(self.place.targets):
                if step.spec.driver not in CHEAPEST:
                    raise UsageError(f"--source-ip: {step.spec.driver} cannot choose its address")
        for step in self.steps(self.place.targets):
            check_settings(step.spec.driver, step.spec.targets)

    def serve(self) -> AbstractContextManager[Site]:
        """The place with its server."""
        return self.place.serve(
            tool=self.tool,
            connections=self.connections,
            # Drivers that do not wait for the server's end have up to half as many backends dying.
            ending=self.connections // 2,
            log_setup=self.watched,
        )

    @property
    def find_max(self) -> FindMax | None:
        """The maximum to search for instead, None for one run for each level."""
        return self.loop.find_max(self.options.pause_s)

    def begin(self, start: Start) -> Measurement:
        """Say what will be in the way."""
        most, spec, targets = self.connections, self.spec, start.site.targets
        # In a closed loop and in a search it is not known before.
        rate = None
        if spec.open_loop is not None and self.find_max is None:
            rate = spec.open_loop.profile.highest
        note = time_wait_note(
            targets,
            spec.driver,
            concurrency=most,
            rate=rate,
            seconds=spec.duration_s and spec.warmup_s + spec.duration_s,
        )
        if note is not None and self.generators.is_local:
            notify(note)
        if self.generators.is_local and spec.open_loop is None and not start.stop.requested:
            reader = LimitsReader(targets, len(spec.source_ips))
            asked = Asked(connections=most, at_once=most, option="--concurrency", servers=reader.servers)
            warn_of_walls(asked, reader, KnownLimits(), notify)
        run = _ConnectRun(self, start.site, self.steps(targets), start.greeting)
        return Measurement(
            config=run.config(),
            view=make_view(
                self.session.output.text,
                stream_is_terminal=self.session.output.text.isatty(),
                quiet=self.session.output.quiet,
                targets=[str(target) for target in targets],
            ),
            measure=run.measure,
            answer=run.answer,
            levels=self.loop.levels,
            span=self.loop.label,
            other_targets=tuple(target for step in run.steps for target in step.spec.targets),
        )


@dataclass(frozen=True, slots=True)
class _ConnectRun:
    """A plan to open and close connections, whose server is there.

    Attributes:
        plan: what the user asked for.
        site: where connections go.
        steps: all runs, in their order.
        greeting: what the server said it is.
    """

    plan: ConnectPlan
    site: Site
    steps: tuple[Step, ...]
    greeting: dict[str, str]

    @property
    def spec(self) -> ConnectSpec:
        """The settings of every run, but for the concurrency."""
        return replace(self.plan.spec, targets=self.site.targets)

    def config(self) -> Config:
        """The settings, for the result file."""
        own, spec, levels, search = self.plan, self.spec, self.plan.loop.levels, self.plan.find_max
        config: Config = {
            "concurrency": levels[0] if len(levels) == 1 else None,
            "concurrency_min": levels[0],
            "concurrency_max": levels[-1],
        }
        if spec.open_loop is not None:
            config = {
                "shape": own.loop.label,
                "arrivals": spec.open_loop.spacing,
                "seed": spec.seed,
                "max_in_flight": levels[0],
            }
        if search is not None:
            config |= {
                "slo": str(search.objectives),
                "first_rate": search.first,
                "max_rate": search.highest,
            }
        return config | {
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "query": spec.query,
            "scram_cache": spec.scram_cache,
            "resolve": "once" if spec.resolve_once else "each",
            "source_ips": list(spec.source_ips),
            "wait_between_runs_s": own.options.pause_s,
            "rounds": own.options.rounds,
            "interleave": [variant.name for variant in own.variants],
            **own.watching_config,
        }

    def measure(self, work: BenchSession) -> None:
        """Calibrate the client where that was asked for; then the search, or every run in turn."""
        if self.plan.options.calibrate:
            self._calibrate(work)
        search = self.plan.find_max
        if search is not None:
            spec = replace(self.spec, concurrency=self.plan.connections)
            find_maximum(work, search, self.plan.generators, self.plan.generators.fit(spec))
        else:
            self._measure_all(work)

    def _calibrate(self, work: BenchSession) -> None:
        """Measure what this client costs by itself, unless the user stops it."""
        spec, levels = self.spec, self.plan.loop.levels
        if spec.open_loop is not None:
            levels = (min(*levels, _OPEN_LOOP_LEVEL),)
        transport = self.site.transport(self.greeting)
        calibration = calibrate(
            settings_for(spec.driver, levels, auth=spec.auth),
            work.stop,
            seconds=_CALIBRATION_S,
            query=spec.query,
            auth=spec.auth,
            protocol=transport.protocol,
            sslmode=transport.sslmode,
            begin=lambda driver, level: work.view.message(f"calibrating {driver} at concurrency {level:,}"),
        )
        work.session.calibration = calibration
        work.print(calibration_table(calibration, colour=work.colour))

    def _measure_all(self, work: BenchSession) -> None:
        own, steps = self.plan, self.steps
        if own.variants:
            from pool_bench.compare.readiness import settings_too_short

            for line in settings_too_short(own.options.rounds, own.spec.duration_s):
                notify(line)
        lost: set[str] = set()
        for index, step in enumerate(steps):
            if step.setting in lost:
                continue
            pause_s = own.options.pause_s if index else 0
            if pause_s > _SILENT_PAUSE_S and not work.stop.requested:
                notify(f"next run in {format_duration(pause_s)}")
            if work.stop.sleep(pause_s):
                break
            run = Run(step.spec, step.label, work.stop, work.crew)
            run.result.setting, run.result.round = step.setting, step.round
            label = step.label if step.round is None else f"{step.label}, round {step.round}"
            work.view.begin_run(label, index + 1, len(steps), step.spec.duration_s, step.spec.warmup_s)
            try:
                self._follow(work, run, step)
            except (GeneratorError, UsageError) as error:
                lost.add(step.setting)
                # There is nothing to go on with where it is the only one, or all have failed.
                if not own.variants or lost == {each.setting for each in steps}:
                    raise
                lose(work, run, step.setting or "the base", error)
                continue
            if step.round is None:
                work.detail(watched_summary(RunRecord.of(run.result), colour=work.colour))
            if len(steps) > 1 and (step.round is not None or not work.output.verbose):
                from pool_bench.report.summary.rounds import round_line

                work.print(round_line(_loaded(work, run.result).runs[0]))

    def _follow(self, work: BenchSession, run: Run, step: Step) -> None:
        wanted = run.result.concurrency
        with self.plan.watcher(self.site, step.spec.targets, wanted) as watcher:
            limits = LimitsReader(step.spec.targets, len(step.spec.source_ips))
            # This machine's limits are not those of others.
            follow_watched(work, run, watcher, limits if self.plan.generators.is_local else None)

    def answer(self, work: BenchSession) -> Brief | None:
        """The last screen; with `-v`, what else is known of all runs together is printed as well."""
        session, colour = work.session, work.colour
        runs = tuple(map(RunRecord.of, session.runs))
        if all(run.not_started for run in runs):
            return Brief()
        if session.find_max is not None:
            return search_brief(runs, SearchRecord.of(session.find_max), colour=colour)
        if runs[0].round is not None:
            from pool_bench.report.brief.rounds import rounds_brief
            from pool_bench.report.summary.rounds import rounds_summary

            loaded = _loaded(work, *session.runs)
            work.detail(rounds_summary(loaded, colour=colour))
            return rounds_brief(loaded, colour=colour)
        if len(work.levels) > 1:
            work.detail(sweep_table(runs, colour=colour))
            return sweep_brief(runs, colour=colour)
        return run_brief(runs[0], colour=colour)


def _loaded(work: BenchSession, *runs: RunResult) -> ResultRecord:
    """These runs of the session as its file has them."""
    return from_session(replace(work.session, runs=list(runs)))
