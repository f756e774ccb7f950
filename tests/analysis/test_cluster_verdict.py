"""What goes wrong between the machines of one run: each has a reason of its own."""

from pool_bench.analysis.reasons import ReasonCode
from pool_bench.analysis.verdict import judge
from pool_bench.stats.generators import GeneratorPart
from pool_bench.stats.hosts import Clock, HostPart
from pool_bench.stats.runs import RunResult

MS = 1_000_000


def _run(part: GeneratorPart, *, uncertainty_ns: int = MS, drift_ns: int | None = 0) -> RunResult:
    run = RunResult(label="c2", concurrency=2, driver="wire", targets=("t",))
    run.generators = (GeneratorPart(1, host="a"), part)
    clock = Clock(offset_ns=10**15, uncertainty_ns=uncertainty_ns)
    host = HostPart(name="b", address="tcp://b:1", processes=1, clock=clock, drift_ns=drift_ns)
    run.hosts = (host,)
    return run


def _reasons(run: RunResult) -> dict[str, str]:
    codes = (
        ReasonCode.WORKER_LOST,
        ReasonCode.SNAPSHOTS_MISSING,
        ReasonCode.STARTED_LATE,
        ReasonCode.CLOCK_SKEW,
    )
    return {
        each.code: each.text
        for each in judge(run).reasons
        if each.code in (*codes, ReasonCode.GENERATOR_LOST)
    }


def test_each_has_its_own_reason_with_the_machine_and_the_number() -> None:
    assert _reasons(_run(GeneratorPart(2, host="b", late_ns=100 * MS), uncertainty_ns=100 * MS)) == {}
    for run, code, words in (
        (
            _run(GeneratorPart(2, host="b", lost="its worker tcp://b:1 is gone", worker_lost=True)),
            ReasonCode.WORKER_LOST,
            "process 2 on b: its worker tcp://b:1 is gone",
        ),
        (
            _run(GeneratorPart(2, host="b", missing=1_234)),
            ReasonCode.SNAPSHOTS_MISSING,
            "1,234 of process 2 on b",
        ),
        (
            _run(GeneratorPart(2, host="b", late_ns=101 * MS)),
            ReasonCode.STARTED_LATE,
            "process 2 on b: 101 ms",
        ),
        (_run(GeneratorPart(2, host="b"), uncertainty_ns=101 * MS), ReasonCode.CLOCK_SKEW, "b: 101 ms"),
        (_run(GeneratorPart(2, host="b"), drift_ns=-250 * MS), ReasonCode.CLOCK_SKEW, "b: 250 ms"),
    ):
        ((found, text),) = _reasons(run).items()
        assert (found, words in text) == (code, True), text
