"""One command's work from settings to exit code: servers, runs, views, summary, files."""

import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.locate import Place, embedded_target, serve
from pool_bench.cli.params import EXIT_FAILED, EXIT_LEFT, EXIT_OK
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.errors import ConnectError, PoolBenchError, SaveError, UsageError
from pool_bench.load.runner import GeneratorError, Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.report import results
from pool_bench.report.files import check_writable
from pool_bench.report.plots import plot_format, save_plot
from pool_bench.report.summary import run_summary, sweep_table
from pool_bench.report.text import colour_wanted
from pool_bench.report.views import LiveView, QuietView, make_view
from pool_bench.runs import RunResult, Session
from pool_bench.targets import Target, redact
from pool_bench.units import format_duration

if TYPE_CHECKING:
    from pool_bench.servers.postgres import EmbeddedPostgres

_PROBE_TIMEOUT_S: Final = 5.0
_SILENT_PAUSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go.

    Attributes:
        json: a file for the result, `-` for stdout; None for one in `directory`.
        plot: a file for the picture; None for one in `directory`.
        plot_format: the format of a picture in `directory`.
        directory: where files go that have no path of their own.
        save: whether files without a path of their own are written at all.
        quiet: no live view.
    """

    json: Path | None
    plot: Path | None
    plot_format: Literal["png", "svg"]
    directory: Path
    save: bool
    quiet: bool

    @property
    def json_on_stdout(self) -> bool:
        """True where stdout belongs to a machine."""
        return self.json is not None and str(self.json) == "-"

    def check(self) -> None:
        """Make sure that everything can be written.

        Raises:
            UsageError: something cannot; names the option and the path.
        """
        if self.json is not None and not self.json_on_stdout:
            check_writable(self.json, option="--json")
        if self.plot is not None:
            plot_format(self.plot, option="--plot")
            check_writable(self.plot, option="--plot")
        if self.save and (self.json is None or self.plot is None):
            check_writable(self.directory, option="--output-dir", directory=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What to measure.

    Attributes:
        tool, name: as in the result file.
        place: where the targets come from.
        spec: the settings of every run; targets and concurrency are filled in.
        levels: the concurrency of each run.
        pause_s: between runs, seconds.
        output: where results go.
    """

    tool: str
    name: str
    place: Place
    spec: ConnectSpec
    levels: tuple[int, ...]
    pause_s: float
    output: Output


@dataclass(slots=True)
class _Work:
    """The state of a benchmark under way."""

    benchmark: Benchmark
    stop: StopSwitch
    view: LiveView
    text: TextIO
    session: Session
    written: list[Path] = field(default_factory=list)
    json_path: Path | None = None


def measure(benchmark: Benchmark) -> int:
    """Measure every level, show it, and write the files.

    Returns:
        The exit code: 0, 1 where a run had no success, 130 where the user left.

    Raises:
        UsageError: a setting turned out to be impossible.
        ServerStartError: the embedded server does not start.
        GeneratorError: a generator process failed; what was measured before is saved.
    """
    output = benchmark.output
    output.check()
    raise_file_limit(max(benchmark.levels), option="--concurrency")
    text = sys.stderr if output.json_on_stdout else sys.stdout
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(_tell))
            server = stack.enter_context(serve(benchmark.place, connections=max(benchmark.levels)))
            targets = benchmark.place.targets or (_embedded(server, benchmark.tool),)
            spec = replace(benchmark.spec, targets=targets)
            session = _session(benchmark, spec)
            session.server = _ask(targets[0], spec, stop, embedded=server is not None)
            view = make_view(
                text,
                stream_is_terminal=text.isatty(),
                quiet=output.quiet,
                targets=[str(target) for target in targets],
            )
            stack.callback(view.close)
            work = _Work(benchmark, stop, view, text, session)
            try:
                _measure_all(work, spec)
            except PoolBenchError:
                _finish(work)
                raise
            _finish(work)
            return _exit_code(session)
    except LeaveNow:
        _tell("left without a summary")
        return EXIT_LEFT


def _embedded(server: "EmbeddedPostgres | None", tool: str) -> Target:
    if server is None:
        raise AssertionError("no target was named, and no server was started")
    return embedded_target(server, application_name=tool)


def _session(benchmark: Benchmark, spec: ConnectSpec) -> Session:
    levels = benchmark.levels
    return Session(
        tool=benchmark.tool,
        name=benchmark.name,
        started_at=datetime.now(UTC),
        argv=tuple(redact(word) for word in sys.argv),
        targets=tuple(str(target) for target in spec.targets),
        config={
            "target_from": benchmark.place.origin,
            "concurrency": levels[0] if len(levels) == 1 else None,
            "concurrency_min": levels[0],
            "concurrency_max": levels[-1],
            "duration_s": spec.duration_s,
            "warmup_s": spec.warmup_s,
            "grace_s": spec.grace_s,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "query": spec.query,
            "scram_cache": spec.scram_cache,
            "resolve": "once" if spec.resolve_once else "each",
            "wait_between_runs_s": benchmark.pause_s,
        },
    )


