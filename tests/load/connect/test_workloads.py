"""The generator and its loads against servers that count: nothing is lost, nothing is counted twice."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.drivers.base import DriverName
from pool_bench.drivers.wire.plan import Endpoint, WirePlan, resolve
from pool_bench.errors import FailureKind, Phase, UsageError
from pool_bench.load import dialer
from pool_bench.load.backoff import backoff_s
from pool_bench.load.generator import generate
from pool_bench.load.spec import ConnectSpec
from pool_bench.pgwire import scram
from pool_bench.stats.runs import Snapshot, Stage
from tests.support import hostile_postgres as h
from tests.support.generators import (
    ENGINES,
    MARGIN_S,
    LoopName,
    Outcome,
    PollerName,
    assert_missed_ticks_are_not_made_up_for,
    client_sockets,
    enough,
    nothing_left,
    run,
    target,
)

K, P = FailureKind, Phase
WAY_OFF = "postgresql://u@nonexistent.invalid/d?sslmode=disable"

every_engine = pytest.mark.parametrize(("loop", "poller"), ENGINES)
every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
slow_driver = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


def _spec(*urls: str, **changes: object) -> ConnectSpec:
    given: dict[str, object] = {
        "targets": tuple(target(url) for url in urls),
        "concurrency": 4,
        "warmup_s": 0.0,
        "duration_s": 0.15,
        "connect_timeout_s": 60.0,
        "tick_s": 0.1,
        "seed": 1,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


def _begun(outcome: Outcome) -> int:
    return outcome.total.attempts + outcome.warmup.attempts


def _await(condition: Callable[[], bool]) -> None:
    """Wait (bounded) for what threads of a server have yet to do."""
    deadline = time.monotonic() + MARGIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


class _Gate:
    """A step that waits until the gate is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def __call__(self, peer: h.Peer) -> None:
        assert self._open.wait(60)


@every_engine
def test_every_connection_that_a_server_accepts_is_one_operation(loop: LoopName, poller: PollerName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE_QUERY) as server:
        spec = _spec(server.url(), warmup_s=0.15, query="SELECT 1")
        outcome = run(spec, loop=loop, poller=poller)
        assert outcome.total.ok > 0
        assert outcome.warmup.ok > 0
        assert outcome.total.failed == outcome.total.unfinished == 0
        assert _begun(outcome) == server.accepted
        phases = (P.TCP, P.AUTH, P.READY, P.QUERY, P.CLOSE)
        assert {p: hist.count for p, hist in outcome.total.phases.items()} == dict.fromkeys(
            phases, outcome.total.ok
        )


@every_driver
def test_operations_begun_in_the_warm_up_never_count(driver: DriverName) -> None:
    gate = _Gate()
    held = (h.read_startup, gate, h.send(h.WELCOME), h.read_message)
    with nothing_left(), h.HostileServer(*[held] * 4, h.POLITE) as server:

        def on_snapshot(snapshot: Snapshot) -> bool:
            if snapshot.stage is Stage.MEASURE:
                gate.open()
            return snapshot.targets[0].ok > 0

        spec = _spec(server.url(), warmup_s=0.1, driver=driver, duration_s=60.0)
        outcome = run(spec, stop_when=on_snapshot)
        assert outcome.warmup.ok == 4
        assert outcome.total.ok > 0
        assert outcome.total.latency.max_ns < 1e9 * MARGIN_S
        _await(lambda: server.accepted == _begun(outcome))


@every_driver
def test_operations_in_flight_at_the_end_may_finish_and_count(driver: DriverName) -> None:
    gate = _Gate()
    with nothing_left(), h.HostileServer((h.read_startup, gate, h.send(h.WELCOME), h.read_message)) as server:

        def on_snapshot(snapshot: Snapshot) -> bool:
            gate.open()
            return False

        # The first snapshot is taken when nothing begins any more.
        spec = _spec(server.url(), driver=driver, grace_s=60.0, tick_s=60.0)
        outcome = run(spec, stop_when=on_snapshot)
        assert (outcome.total.ok, outcome.total.unfinished) == (4, 0)
        assert server.accepted == 4
        assert outcome.elapsed_s < 0.3 + MARGIN_S
        assert outcome.total.intervals[-1].ok == 4


