"""A command under way: shows its runs, keeps their results, and writes them whatever happens meanwhile."""

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pool_bench.cli.options import Output
from pool_bench.cli.params import EXIT_FAILED, EXIT_OK
from pool_bench.cli.thresholds import NO_CHECKS, Checks
from pool_bench.errors import SaveError, UsageError
from pool_bench.load.runner import GeneratorError, Run, StopSwitch
from pool_bench.report import results
from pool_bench.report.files import write_atomically
from pool_bench.report.markdown import session_markdown
from pool_bench.report.plots import save_plot
from pool_bench.report.text import colour_wanted
from pool_bench.report.thresholds import Threshold, Watch, judge_run, threshold_lines
from pool_bench.report.verdict_words import suspects_of
from pool_bench.report.views import LiveView, QuietView
from pool_bench.runs import Limit, RunResult, Session, Snapshot
from pool_bench.verdict import judge


@dataclass(slots=True)
class Work:
    """A command under way: what it has measured so far, and where it shows and keeps it.

    Attributes:
        output: where results go.
        stop: ends it early.
        view: shows the run under way.
        text: where lines and summaries go.
        session: what was measured so far.
        levels: the concurrency of each run, for the file's name.
        span: stands there instead of the levels.
        checks, thresholds: what must hold of each run.
        written: files written so far.
        require_valid: whether a suspect run makes the exit code 1.
    """

    output: Output
    stop: StopSwitch
    view: LiveView
    text: TextIO
    session: Session
    levels: tuple[int, ...]
    span: str = ""
    checks: Checks = NO_CHECKS
    thresholds: tuple[Threshold, ...] = ()
    written: list[Path] = field(default_factory=list)
    require_valid: bool = False
    _json_path: Path | None = None

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
        try:
            for snapshot in run.snapshots():
                lost = watch.look(run.result, snapshot)
                if lost is not None and not self.stop.requested:
                    tell(f"ending early: {lost.text} is lost")
                    self.stop.request()
                if saw is not None:
                    saw(snapshot)
                try:
                    self.view.update(snapshot)
                except BrokenPipeError:
                    self._lose_reader()
        except GeneratorError:
            # What it had measured until then is as good as after an interruption.
            run.result.interrupted = True
            if run.result.total.attempts:
                self.session.runs.append(run.result)
            raise
        finally:
            self.view.end_run()
        self.session.runs.append(run.result)
        self.session.finished_at = datetime.now(UTC)
        self.view.message(f"done, {judge(run.result).words}")

    def _describe(self, result: RunResult) -> None:
        """Tell a run what the session knows and its generator does not."""
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
        self.session.thresholds = [one for run in runs for one in judge_run(self.thresholds, run)]

    def print(self, text: str) -> None:
        """Print a summary or a table where people read."""
        if not (self.output.quiet and self.output.json_on_stdout):
            try:
                print(f"\n{text}", file=self.text, flush=True)
            except BrokenPipeError:
                self._lose_reader()

    def _lose_reader(self) -> None:
        """Whoever read our output has gone (`| head`): end the run as Ctrl-C does, and save it."""
        self.stop.request()
        self.view = QuietView()
        # Not closed: it takes the place of stdout, or of stderr, until the process ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.text.fileno())
        os.close(nowhere)

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

    def _default_path(self) -> Path:
        return results.default_path(self.output.directory, self.session, levels=self.levels, span=self.span)

    def save(self) -> None:
        """Write what the session measured, and its picture, and say where they are.

        Raises:
            SaveError: something is not where it was to go.
        """
        session, output = self.session, self.output
        if not session.runs:
            if self.stop.requested:
                tell("stopped before anything was measured")
            return
        session.interrupted = self.stop.requested
        self._judge()
        if session.thresholds:
            self.print(threshold_lines(session.thresholds, colour=colour_wanted(self.text)))
        self._write_result_somewhere()
        if output.json_on_stdout:
            sys.stdout.write(results.dumps(results.session_to_json(session)).decode("utf-8"))
            sys.stdout.flush()
        plot = output.plot
        if plot is None and output.save:
            beside = output.json if output.json and not output.json_on_stdout else self._json_path
            plot = (beside or self._default_path()).with_suffix(f".{output.plot_format}")
        if plot is not None:
            try:
                save_plot(plot, [results.from_session(session)])
            except UsageError as error:
                raise SaveError(str(error)) from error
            self.written.append(plot)
        if self.checks.summary is not None:
            try:
                write_atomically(self.checks.summary, session_markdown(session).encode("utf-8", "replace"))
            except UsageError as error:
                raise SaveError(str(error)) from error
            self.written.append(self.checks.summary)
        for file in dict.fromkeys(self.written):
            tell(f"wrote {file}")

    @property
    def exit_code(self) -> int:
        """0, or 1: no success, no maximum found, a threshold that failed, a suspect run."""
        runs, search = self.session.runs, self.session.find_max
        fine = bool(runs) and all(run.total.ok for run in runs)
        if search is not None and search.limit is not Limit.INTERRUPTED:
            fine = search.found is not None
        if not fine or not all(one.ok for one in self.session.thresholds):
            return EXIT_FAILED
        suspects = suspects_of(self._answers()) if self.require_valid else ""
        if suspects:
            tell(f"--require-valid: {suspects}")
            return EXIT_FAILED
        return EXIT_OK


def tell(text: str) -> None:
    """Say something that is no result, on stderr."""
    print(text, file=sys.stderr, flush=True)