def _ask(target: Target, spec: ConnectSpec, stop: StopSwitch, *, embedded: bool) -> dict[str, str]:
    """What the server says it is; a target that fails is still measured, failure being data."""
    import asyncio
    import contextlib

    from pool_bench.drivers.wire import ask_server

    async def ask() -> dict[str, str]:
        question = asyncio.ensure_future(ask_server(target))
        with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
            asyncio.get_running_loop().add_reader(stop.fileno(), question.cancel)
        async with asyncio.timeout(min(_PROBE_TIMEOUT_S, spec.connect_timeout_s)):
            info = await question
        server = {"product": info.product, "version": info.version}
        if info.pooled:
            server["through"] = "a pooler"
        return server

    try:
        server = asyncio.run(ask())
    except ConnectError as error:
        _tell(f"first connection to {target} failed: {error}")
        return {}
    except TimeoutError:
        _tell(f"first connection to {target}: no answer yet")
        return {}
    except asyncio.CancelledError:
        return {}  # stopped by the user
    if embedded:
        server["embedded"] = "yes"
    words = f"{server['product']} {server['version']}".strip()
    how = ", embedded" if embedded else f", through {server['through']}" if "through" in server else ""
    _tell(f"{words}{how}, at {target}")
    return server


def _measure_all(work: _Work, spec: ConnectSpec) -> None:
    levels = work.benchmark.levels
    for index, level in enumerate(levels):
        pause_s = work.benchmark.pause_s if index else 0
        if pause_s > _SILENT_PAUSE_S and not work.stop.requested:
            _tell(f"next run in {format_duration(pause_s)}")
        if work.stop.sleep(pause_s):
            break
        _measure_one(work, replace(spec, concurrency=level), index)
        if len(levels) > 1:
            # Kept after every level: a later one that fails must not lose the earlier ones.
            try:
                _write_result(work)
            except UsageError as error:
                _tell(f"going on, although the result so far cannot be kept: {error}")


def _measure_one(work: _Work, spec: ConnectSpec, index: int) -> None:
    levels = work.benchmark.levels
    run = Run(spec, f"c{spec.concurrency}", work.stop)
    try:
        work.view.begin_run(run.result.label, index + 1, len(levels), spec.duration_s, spec.warmup_s)
        for snapshot in run.snapshots():
            try:
                work.view.update(snapshot)
            except BrokenPipeError:
                _lose_reader(work)
    except GeneratorError:
        # What it had measured until then is as good as after an interruption.
        run.result.interrupted = True
        if run.result.total.attempts:
            work.session.runs.append(run.result)
        raise
    finally:
        work.view.end_run()
    work.session.runs.append(run.result)
    work.session.finished_at = datetime.now(UTC)
    _print(work, run_summary(run.result, colour=colour_wanted(work.text)))


def _lose_reader(work: _Work) -> None:
    """Whoever read our output has gone (`| head`): end the run as Ctrl-C does, and save it."""
    work.stop.request()
    work.view = QuietView()
    # Not closed: it takes the place of stdout, or of stderr, until the process ends.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, work.text.fileno())
    os.close(nowhere)


def _print(work: _Work, text: str) -> None:
    if not (work.benchmark.output.quiet and work.benchmark.output.json_on_stdout):
        try:
            print(f"\n{text}", file=work.text, flush=True)
        except BrokenPipeError:
            _lose_reader(work)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_result(work: _Work) -> None:
    """Write the result as it is now to its file, if it is to have one.

    Raises:
        UsageError: it cannot be written.
    """
    output = work.benchmark.output
    if output.json_on_stdout:
        return
    path = output.json
    if path is None and output.save:
        path = work.json_path = work.json_path or _default_path(work)
    if path is not None:
        results.write_json(path, results.session_to_json(work.session))
        work.written.append(path)


def _write_result_somewhere(work: _Work) -> None:
    """Write the result to its file, or where that has become impossible, to the temporary directory.

    Raises:
        SaveError: it is not where it was to go.
    """
    try:
        _write_result(work)
    except UsageError as error:
        rescue = results.default_path(Path(tempfile.gettempdir()), work.session)
        try:
            results.write_json(rescue, results.session_to_json(work.session))
        except UsageError as second:
            raise SaveError(f"{error}; nor could it be kept elsewhere: {second}") from error
        raise SaveError(f"{error}; the result is in {rescue} instead") from error


def _default_path(work: _Work) -> Path:
    benchmark = work.benchmark
    return results.default_path(benchmark.output.directory, work.session, levels=benchmark.levels)


def _finish(work: _Work) -> None:
    """Sum up the session and write its files, if it measured anything."""
    session, output = work.session, work.benchmark.output
    if not session.runs:
        if work.stop.requested:
            _tell("stopped before anything was measured")
        return
    session.interrupted = work.stop.requested
    if len(work.benchmark.levels) > 1:
        _print(work, sweep_table(session.runs, colour=colour_wanted(work.text)))
    _write_result_somewhere(work)
    if output.json_on_stdout:
        sys.stdout.write(results.dumps(results.session_to_json(session)).decode("utf-8"))
        sys.stdout.flush()
    plot = output.plot
    if plot is None and output.save:
        beside = output.json if output.json and not output.json_on_stdout else work.json_path
        plot = (beside or _default_path(work)).with_suffix(f".{output.plot_format}")
    if plot is not None:
        try:
            save_plot(plot, [results.from_session(session)])
        except UsageError as error:
            raise SaveError(str(error)) from error
        work.written.append(plot)
    for file in dict.fromkeys(work.written):
        _tell(f"wrote {file}")


def _exit_code(session: Session) -> int:
    def succeeded(run: RunResult) -> bool:
        return run.total.ok > 0

    return EXIT_OK if session.runs and all(succeeded(run) for run in session.runs) else EXIT_FAILED
