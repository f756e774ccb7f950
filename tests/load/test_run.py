"""Generators in processes of their own: what they send adds up, and none of them outlives its run."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pool_bench.errors import UsageError
from pool_bench.load.run import GeneratorError, Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from tests.support import hostile_postgres as h
from tests.support.generators import MARGIN_S, target

SECRET = "correct horse battery staple"
POLITE_WITH_PASSWORD: h.Script = (
    h.read_startup,
    h.send(h.auth(3)),
    h.read_message,
    h.send(h.WELCOME),
    h.read_message,
)


def _spec(server: h.HostileServer, **changes: object) -> ConnectSpec:
    url = server.url("sslmode=disable", user=f"u:{SECRET.replace(' ', '%20')}")
    given: dict[str, object] = {
        "targets": (target(url),),
        "concurrency": 2,
        "warmup_s": 0.1,
        "duration_s": 0.3,
        "tick_s": 0.1,
        "connect_timeout_s": 60.0,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


def _generators() -> list[psutil.Process]:
    """The generators among this process's children."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if (
                "pool_bench.load.process" in " ".join(child.cmdline())
                and child.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def _switch() -> Iterator[StopSwitch]:
    switch = StopSwitch()
    try:
        yield switch
    finally:
        switch.close()


def _run(
    spec: ConnectSpec, on_snapshot: Callable[[Snapshot, StopSwitch], None] = lambda snapshot, switch: None
) -> tuple[Run, list[Snapshot]]:
    snapshots = []
    with _switch() as switch:
        run = Run(spec, "a run", switch)
        try:
            for snapshot in run.snapshots():
                snapshots.append(snapshot)
                on_snapshot(snapshot, switch)
        finally:
            assert _generators() == []
    return run, snapshots


def test_a_result_is_the_sum_of_its_snapshots() -> None:
    # Long enough for any standstill, and slow enough to cost nothing.
    script: h.Script = (lambda peer: time.sleep(0.03), *POLITE_WITH_PASSWORD)
    with h.HostileServer(script) as one, h.HostileServer(script) as two:
        targets = (*_spec(one).targets, *_spec(two).targets)
        spec = _spec(one, targets=targets, duration_s=2.5, tick_s=0.4)
        run, snapshots = _run(spec)
        result = run.result
        assert result.total.ok == sum(s.ok for snapshot in snapshots for s in snapshot.targets) > 0
        assert result.total.failed == result.total.unfinished == 0
        assert result.total.ok + result.warmup.ok == one.accepted + two.accepted
        assert [part.ok for part in result.per_target] == [
            sum(snapshot.targets[index].ok for snapshot in snapshots) for index in range(2)
        ]
        assert BenchStats.merged(result.per_target).attempts == result.total.attempts
        assert sum(interval.ok for interval in result.total.intervals) == result.total.ok
        assert result.total.latency.count == result.total.ok
        assert [part.intervals for part in result.per_target] == [[], []]
        assert all(interval.latency is None for interval in result.total.intervals)
        # uvloop counts in milliseconds.
        assert 2.49 <= result.duration_s < 2.5 + MARGIN_S
        assert 0.09 <= result.warmup_s < 0.1 + MARGIN_S
        assert result.throughput == result.total.ok / result.duration_s
        assert result.client.cpu_s > 0
        assert result.client.rss_bytes > 1_000_000
        assert result.event_loop == "uvloop"
        assert not result.interrupted
        assert (result.label, result.concurrency, result.driver) == ("a run", 2, "wire")
        assert SECRET not in repr(result)
        assert [snapshot.stage for snapshot in snapshots][:1] == [Stage.WARMUP]
        assert snapshots[-1].final


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_a_stop_ends_a_run_without_end(driver: str) -> None:
    def stop(snapshot: Snapshot, switch: StopSwitch) -> None:
        if snapshot.targets[0].ok:
            switch.request()
            switch.request()

    with h.HostileServer(POLITE_WITH_PASSWORD) as server:
        run, snapshots = _run(_spec(server, duration_s=0.0, driver=driver), stop)
        assert run.result.interrupted
        assert run.result.total.ok > 0
        assert snapshots[-1].final


def test_a_stop_that_was_asked_for_before_the_run_ends_it_at_once() -> None:
    with h.HostileServer(POLITE_WITH_PASSWORD) as server, _switch() as switch:
        switch.request()
        run = Run(_spec(server, duration_s=0.0), "a run", switch)
        snapshots = list(run.snapshots())
        assert run.result.interrupted
        assert snapshots[-1].final
        assert _generators() == []


def test_a_stop_wakes_a_pause_between_runs() -> None:
    with _switch() as switch:
        timer = threading.Timer(0.05, switch.request)
        timer.start()
        switch.sleep(60.0)
        assert switch.requested
        timer.join()


def test_a_generator_that_dies_is_noticed() -> None:
    def kill(snapshot: Snapshot, switch: StopSwitch) -> None:
        for child in _generators():
            child.kill()

    ended = pytest.raises(GeneratorError, match="ended without a result")
    with h.HostileServer(POLITE_WITH_PASSWORD) as server, ended:
        _run(_spec(server, duration_s=60.0), kill)


def test_a_generator_that_dies_as_it_is_told_to_stop_is_noticed() -> None:
    def kill(snapshot: Snapshot, switch: StopSwitch) -> None:
        for child in _generators():
            child.kill()
            # Wait for its end, and leave the collecting to its parent's own code.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        switch.request()

    ended = pytest.raises(GeneratorError, match="ended without a result")
    with h.HostileServer(POLITE_WITH_PASSWORD) as server, ended:
        _run(_spec(server, duration_s=60.0), kill)


def test_a_view_that_is_given_up_ends_the_generator() -> None:
    with h.HostileServer(POLITE_WITH_PASSWORD) as server, _switch() as switch:
        snapshots = Run(_spec(server, duration_s=60.0), "a run", switch).snapshots()
        next(snapshots)
        (child,) = _generators()
        snapshots.close()  # type: ignore[attr-defined]  # it is a generator
        assert not child.is_running()
        assert _generators() == []


def test_an_interrupt_from_the_terminal_does_not_end_a_generator() -> None:
    def interrupt(snapshot: Snapshot, switch: StopSwitch) -> None:
        for child in _generators():
            os.kill(child.pid, signal.SIGINT)

    with h.HostileServer(POLITE_WITH_PASSWORD) as server:
        run, _ = _run(_spec(server), interrupt)
        assert run.result.total.ok > 0


def test_an_unusable_certificate_is_the_users_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    url = f"postgresql://u:{SECRET.replace(' ', '%20')}@127.0.0.1:1/d?sslmode=verify-ca&sslrootcert={broken}"
    with pytest.raises(UsageError, match="sslrootcert") as caught:
        _run(ConnectSpec(targets=(target(url),)))
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_password_is_in_no_command_line_and_no_environment() -> None:
    seen: list[bytes] = []

    def look(snapshot: Snapshot, switch: StopSwitch) -> None:
        for child in _generators():
            seen.extend(Path(f"/proc/{child.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))

    with h.HostileServer(POLITE_WITH_PASSWORD) as server:
        run, _ = _run(_spec(server), look)
        assert run.result.total.ok > 0
    assert len(seen) >= 2
    assert not any(SECRET.encode() in text or b"correct" in text for text in seen)
