"""Generators behind the workers of a Dask cluster: what they did adds up, and what is lost shows."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("distributed", reason="Dask is not installed: pip install pool-bench[cluster]")

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from pool_bench.analysis.reasons import ReasonCode
from pool_bench.analysis.verdict import judge
from pool_bench.load.cluster.crew import ClusterCrew
from pool_bench.load.cluster.opening import crew_of, started_here
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec, HoldSpec, Spec
from pool_bench.results.run import RunRecord
from pool_bench.stats.runs import Snapshot, Stage
from tests.support import hostile_postgres as h
from tests.support.commands import Started, all_gone
from tests.support.generators import target

POLITE: h.Script = (h.read_startup, h.send(h.WELCOME), h.read_message)
SECRET = "not-for-anybodys-eyes"
WORKERS = 2
# A cluster in each of several test processes at once would only slow them all down.
pytestmark = pytest.mark.quiet
LOST = {ReasonCode.GENERATOR_LOST, ReasonCode.WORKER_LOST}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Connected to a scheduler with two workers; each of them comes back after it was killed."""
    with started_here(WORKERS) as client:
        yield client
        # One that was killed is on its way back, and is to be there to be ended.
        client.wait_for_workers(WORKERS, timeout=120)


@pytest.fixture
def crew(client: Client) -> Iterator[ClusterCrew]:
    client.wait_for_workers(WORKERS, timeout=120)
    with crew_of(client) as crew:
        yield crew


def _spec(server: h.HostileServer, **changes: Any) -> ConnectSpec:
    spec = ConnectSpec(
        targets=(target(server.url("sslmode=disable")),),
        concurrency=5,
        warmup_s=0.0,
        duration_s=0.0,
        tick_s=0.25,
        connect_timeout_s=60.0,
        grace_s=60.0,
        processes=WORKERS,
    )
    return replace(spec, **changes)


def _run(
    crew: ClusterCrew, spec: Spec, saw: Callable[[Run, Snapshot, StopSwitch], None] | None = None
) -> tuple[Run, list[str]]:
    said: list[str] = []
    switch = StopSwitch()
    try:
        run = Run(spec, "together", switch, crew)
        run.say = said.append
        for snapshot in run.snapshots():
            if saw is not None:
                saw(run, snapshot, switch)
        return run, said
    finally:
        switch.close()
        assert not _generators()


