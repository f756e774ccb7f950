"""Several generator processes do one run: what they did adds up, and the loss of one does not end it."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pool_bench.analysis.reasons import ReasonCode
from pool_bench.analysis.verdict import judge
from pool_bench.load.arrivals import constant
from pool_bench.load.run import GeneratorError, Run, StopSwitch
from pool_bench.load.spec import ConnectSpec, HoldSpec, OpenLoop, Spec
from pool_bench.results.run import RunRecord
from pool_bench.stats.runs import Snapshot, Stage
from tests.support import hostile_postgres as h
from tests.support.generators import target

SLOW: h.Script = (
    h.read_startup,
    h.send(h.WELCOME),
    h.read_message,
)
HELD: h.Script = (h.read_startup, h.send(h.WELCOME), h.read_message)


def _spec(server: h.HostileServer, **changes: object) -> ConnectSpec:
    spec = ConnectSpec(
        targets=(target(server.url("sslmode=disable")),),
        concurrency=5,
        warmup_s=0.0,
        duration_s=1.0,
        tick_s=0.25,
        connect_timeout_s=60.0,
        grace_s=60.0,
        processes=2,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _run(spec: Spec, saw: Callable[[Run, Snapshot, StopSwitch], None] | None = None) -> tuple[Run, list[str]]:
    said: list[str] = []
    switch = StopSwitch()
    try:
        run = Run(spec, "together", switch)
        run.say = said.append
        for snapshot in run.snapshots():
            if saw is not None:
                saw(run, snapshot, switch)
        return run, said
    finally:
        switch.close()
        assert all(map(_gone, run.pids))


def test_all_that_they_did_is_in_the_result_and_in_that_of_each() -> None:
    with h.HostileServer(SLOW) as server:
        run, said = _run(_spec(server))
        result = run.result
        assert result.total.ok + result.total.unfinished == server.accepted > 0
        parts = result.generators
        assert [part.number for part in parts] == [1, 2]
        assert sum(part.stats.ok for part in parts) == result.total.ok
        assert sum(interval.ok for interval in result.total.intervals) == result.total.ok
        assert result.client.processes == 2
        assert result.client.cpu_s == pytest.approx(sum(part.client.cpu_s for part in parts))
        assert not said
        result.per_process = True
        record = RunRecord.of(result)
        assert (record.processes, [row.ok for row in record.generators]) == (2, [p.stats.ok for p in parts])


@pytest.mark.parametrize("spacing", ["constant", "poisson"])
def test_an_open_loop_offers_what_one_process_would(spacing: str) -> None:
    with h.HostileServer(SLOW) as server:
        loop = OpenLoop(profile=constant(40.0), spacing=spacing)  # type: ignore[arg-type]
        run, _ = _run(_spec(server, open_loop=loop, concurrency=50, processes=3, seed=5))
        total = run.result.total
        assert total.offered == total.ok + total.failed + total.unfinished + total.dropped + total.aside
        if spacing == "constant":
            assert total.offered == 40
        assert run.result.rate == 40.0


def test_one_that_is_killed_is_reported_and_the_others_go_on() -> None:
    killed: list[int] = []

    def kill(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        if not killed and snapshot.stage is Stage.MEASURE and snapshot.targets[0].ok:
            killed.append(run.pids[0])
            os.kill(run.pids[0], signal.SIGKILL)
        elif killed and run.result.generators[0].lost and snapshot.targets[0].ok:
            switch.request()

    with h.HostileServer(SLOW) as server:
        run, said = _run(_spec(server, duration_s=0.0), kill)
        result = run.result
        assert said == [
            "generator process 1 of 2 is lost: the generator process ended without a result; the others go on"
        ]
        assert result.interrupted
        assert result.generators[0].stats.ok + result.generators[1].stats.ok == result.total.ok
        reasons = {reason.code: reason for reason in judge(result).reasons}
        assert "process 1: the generator process ended without" in reasons[ReasonCode.GENERATOR_LOST].text


def test_without_any_that_is_left_the_run_fails() -> None:
    def kill(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        for pid in run.pids:
            os.kill(pid, signal.SIGKILL)

    with (
        h.HostileServer(SLOW) as server,
        pytest.raises(GeneratorError, match="all generator processes are lost"),
    ):
        _run(_spec(server, duration_s=0.0), kill)


def test_a_stop_ends_all() -> None:
    def stop(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        if snapshot.targets[0].ok:
            switch.request()

    with h.HostileServer(SLOW) as server:
        run, _ = _run(_spec(server, duration_s=0.0, processes=3), stop)
        assert run.result.interrupted
        assert run.result.total.ok > 0


def test_all_hold_from_the_same_moment_on() -> None:
    opened_s: list[float] = []
    closed_s: list[float] = []

    def note_start(peer: h.Peer) -> None:
        h.read_startup(peer)
        # Before it is welcome, so no client takes it for open earlier.
        opened_s.append(time.monotonic())

    def note_end(peer: h.Peer) -> None:
        h.read_message(peer)
        closed_s.append(time.monotonic())

    with h.HostileServer((note_start, h.send(h.WELCOME), note_end)) as server:
        spec = HoldSpec(
            targets=(target(server.url("sslmode=disable")),),
            connections=(7,),
            duration_s=0.5,
            keepalive_s=0.0,
            # Of the second process the last one is begun half a second after all of the first are open.
            rate=4.0,
            tick_s=0.25,
            connect_timeout_s=60.0,
            processes=2,
        )
        run, _ = _run(spec)
        hold = run.result.hold
        assert hold is not None
        assert (hold.opened, hold.dropped, hold.closed) == (7, 0, 7)
        assert server.accepted == 7
        stages = [interval.stage for interval in hold.intervals]
        assert stages == sorted(stages, key=["open", "hold", "close"].index)
        assert {interval.held for interval in hold.intervals if interval.stage == "hold"} <= {7}
    # Held for as long as was asked, all of them.
    assert min(closed_s) - max(opened_s) >= 0.5