@every_engine
@pytest.mark.parametrize("script", [(h.stall,), (h.read_startup, h.send(h.WELCOME), h.stall)])
def test_what_does_not_finish_in_time_is_unfinished(
    loop: LoopName, poller: PollerName, script: h.Script
) -> None:
    with nothing_left(), h.HostileServer(script) as server:
        outcome = run(_spec(server.url(), grace_s=0.1, duration_s=0.1), loop=loop, poller=poller)
        assert (outcome.total.ok, outcome.total.failed, outcome.total.unfinished) == (0, 0, 4)
        _await(lambda: server.accepted == 4)
        assert outcome.elapsed_s < 0.2 + MARGIN_S


@every_engine
def test_several_targets_take_turns(loop: LoopName, poller: PollerName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as one, h.HostileServer(h.POLITE) as two:
        outcome = run(_spec(one.url(), two.url()), loop=loop, poller=poller)
        counts = [stats.ok for stats in outcome.targets]
        assert counts == [one.accepted, two.accepted]
        assert min(counts) > 0
        assert max(counts) - min(counts) <= 4


@every_driver
def test_a_dead_target_does_not_starve_a_live_one(driver: DriverName) -> None:
    with h.HostileServer(h.POLITE) as gone:
        dead_url = gone.url()
    with nothing_left(), h.HostileServer(h.POLITE) as alive:
        spec = _spec(dead_url, alive.url(), driver=driver, duration_s=MARGIN_S)
        outcome = run(spec, stop_when=enough(lambda both: both[1].ok > 10 + 2 * both[0].failed > 10))
        dead, live = outcome.targets
        assert dead.ok == live.failed == 0
        assert set(dead.errors) == {K.REFUSED}
        assert live.ok > dead.failed > 0


@every_driver
def test_workers_leave_a_failing_target_alone_for_longer_and_longer(driver: DriverName) -> None:
    with nothing_left(), h.HostileServer((h.read_startup, h.hang_up)) as server:
        outcome = run(_spec(server.url(), driver=driver, duration_s=0.5))
        assert set(outcome.total.errors) == {K.CLOSED}
        assert server.accepted == outcome.total.failed
        # Without a pause it would be thousands; doubling from 10 ms leaves room for about a dozen each.
        assert 4 <= server.accepted <= 4 * 40


@every_driver
def test_a_target_that_recovers_is_found_again(driver: DriverName) -> None:
    bad: h.Script = (h.read_startup, h.hang_up)
    with nothing_left(), h.HostileServer(*[bad] * 12, h.POLITE) as server:
        outcome = run(
            _spec(server.url(), driver=driver, duration_s=30.0),
            stop_when=lambda snapshot: snapshot.targets[0].ok > 0,
        )
        assert outcome.total.ok > 0
        assert outcome.total.failed == 12
        assert outcome.elapsed_s < 30.0


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_the_pause_is_random_between_nothing_and_a_bound_that_doubles_up_to_a_second(
    failures: int, seed: int
) -> None:
    bound_s = min(1.0, 0.010 * 2 ** min(failures - 1, 20))
    assert 0 <= backoff_s(failures, random.Random(seed)) <= bound_s


def test_pauses_use_their_whole_range() -> None:
    rng = random.Random(0)
    pauses = [backoff_s(20, rng) for _ in range(1000)]
    assert min(pauses) < 0.05
    assert max(pauses) > 0.95


@every_driver
def test_a_stop_ends_the_run_early(driver: DriverName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(
            _spec(server.url(), driver=driver, duration_s=0.0),
            stop_when=lambda snapshot: snapshot.targets[0].ok > 0,
        )
        assert outcome.total.ok > 0
        assert outcome.elapsed_s < MARGIN_S


@every_driver
def test_a_stop_in_the_warm_up_measures_nothing(driver: DriverName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(_spec(server.url(), driver=driver, warmup_s=60.0), stop_when=lambda snapshot: True)
        assert outcome.total.attempts == 0
        assert {snapshot.stage for snapshot in outcome.snapshots} == {Stage.WARMUP, Stage.DONE}


@every_engine
def test_the_lag_of_a_blocked_event_loop_is_seen(loop: LoopName, poller: PollerName) -> None:
    async def block(stop: asyncio.Event) -> None:
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)

    with nothing_left(), h.HostileServer(h.POLITE) as server:
        # Ten ticks are missed.
        spec = _spec(server.url(), concurrency=1, tick_s=0.02)
        outcome = run(spec, loop=loop, poller=poller, during=block)
        assert outcome.lag_max_ms >= 150
        assert max(interval.lag_ms for interval in outcome.total.intervals) >= 150
        assert_missed_ticks_are_not_made_up_for(outcome.snapshots[:-2], spec.tick_s)


@every_engine
def test_a_black_hole_times_out_at_the_limit(loop: LoopName, poller: PollerName) -> None:
    with nothing_left(), h.HostileServer((h.stall,)) as server:
        outcome = run(_spec(server.url(), connect_timeout_s=0.1), loop=loop, poller=poller)
        # A client that was held up may have got no further.
        assert {(K.TIMEOUT, P.AUTH, "")} <= outcome.failures <= {(K.TIMEOUT, p, "") for p in (P.TCP, P.AUTH)}
        _await(lambda: server.accepted == outcome.total.failed)
        assert outcome.total.failure_latency.min_ns >= 100_000_000
        assert outcome.elapsed_s < 0.4 + MARGIN_S
        samples = {failure.sample for failure in outcome.total.failures.values()}
        assert samples == {"no end after 100ms (--connect-timeout)"}


@slow_driver
@pytest.mark.parametrize(
    ("script", "phase"),
    [((h.read_startup, h.stall), P.CONNECT), ((h.read_startup, h.send(h.WELCOME), h.stall), P.QUERY)],
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_coroutine_drivers_time_out_and_do_not_hang_the_drain(
    driver: DriverName, script: h.Script, phase: Phase, loop: LoopName
) -> None:
    with nothing_left(), h.HostileServer(script) as server:
        spec = _spec(server.url(), driver=driver, duration_s=0.1, connect_timeout_s=0.3, query="SELECT 1")
        outcome = run(spec, loop=loop)
        # A client that was held up may have got no further.
        expected = {(K.TIMEOUT, phase, "")}
        assert expected <= outcome.failures <= expected | {(K.TIMEOUT, P.CONNECT, "")}
        _await(lambda: server.accepted == outcome.total.failed)
        # psycopg left to itself waits ten seconds more.
        assert outcome.elapsed_s < 9.5
    with nothing_left(), h.HostileServer(script) as server:
        spec = _spec(server.url(), driver=driver, duration_s=0.1, grace_s=0.1, query="SELECT 1")
        outcome = run(spec, loop=loop)
        assert (outcome.total.failed, outcome.total.unfinished) == (0, 4)
        assert sum(outcome.total.unfinished_in.values()) == 4
        assert set(outcome.total.unfinished_in) <= {phase, P.CONNECT}
        assert outcome.elapsed_s < 9.5


@slow_driver
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_coroutine_drivers_account_for_every_connection(driver: DriverName, loop: LoopName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as one, h.HostileServer(h.POLITE) as two:
        outcome = run(_spec(one.url(), two.url(), driver=driver, warmup_s=0.1), loop=loop)
        assert outcome.total.failed == outcome.total.unfinished == 0
        assert min(stats.ok for stats in outcome.targets) > 0
        _await(lambda: one.accepted + two.accepted == _begun(outcome))
        assert set(outcome.total.phases) == {P.CONNECT, P.CLOSE}


@slow_driver
@pytest.mark.parametrize(
    ("script", "kind", "sqlstate"),
    [
        ((h.read_startup, h.hang_up), K.CLOSED, ""),
        (
            (h.read_startup, h.send(h.error("53300", "sorry, too many clients already")), h.hang_up),
            K.TOO_MANY_CONNECTIONS,
            "53300",
        ),
        (
            (h.read_startup, h.send(h.error("57P03", "the database system is starting up")), h.hang_up),
            K.SERVER_STARTING,
            "57P03",
        ),
        (
            (h.read_startup, h.send(h.error("28P01", "password authentication failed")), h.hang_up),
            K.AUTH,
            "28P01",
        ),
    ],
)
def test_coroutine_drivers_name_the_same_kinds(
    driver: DriverName, script: h.Script, kind: FailureKind, sqlstate: str
) -> None:
    with nothing_left(), h.HostileServer(script) as server:
        outcome = run(_spec(server.url(), driver=driver, duration_s=0.1))
        kinds = {(key.kind, key.phase) for key in outcome.total.failures}
        assert kinds == {(kind, P.CONNECT)}
        assert {key.sqlstate for key in outcome.total.failures} == {sqlstate}


@every_driver
def test_a_name_that_nobody_has_is_a_failure_of_dns(driver: DriverName) -> None:
    with nothing_left():
        outcome = run(_spec(WAY_OFF, driver=driver, connect_timeout_s=60, grace_s=60))
        assert {key.kind for key in outcome.total.failures} == {K.DNS}
        assert {key.phase for key in outcome.total.failures} == {P.RESOLVE if driver == "wire" else P.CONNECT}


@pytest.mark.parametrize("once", [True, False])
def test_names_are_looked_up_for_each_connection_or_once(once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counting(plan: WirePlan) -> tuple[Endpoint, ...]:
        nonlocal calls
        calls += 1
        return resolve(plan)

    monkeypatch.setattr(dialer, "resolve", counting)
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(_spec(server.url(host="localhost"), resolve_once=once))
        assert outcome.total.ok > 0
        assert outcome.total.failed == 0
        if once:
            assert calls == 1
            assert P.RESOLVE not in outcome.total.phases
        else:
            assert calls == _begun(outcome)
            assert outcome.total.phases[P.RESOLVE].count == outcome.total.ok


def test_names_that_cannot_be_looked_up_once_are_counted_as_failures() -> None:
    with nothing_left():
        outcome = run(_spec(WAY_OFF, resolve_once=True, connect_timeout_s=60, grace_s=60))
        assert outcome.failures == {(K.DNS, P.RESOLVE, "")}


def test_look_ups_without_an_answer_time_out_and_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    calls = 0

    def hanging(plan: WirePlan) -> tuple[Endpoint, ...]:
        nonlocal calls
        calls += 1
        assert silent.wait(60)
        return resolve(plan)

    monkeypatch.setattr(dialer, "resolve", hanging)
    with nothing_left():
        spec = _spec(
            "postgresql://u@localhost:1/d", concurrency=2, connect_timeout_s=0.05, duration_s=MARGIN_S
        )
        is_enough = enough(lambda targets: targets[0].failed > 2)

        def release(snapshot: Snapshot) -> bool:
            if snapshot.final:
                silent.set()
            return is_enough(snapshot)

        outcome = run(spec, stop_when=release)
        assert outcome.failures == {(K.TIMEOUT, P.RESOLVE, "")}
        assert outcome.total.failed > 2
        # Two threads hang; those who waited for one of them have left the queue.
        assert calls == 2


def test_hosts_are_taken_at_random_where_the_target_says_so() -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as one, h.HostileServer(h.POLITE) as two:
        hosts = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
        outcome = run(_spec(f"postgresql://u@{hosts}/d?sslmode=disable&load_balance_hosts=random"))
        assert outcome.total.ok == one.accepted + two.accepted
        assert min(one.accepted, two.accepted) > 0


@pytest.mark.parametrize("cached", [True, False])
def test_scram_keys_are_derived_once_a_salt_or_once_a_connection(
    cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    derive = scram.derive_keys

    def counting(password: bytes, salt: bytes, iterations: int) -> scram.ScramKeys:
        nonlocal calls
        calls += 1
        return derive(password, salt, iterations)

    monkeypatch.setattr(scram, "derive_keys", counting)
    script: h.Script = (
        h.read_startup,
        h.scram("pencil", salt=b"0123456789abcdef"),
        h.send(h.WELCOME),
        h.read_message,
    )
    with nothing_left(), h.HostileServer(script) as server:
        spec = _spec(
            server.url("sslmode=disable&password=pencil"),
            scram_cache=cached,
            duration_s=MARGIN_S,
            grace_s=20.0,
        )
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok > 4))
        assert outcome.total.failed == 0
        assert outcome.total.ok > 4
        assert calls == (1 if cached else _begun(outcome))


@every_driver
def test_a_generator_that_is_cancelled_leaves_nothing(driver: DriverName) -> None:
    async def main(port: int, spec: ConnectSpec) -> None:
        seen = asyncio.Event()
        task = asyncio.create_task(generate(spec, lambda snapshot: seen.set(), asyncio.Event()))
        await seen.wait()
        task.cancel()
        # Its way out is the grace period; a second cancel cuts that short too.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        del task  # its error holds frames, and they what they were waiting for
        for _ in range(10):
            await asyncio.sleep(0)
        assert client_sockets([port]) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with nothing_left(), h.HostileServer((h.stall,)) as server:
        asyncio.run(main(server.port, _spec(server.url(), driver=driver, duration_s=60.0, grace_s=60.0)))


@every_driver
def test_a_certificate_that_cannot_be_read_is_refused_before_anything_is_opened(driver: DriverName) -> None:
    url = "postgresql://u@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/nonexistent/ca.pem"
    sent: list[Snapshot] = []
    with nothing_left(), pytest.raises(UsageError, match="sslrootcert"):
        asyncio.run(generate(_spec(url, driver=driver), sent.append, asyncio.Event()))
    assert sent == []
