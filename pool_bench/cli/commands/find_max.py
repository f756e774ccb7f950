"""The search for the highest rate that meets objectives: a trial of its own length for each rate it asks for.

A trial lasts until ten operations are expected beyond its highest percentile (two seconds at least, a minute
at most), begins with the warm-up at its rate, and is followed by a pause in which the server settles.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pool_bench.analysis.objectives import Breach
from pool_bench.analysis.rate_search import RateSearch, Trial
from pool_bench.cli.options.generators import GeneratorOptions
from pool_bench.cli.options.loop import FindMax
from pool_bench.cli.session import BenchSession
from pool_bench.load.arrivals import constant
from pool_bench.load.run import Run
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.report.summary.run import run_summary
from pool_bench.report.summary.search import search_summary, step_line
from pool_bench.results.model import SearchRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Limit, SearchResult, SearchStep
from pool_bench.stats.runs import RunResult

TOLERANCE: Final = 0.05


def find_maximum(work: BenchSession, plan: FindMax, generators: GeneratorOptions, spec: ConnectSpec) -> None:
    """Search, show every trial and what was found, and keep it all in the session of `work`.

    Where the machine says how many processes generate the load, the search begins with one, and doubles them
    where a rate was missed that the client may be the reason for: the same rate is tried again.

    Raises:
        UsageError, GeneratorError: as `BenchSession.follow`; the trials until then are kept.
    """
    objectives = plan.objectives
    latencies = [condition.limit for condition in objectives.conditions if condition.is_latency]
    result = SearchResult(str(objectives), min(latencies, default=None), TOLERANCE)
    work.session.find_max = result
    search = RateSearch(plan.first, lowest=plan.lowest, highest=plan.highest, tolerance=TOLERANCE)
    last: RunResult | None = None
    most = spec.processes
    if generators.is_auto:
        spec = replace(spec, processes=1)
    try:
        while (trial := search.trial) is not None and not work.stop.requested:
            if last is not None and work.stop.sleep(plan.pause_s):
                break
            last = _measure(work, plan, spec, trial, number=len(result.steps) + 1)
            if last.interrupted:
                break
            breaches = objectives.breaches(last.total)
            to_blame = is_client_to_blame(last, breaches)
            result.steps.append(
                SearchStep(
                    run=len(work.session.runs) - 1,
                    rate=trial.rate,
                    kind=trial.kind,
                    passed=not breaches,
                    breaches=tuple(map(str, breaches)),
                    client=last.client_trouble,
                    client_to_blame=to_blame,
                )
            )
            if to_blame and spec.processes < most:
                spec = replace(spec, processes=min(2 * spec.processes, most))
                work.row(step_line(result.steps[-1], RunRecord.of(last)))
                work.message(f"the client was at its limit: going on with {spec.processes} processes")
                work.keep()
                continue
            if not last.total.ok and search.passed is None:
                # A lower rate would only fail more slowly.
                result.limit, result.why = Limit.SERVER, f"at {trial.rate:.4g}/s no operation succeeded"
                break
            search.tell(passed=not breaches)
            work.row(step_line(result.steps[-1], RunRecord.of(last)))
            work.keep()
    finally:
        conclude(result, search, work.session.runs)
    if last is not None:
        work.detail(run_summary(RunRecord.of(_run_of_answer(work, result)), colour=work.colour))
        runs = list(map(RunRecord.of, work.session.runs))
        work.detail(search_summary(runs, SearchRecord.of(result), colour=work.colour))


def _measure(work: BenchSession, plan: FindMax, spec: ConnectSpec, trial: Trial, *, number: int) -> RunResult:
    duration_s = plan.length_s(trial, spec.duration_s)
    open_loop = OpenLoop(profile=constant(trial.rate), spacing=plan.spacing)
    run = Run(
        replace(spec, open_loop=open_loop, duration_s=duration_s),
        f"{trial.kind} {trial.rate:.4g}/s",
        work.stop,
        work.crew,
    )
    # How many trials there will be nobody knows, but a confirmation may be the last one.
    total = int(trial.kind == "confirm")
    work.view.begin_run(f"trial {number}: {run.result.label}", 1, total, duration_s, spec.warmup_s)
    work.follow(run)
    return run.result


def is_client_to_blame(run: RunResult, breaches: Sequence[Breach]) -> bool:
    """Whether this client may be the reason for what was missed: at its limit, or late by as much."""
    if not breaches or run.client_trouble is None:
        return False
    if run.worst.is_busy:
        return True
    # Whoever had its core, or blocked it: what it was late by is not the server's.
    late = (run.worst.client.lag.percentile_ms(99), run.total.schedule_error.percentile_ms(99))
    late_ms = max(value or 0.0 for value in late)
    return all(
        breach.objective.is_latency
        and breach.value is not None
        and breach.value - breach.objective.limit <= late_ms
        for breach in breaches
    )


def _run_of_answer(work: BenchSession, result: SearchResult) -> RunResult:
    """The run that a person wants to see in full: the confirmation, else the last one."""
    passed = [step.run for step in result.steps if step.passed]
    return work.session.runs[passed[-1] if passed and result.found else -1]


def conclude(result: SearchResult, search: RateSearch, runs: Sequence[RunResult]) -> None:
    """Say what kept the search from a higher rate, where that is not said yet; `runs` are its trials'."""
    result.found = search.found
    if result.limit is not None:
        return
    broken = [step for step in result.steps if not step.passed and step.rate == search.failed]
    if search.trial is not None or not result.steps:
        result.limit = Limit.INTERRUPTED
        passed = f"; {search.passed:.4g}/s was the highest that met it" if search.passed else ""
        result.why = f"the search was ended before its end{passed}"
    elif not broken:
        result.limit, result.why = Limit.MAX_RATE, "it met the objective up to --max-rate"
    elif search.found is not None and (trouble := runs[result.steps[-1].run].saturation) is not None:
        # The verdict on the answer says so; what was missed above it says nothing of the server then.
        result.limit = Limit.CLIENT
        result.why = f"at {search.found:.4g}/s, which was confirmed, {trouble}"
    elif all(step.client_to_blame for step in broken):
        result.limit = Limit.CLIENT
        result.why = f"at {broken[-1].rate:.4g}/s the client was late, or at its limit: {broken[-1].client}"
    else:
        step = next(step for step in reversed(broken) if not step.client_to_blame)
        result.limit = Limit.SERVER
        result.why = f"at {step.rate:.4g}/s: {'; '.join(step.breaches)}"
