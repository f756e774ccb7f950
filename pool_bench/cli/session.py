"""A command under way: shows its runs, keeps their results, and writes them whatever happens meanwhile."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pool_bench.analysis.verdict import judge
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.thresholds import NO_CHECKS, Checks
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_OK
from pool_bench.cli.outlets import deliver, make_expendable, stalled
from pool_bench.cli.status import busy, draws_in_place, notify
from pool_bench.errors import PoolBenchError, SaveError, UsageError, reason_of
from pool_bench.load.child import Crew
from pool_bench.load.run import GeneratorError, Run, StopSwitch
from pool_bench.report.brief.screen import Brief, Part, rows_of
from pool_bench.report.live.view import LiveView, QuietView
from pool_bench.report.summary.session_markdown import session_markdown
from pool_bench.report.summary.thresholds import failed_thresholds, threshold_lines
from pool_bench.report.summary.verdict import suspects_of
from pool_bench.report.text import colour_wanted
from pool_bench.results import write as results
from pool_bench.results.files import write_atomically
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Limit, Session
from pool_bench.results.thresholds import Threshold, Watch, judge_run
from pool_bench.stats.runs import RunResult, Snapshot


@dataclass(slots=True, kw_only=True)
class BenchSession:
    """A command under way: what it has measured so far, and where it shows and keeps it.

    Attributes:
        output: where results go.
        stop: ends it early.
        view: shows the run under way.
        session: what was measured so far.
        levels: the concurrency of each run, for the file's name.
        span: stands there instead of the levels.
        checks, thresholds: what must hold of each run.
        require_valid: whether a suspect run makes the exit code 1.
        per_process: results are wanted by generator process, too.
        crew: who generates the load, None for processes of this machine.
        written: files written so far.
    """

    output: Output
    stop: StopSwitch
    view: LiveView
    session: Session
    levels: tuple[int, ...]
    span: str = ""
    checks: Checks = NO_CHECKS
    thresholds: tuple[Threshold, ...] = ()
    require_valid: bool = False
    per_process: bool = False
    crew: Crew | None = None
    written: list[Path] = field(default_factory=list)
    _json_path: Path | None = None
    _kept: int = 0

    @property
    def text(self) -> TextIO:
        """Where lines and summaries go."""
        return self.output.text

    @property
    def colour(self) -> bool:
        """Whether those may be coloured."""
        return colour_wanted(self.text)

    def follow(self, run: Run, saw: Callable[[Snapshot], None] | None = None) -> None:
        """Measure `run`, show it second by second, and keep its result.

        Args:
            saw: called with each snapshot before it is shown.

        Raises:
            GeneratorError: the generator failed; what it had measured until then is kept.
            UsageError: the run could not begin.
        """
        watch = Watch(self.thresholds if self.checks.abort_on_fail else ())
        self._describe(run.result)
        run.say = self.message
        ended = False
        try:
            for snapshot in run.snapshots():
                lost = watch.look(run.result, snapshot)
                if lost is not None and not self.stop.requested:
                    notify(f"ending early: {lost.text} is lost")
                    self.stop.request()
                if saw is not None:
                    saw(snapshot)
                self._show(snapshot)
            ended = True
        except GeneratorError:
            # What it had measured until then is as good as after an interruption.
            run.result.interrupted = True
            if run.result.total.attempts:
                self.session.runs.append(run.result)
            raise
        finally:
            # Of a run that was cut short, what was seen last is what there is.
            self.view.end_run(last=self.stop.requested or not ended)
        self.session.runs.append(run.result)
        self.session.finished_at = datetime.now(UTC)
        self.message(f"done, {judge(run.result).words}")

    def _describe(self, result: RunResult) -> None:
        """Tell a run what the session knows and its generator does not."""
        result.per_process = self.per_process
        result.embedded = bool(self.session.server.get("embedded"))
        if self.session.calibration is not None:
            result.own = self.session.calibration.own(result.driver, result.concurrency)

    def _answers(self) -> list[RunResult]:
        """The runs that hold the result: all, but of a search only the one that confirms it."""
        search = self.session.find_max
        confirmed = [] if search is None else [step.run for step in search.steps if step.passed]
        return [self.session.runs[confirmed[-1]]] if confirmed else self.session.runs

    def _judge(self) -> None:
        # Only now: what was seen of the server is added to a run after it has ended.
        runs = self.session.runs
        self.session.thresholds = [outcome for run in runs for outcome in judge_run(self.thresholds, run)]

    def _show(self, snapshot: Snapshot) -> None:
        # Who does not read now would have to read all that piled up later.
        if not stalled(self.text):
            try:
                self.view.update(snapshot)
            except BrokenPipeError:
                self._lose_reader()

    def message(self, text: str) -> None:
        """Say one line among those of the runs."""
        try:
            self.view.message(text)
        except BrokenPipeError:
            self._lose_reader()

    def print(self, text: str) -> None:
        """Print a summary or a table where people read, what was measured being safe by then."""
        self.keep()
        if not (self.output.quiet and self.output.json_on_stdout):
            try:
                print(f"\n{text}", file=self.text, flush=True)
            except BrokenPipeError:
                self._lose_reader()

    def row(self, text: str) -> None:
        """Print a row of a table that fills as the runs go, its columns kept."""
        if not self.output.quiet:
            try:
                print(text, file=self.text, flush=True)
            except BrokenPipeError:
                self._lose_reader()

    def detail(self, text: str) -> None:
        """Print what only those read who asked for everything."""
        if self.output.verbose:
            self.print(text)

    def _lose_reader(self) -> None:
        """Whoever read our output has gone (`| head`): end the run as Ctrl-C does, and save it."""
        self.stop.request()
        self.view = QuietView()

    def keep(self) -> None:
        """Write what was measured so far, once for each run: what comes later must not lose it."""
        if len(self.session.runs) > self._kept:
            self._kept = len(self.session.runs)
            self.session.interrupted = self.stop.requested
            try:
                self.write_result()
            except UsageError as error:
                notify(f"going on, although the result so far cannot be kept: {error}")

    def write_result(self) -> None:
        """Write the result as it is now to its file, if it is to have one.

        Raises:
            UsageError: it cannot be written.
        """
        output = self.output
        if output.json_on_stdout:
            return
        path = output.json
        if path is None and output.save:
            path = self._json_path = self._json_path or self._default_path()
        if path is not None:
            self._judge()
            results.write_json(path, results.session_to_json(self.session))
            self.written.append(path)
            make_expendable(self.text)

    def _write_result_somewhere(self) -> None:
        """Write the result to its file, or where that has become impossible, to the temporary directory.

        Raises:
            SaveError: it is not where it was to go.
        """
        try:
            self.write_result()
        except UsageError as error:
            rescue = results.default_path(Path(tempfile.gettempdir()), self.session)
            try:
                results.write_json(rescue, results.session_to_json(self.session))
            except UsageError as second:
                raise SaveError(f"{error}; nor could it be kept elsewhere: {second}") from error
            raise SaveError(f"{error}; the result is in {rescue} instead") from error

    def _write_result_to_stdout(self) -> None:
        """Give the result to whoever reads stdout, or keep it in the temporary directory.

        Raises:
            BrokenPipeError: the reader has gone.
            SaveError: it could not be written.
        """
        make_expendable(sys.stdout)
        content = results.session_to_json(self.session)
        failure = deliver(sys.stdout, results.dumps(content).decode("utf-8"))
        if failure is not None:
            rescue = results.default_path(Path(tempfile.gettempdir()), self.session)
            results.write_json(rescue, content)
            raise SaveError(
                f"cannot write to stdout: {reason_of(failure)}; the result is in {rescue} instead"
            )

    def _default_path(self) -> Path:
        return results.default_path(self.output.directory, self.session, levels=self.levels, span=self.span)

    def save(self, brief: Brief | None = None) -> None:
        """Write what the session measured, and its picture, say where they are, and then the answer.

        Args:
            brief: the last screen; its headline is the last thing said. None for none.

        Raises:
            SaveError: something is not where it was to go.
        """
        if not self.session.runs:
            if self.stop.requested:
                notify("stopped before anything was measured")
            return
        self.session.interrupted = self.stop.requested
        self._judge()
        failures: list[PoolBenchError] = []
        try:
            # What was measured first, then what people read while the picture is drawn.
            steps = (
                self._write_result_somewhere,
                lambda: self._show_body(brief or Brief()),
                self._write_plot,
                self._write_markdown,
            )
            for step in steps:
                try:
                    step()
                except (SaveError, UsageError) as error:
                    failures.append(error)
            for file in dict.fromkeys(self.written):
                notify(f"wrote {file}")
            if self.require_valid and (suspects := suspects_of(list(map(RunRecord.of, self._answers())))):
                notify(f"--require-valid: {suspects}")
            if self.output.json_on_stdout:
                try:
                    self._write_result_to_stdout()
                except SaveError as error:
                    failures.append(error)
        finally:
            if brief is not None and brief.headline:
                self.print(brief.last)
        if failures:
            raise SaveError("; ".join(str(error) for error in failures))

    def _show_body(self, brief: Brief) -> None:
        """Print what goes above the paths of files and the headline."""
        judged, colour = self.session.thresholds, self.colour
        if self.output.verbose or not brief.headline:
            if judged:
                self.print(threshold_lines(judged, colour=colour))
            return
        failed = Part(failed_thresholds(judged, colour=colour), rank=100, fewest=2, rows="thresholds")
        paths = [self._plot_path(), self.checks.summary, *self.written]
        below = sum(rows_of(f"wrote {path}") for path in dict.fromkeys(paths) if path is not None)
        if paths[0] is not None and not draws_in_place():
            below += rows_of(f"drawing {paths[0]} ...")
        body = Brief((*brief.parts, failed), brief.headline).body(below + self.require_valid)
        if body:
            self.print(body)

    def _plot_path(self) -> Path | None:
        """Where the picture goes, None where there is to be none."""
        output = self.output
        if output.plot is not None or not output.save:
            return output.plot
        beside = output.json if output.json and not output.json_on_stdout else self._json_path
        return (beside or self._default_path()).with_suffix(f".{output.plot_format}")

    def _write_plot(self) -> None:
        """Draw what was measured, if it is to be drawn.

        Raises:
            UsageError: it cannot be written.
        """
        plot = self._plot_path()
        if plot is not None and not all(run.not_started for run in self.session.runs):
            with busy(f"drawing {plot}"):
                from pool_bench.report.plot.figures import save_plot

                save_plot(plot, [from_session(self.session)])
            self.written.append(plot)

    def _write_markdown(self) -> None:
        """Write the summary for the page of a CI job, if there is to be one.

        Raises:
            UsageError: it cannot be written.
        """
        summary = self.checks.summary
        if summary is not None:
            write_atomically(summary, session_markdown(from_session(self.session)).encode("utf-8", "replace"))
            self.written.append(summary)

    @property
    def exit_code(self) -> int:
        """0, or 1: no success, no maximum found, a threshold that failed, a suspect run."""
        runs, search = self.session.runs, self.session.find_max
        fine = bool(runs) and all(run.total.ok for run in runs)
        if search is not None and search.limit is not Limit.INTERRUPTED:
            fine = search.found is not None
        if not fine or not all(outcome.ok for outcome in self.session.thresholds):
            return EXIT_FAILED
        if self.require_valid and suspects_of(list(map(RunRecord.of, self._answers()))):
            return EXIT_FAILED
        return EXIT_OK


def lose(work: BenchSession, run: Run, name: str, error: PoolBenchError) -> None:
    """Keep a row for a run that failed, whose session goes on without `name`."""
    notify(f"{name} failed, going on without it: {error}")
    # What it had measured until then is its row.
    if not any(result is run.result for result in work.session.runs):
        run.result.not_started = str(error)
        work.session.runs.append(run.result)
    work.keep()