def _generators() -> list[psutil.Process]:
    """Those that this process's workers have started, which are its children's children."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if "pool_bench.load.process" in " ".join(_title(one))]


def _title(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _address(client: Client) -> str:
    return str(client.scheduler_info()["address"])


def _codes(run: Run) -> set[str]:
    return {reason.code for reason in judge(run.result).reasons}


def _all_that_the_scheduler_knows(dask_scheduler: Any) -> bytes:
    """What its dashboard shows and its log says: tasks, transitions, events, code."""
    known = (
        repr(list(dask_scheduler.transition_log)),
        repr([(task.key, task.run_spec, task.annotations) for task in dask_scheduler.tasks.values()]),
        repr([list(map(str, computation.code)) for computation in dask_scheduler.computations]),
        repr(dask_scheduler.get_events()),
        repr(dask_scheduler.get_logs()),
    )
    return repr(known).encode()


class _Specs(SchedulerPlugin):
    """Keeps every task as it was sent."""

    name = "specs"

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def update_graph(self, scheduler: Any, **kwargs: Any) -> None:
        """Called with each graph."""
        tasks = kwargs.get("tasks", ())
        self.seen.append(repr(kwargs).encode())
        self.seen += [pickle.dumps(scheduler.tasks[key].run_spec) for key in tasks]


def test_what_workers_did_adds_up_and_no_password_is_left_with_the_scheduler(
    client: Client, crew: ClusterCrew
) -> None:
    def stop(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        if all(part.stats.ok for part in run.result.generators):
            switch.request()

    client.register_plugin(_Specs())
    with h.HostileServer(POLITE) as server:
        named = target(server.url("sslmode=disable"))
        spec = _spec(server, targets=(replace(named, password=SECRET),))
        run, said = _run(crew, spec, stop)
        result = run.result
        assert not said
        assert result.total.ok + result.total.unfinished == server.accepted > 0
        assert sum(part.stats.ok for part in result.generators) == result.total.ok
        assert [part.missing for part in result.generators] == [0, 0]
        assert all(part.late_ns is not None for part in result.generators)
    assert [(host.processes, host.drift_ns is None) for host in result.hosts] == [(1, False)] * WORKERS
    assert (
        len({host.address for host in result.hosts}) == len({host.name for host in result.hosts}) == WORKERS
    )
    assert len(RunRecord.of(result).workers) == WORKERS
    known: list[bytes] = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["specs"].seen)
    known.append(client.run_on_scheduler(_all_that_the_scheduler_knows))
    known.append(repr(client.get_worker_logs()).encode())
    topics = client.get_events()
    assert any(topic.startswith("pool-bench-") for topic in topics)
    known += [pickle.dumps(events) for events in topics.values()]
    assert any(b"pool-bench-" in each for each in known)
    assert not [each for each in known if SECRET.encode() in each]


def test_held_connections_are_spread_over_workers_and_all_closed(crew: ClusterCrew) -> None:
    with h.HostileServer(POLITE) as server:
        spec = HoldSpec(
            targets=(target(server.url("sslmode=disable")),),
            connections=(7,),
            duration_s=0.3,
            keepalive_s=0.0,
            tick_s=0.25,
            connect_timeout_s=60.0,
            processes=WORKERS,
        )
        run, _ = _run(crew, spec)
        hold = run.result.hold
        assert hold is not None
        assert (hold.opened, hold.dropped, hold.closed, server.accepted) == (7, 0, 7, 7)


def test_a_generator_that_is_killed_is_lost_and_the_others_go_on(crew: ClusterCrew) -> None:
    killed: list[int] = []

    def kill(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        if not killed and snapshot.stage is Stage.MEASURE and snapshot.targets[0].ok:
            victim = _generators()[0]
            killed.append(victim.pid)
            victim.kill()
        elif any(part.lost for part in run.result.generators) and snapshot.targets[0].ok:
            switch.request()

    with h.HostileServer(POLITE) as server:
        run, said = _run(crew, _spec(server), kill)
        assert len(said) == 1
        assert "is lost: the generator process ended without a result; the others go on" in said[0]
        assert sum(part.stats.ok for part in run.result.generators) == run.result.total.ok
        assert _codes(run) & LOST == {ReasonCode.GENERATOR_LOST}


def test_generators_end_with_a_command_that_is_killed(
    client: Client, crew: ClusterCrew, tmp_path: Path
) -> None:
    with h.HostileServer(POLITE) as server:
        where = ("--url", server.url(), "--cluster", _address(client))
        started = Started(
            tmp_path, *where, "--no-watch", "--keep-going", "--warmup", "0s", "-d", "0", "--no-save"
        )
        started.wait_for(r"^ +[0-9.]+s +measure +[1-9]", seconds=180)
        generators = _generators()
        assert len(generators) == WORKERS
        os.kill(started.process.pid, signal.SIGKILL)
        assert started.finish().code == -signal.SIGKILL
        assert all_gone(generators)


def test_a_worker_that_is_killed_is_a_reason_of_its_own_and_nothing_runs_twice(crew: ClusterCrew) -> None:
    begun: set[int] = set()
    killed: list[int] = []

    def kill(run: Run, snapshot: Snapshot, switch: StopSwitch) -> None:
        begun.update(one.pid for one in _generators())
        if not killed and snapshot.stage is Stage.MEASURE and snapshot.targets[0].ok:
            worker = psutil.Process(_generators()[0].ppid())
            assert worker.ppid() == os.getpid()
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        elif any(part.lost for part in run.result.generators) and snapshot.targets[0].ok:
            switch.request()

    with h.HostileServer(POLITE) as server:
        run, said = _run(crew, _spec(server), kill)
        (line,) = said
        assert "is lost: its worker tcp://" in line
        assert len(begun) == WORKERS
        assert [part.worker_lost for part in run.result.generators].count(True) == 1
        assert sum(part.stats.ok for part in run.result.generators) == run.result.total.ok
        assert _codes(run) & LOST == {ReasonCode.WORKER_LOST}
