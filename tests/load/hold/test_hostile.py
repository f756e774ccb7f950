"""Connections held on servers that count, stall, stutter and refuse: no real one can be made to."""

import asyncio
import threading
import time

import pytest

from pool_bench.drivers.base import DriverName
from pool_bench.errors import FailureKind, Phase
from pool_bench.stats.runs import Stage
from tests.support import hostile_postgres as h
from tests.support.generators import (
    ENGINES,
    MARGIN_S,
    LoopName,
    PollerName,
    assert_missed_ticks_are_not_made_up_for,
)
from tests.support.holding import Held, hold, hold_spec

K, P = FailureKind, Phase

every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
every_engine = pytest.mark.parametrize(("loop", "poller"), ENGINES)

FATAL = h.error("57P01", "terminating connection due to administrator command")
FAILED = h.error("22012", "division by zero", "ERROR")


class Log:
    """What came from which connection, and when."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.times: dict[int, list[float]] = {}

    def answer(self, peer: h.Peer) -> None:
        """Answer queries until the client leaves, and remember each."""
        while peer.read_message()[0] == b"Q":
            with self._lock:
                self.times.setdefault(peer.number, []).append(time.perf_counter())
            peer.sock.sendall(h.RESULT + h.READY)

    @property
    def all_times(self) -> list[float]:
        """Of all connections, in order."""
        with self._lock:
            return sorted(moment for moments in self.times.values() for moment in moments)


class Gate:
    """Lets the server's threads go on once it is opened; counts those that wait."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._open = 0
        self.waiting = 0
        self.most = 0

    def open(self, count: int = 1_000_000) -> None:
        """Let so many pass."""
        with self._change:
            self._open += count
            self._change.notify_all()

    def __call__(self, peer: h.Peer) -> None:
        with self._change:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            assert self._change.wait_for(lambda: self._open > 0, 60)
            self._open -= 1
            self.waiting -= 1


async def end(held: Held, gate: Gate) -> None:
    """Stop the run, and let the server's threads go on only when it has ended."""
    held.stop.set()
    await held.until(lambda held: held.snapshots[-1].final)
    gate.open()


def serve(*steps: h.Step) -> h.Script:
    """Welcome a client, and then."""
    return (h.read_startup, h.send(h.WELCOME), *steps)


# Opening


@every_driver
def test_no_batch_begins_before_the_one_before_it_has_ended(driver: DriverName) -> None:
    gate = Gate()
    with h.HostileServer((h.read_startup, gate, h.send(h.WELCOME), h.read_message)) as server:

        async def during(held: Held) -> None:
            for batch in range(1, 4):
                await held.until(lambda held: gate.waiting == 4)
                assert server.accepted == 4 * batch
                gate.open(3)
                await held.until(lambda held, batch=batch: held.stats.opened == 4 * batch - 1)  # type: ignore[misc]
                await asyncio.sleep(0.05)  # enough for a batch that begins too early
                assert server.accepted == 4 * batch
                gate.open(1)
            await held.until(lambda held: gate.waiting == 1)
            gate.open()
            await held.until_held(13)

        held = hold(hold_spec(server.url(), connections=(13,), batch_size=4, driver=driver), during)
        assert held.opening.ok == server.accepted == 13
        assert gate.most == 4


@every_driver
def test_never_are_more_under_way_than_allowed(driver: DriverName) -> None:
    gate = Gate()
    with h.HostileServer((h.read_startup, gate, h.send(h.WELCOME), h.read_message)) as server:

        async def during(held: Held) -> None:
            for done in range(12):
                await held.until(lambda held, done=done: gate.waiting == min(3, 12 - done))  # type: ignore[misc]
                gate.open(1)
                await held.until(lambda held, done=done: held.stats.opened > done)  # type: ignore[misc]
            await held.until_held(12)

        spec = hold_spec(server.url(), connections=(12,), batch_size=12, open_concurrency=3, driver=driver)
        hold(spec, during)
        assert gate.most == 3
        assert server.accepted == 12


def test_batches_are_a_pause_apart() -> None:
    with h.HostileServer(serve(h.read_message)) as server:
        held = hold(
            hold_spec(server.url(), connections=(9,), batch_size=3, batch_pause_s=0.2, duration_s=0.05)
        )
        assert held.stats.open_s >= 0.39
        # A batch is over within a tick: at most one in each second that is shorter than the pause.
        assert all(interval.opened <= 3 for interval in held.stats.intervals if interval.seconds < 0.19)


@every_driver
def test_a_steady_rate_is_kept_and_connects_that_hang_do_not_hold_it_up(driver: DriverName) -> None:
    stamps: list[float] = []
    lock = threading.Lock()

    def stamp(peer: h.Peer) -> None:
        with lock:
            stamps.append(time.perf_counter())

    gate = Gate()
    with h.HostileServer((h.read_startup, stamp, gate, h.send(h.WELCOME), h.read_message)) as server:

        async def during(held: Held) -> None:
            await held.until(lambda held: gate.waiting == 15)
            gate.open()
            await held.until_held(15)

        began = time.perf_counter()
        hold(hold_spec(server.url(), connections=(15,), rate=25.0, driver=driver), during)
        # None may come before its time; how late they come is up to the machine.
        assert all(at - began >= index / 25 - 0.005 for index, at in enumerate(sorted(stamps)))


@every_driver
def test_what_cannot_be_opened_is_counted_by_kind_and_the_rest_is_held(driver: DriverName) -> None:
    scripts = (
        (h.read_startup, h.reset),
        (h.read_startup, h.hang_up),
        (h.read_startup, h.send(h.error("28P01", "password authentication failed")), h.hang_up),
        (h.read_startup, h.send(h.error("57P03", "the database system is starting up")), h.hang_up),
        (h.read_startup, h.stall),
        serve(h.read_message),
    )
    with h.HostileServer(*scripts) as server:

        async def during(held: Held) -> None:
            await held.until_held(3)

        spec = hold_spec(
            server.url(),
            connections=(8,),
            batch_size=1,
            open_concurrency=1,
            driver=driver,
            connect_timeout_s=2.5,
        )
        held = hold(spec, during)
        assert held.counts == (3, 0, 0, 3)
        errors = held.opening.errors
        if driver != "wire":
            # Neither asyncpg nor libpq tells a reset from an end.
            assert errors.pop(K.CLOSED, 0) + errors.pop(K.RESET, 0) == 2
        assert errors == dict.fromkeys(errors, 1)
        assert set(errors) >= {K.AUTH, K.SERVER_STARTING, K.TIMEOUT}


@every_driver
def test_a_name_that_does_not_exist_and_a_port_that_refuses_are_told_apart(driver: DriverName) -> None:
    with h.HostileServer(serve(h.read_message)) as server:
        gone = h.HostileServer()
        gone_url = gone.url()
        gone._listener.close()
        urls = (gone_url, server.url(host="nonexistent.invalid"), server.url())

        async def during(held: Held) -> None:
            await held.until_held(2)

        held = hold(hold_spec(*urls, connections=(2, 2, 2), driver=driver), during)
        assert [dict(stats.errors) for stats in held.targets] == [{K.REFUSED: 2}, {K.DNS: 2}, {}]


@every_driver
def test_where_nothing_can_be_opened_the_run_ends_by_itself(driver: DriverName) -> None:
    gone = h.HostileServer()
    url = gone.url()
    gone._listener.close()
    held = hold(hold_spec(url, connections=(50,), driver=driver, duration_s=600.0))
    assert held.opening.failed == 50
    assert held.stats.emptied
    assert held.elapsed_s < 60


# The end of a connection


@pytest.mark.parametrize(
    ("driver", "loop"),
    [("wire", "uvloop"), ("asyncpg", "uvloop"), ("psycopg", "uvloop"), ("psycopg", "asyncio")],
)
@pytest.mark.parametrize(
    ("steps", "sort"),
    [
        ((h.hang_up,), (K.CLOSED, "")),
        ((h.reset,), (K.RESET, "")),
        ((h.send(FATAL), h.hang_up), (K.SERVER_SHUTDOWN, "57P01")),
        ((h.send(h.NOTICE + FATAL), h.hang_up), (K.SERVER_SHUTDOWN, "57P01")),
    ],
)
def test_how_an_idle_connection_ends_is_told_by_its_kind(
    driver: DriverName, loop: LoopName, steps: tuple[h.Step, ...], sort: tuple[FailureKind, str]
) -> None:
    gate = Gate()
    with h.HostileServer(serve(gate, *steps)) as server:

        async def during(held: Held) -> None:
            await held.until_held(4)
            gate.open(3)
            await held.until(lambda held: held.stats.dropped == 3)
            gate.open()
            await held.until(lambda held: held.stats.emptied)

        held = hold(hold_spec(server.url(), connections=(4,), driver=driver), during, loop=loop)
        # libpq does not tell a reset from an end.
        kind = K.CLOSED if sort[0] is K.RESET and driver == "psycopg" else sort[0]
        assert held.drops == {(kind, P.HOLD, sort[1]): 4}


@every_driver
@pytest.mark.parametrize("last", [b"", FATAL, h.NOTICE])
def test_a_connection_that_is_dead_on_arrival_is_opened_and_dropped(driver: DriverName, last: bytes) -> None:
    script = (h.read_startup, h.send(h.WELCOME + last), h.hang_up)
    with h.HostileServer(script) as server:
        held = hold(hold_spec(server.url(), connections=(6,), driver=driver, duration_s=600.0))
        assert held.counts == (6, 0, 6, 0)
        kinds = {kind for kind, _, _ in held.drops}
        assert kinds <= ({K.SERVER_SHUTDOWN, K.CLOSED} if last == FATAL else {K.CLOSED})
        assert held.stats.emptied


@every_driver
def test_a_server_that_keeps_ending_connections_is_not_stormed(driver: DriverName) -> None:
    with h.HostileServer(serve(h.hang_up)) as server:

        async def during(held: Held) -> None:
            await asyncio.sleep(0.6)
            await held.until(lambda held: held.stats.reopened > 0)

        held = hold(hold_spec(server.url(), connections=(4,), driver=driver, reconnect=True), during)
        # With pauses that double up to a second, half of them on average, ten in a second are many.
        assert 4 < server.accepted < 4 * (20 + 5 * held.elapsed_s)
        assert held.stats.opened + held.stats.reopened + held.stats.reconnects.unfinished <= server.accepted
        assert held.stats.dropped <= held.stats.opened + held.stats.reopened


# What servers say


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_an_answer_may_end_in_the_middle_of_what_follows_it(
    cut: int,
) -> None:
    sent = threading.Event()

    def stutter(peer: h.Peer) -> None:
        peer.read_message()
        peer.sock.sendall(h.RESULT + h.READY + h.NOTICE[:cut])
        sent.wait(20)
        peer.sock.sendall(h.NOTICE[cut:])
        Log().answer(peer)

    with h.HostileServer(serve(stutter)) as server:

        async def during(held: Held) -> None:
            await held.until(lambda held: held.stats.keepalive.count >= 1)
            sent.set()
            await held.until(lambda held: held.stats.keepalive.count >= 3 or held.stats.dropped == 1)

        spec = hold_spec(server.url(), connections=(1,), keepalive_s=0.05)
        held = hold(spec, during)
        assert held.counts == (1, 0, 0, 1)
        assert held.drops == {}


def test_the_end_may_come_with_the_answer_before_it() -> None:
    with h.HostileServer(serve(h.read_message, h.send(h.RESULT + h.READY + FATAL), h.hang_up)) as server:
        held = hold(hold_spec(server.url(), connections=(3,), keepalive_s=0.1, duration_s=600.0))
        assert held.stats.keepalive.count == 3
        assert held.drops == {(K.SERVER_SHUTDOWN, P.HOLD, "57P01"): 3}


@every_driver
def test_a_notice_after_an_error_does_not_make_a_success_of_it(driver: DriverName) -> None:
    def fail(peer: h.Peer) -> None:
        while peer.read_message()[0] == b"Q":
            for part in (FAILED, h.NOTICE, h.READY):
                peer.sock.sendall(part)
                time.sleep(0.01)  # so that the parts arrive one by one

    with h.HostileServer(serve(fail)) as server:

        async def during(held: Held) -> None:
            await held.until(lambda held: held.stats.query_failures.failed + held.stats.keepalive.count >= 6)

        held = hold(hold_spec(server.url(), connections=(3,), keepalive_s=0.1, driver=driver), during)
        assert set(held.query_failures) == {(K.OTHER, P.QUERY, "22012")}
        assert held.stats.keepalive.count == 0
        assert held.counts == (3, 0, 0, 3)


@every_driver
def test_a_black_hole_is_noticed_by_the_keep_alive(driver: DriverName) -> None:
    with h.HostileServer(serve(h.stall)) as server:
        spec = hold_spec(
            server.url(),
            connections=(4,),
            driver=driver,
            keepalive_s=0.2,
            connect_timeout_s=2.5,
            duration_s=600.0,
        )
        held = hold(spec)
        assert held.counts == (4, 0, 4, 0)
        assert held.drops == {(K.TIMEOUT, P.QUERY, ""): 4}
        # The answer may take as long as a connect.
        assert all(age_s >= 2.4 for age_s, _ in held.stats.dropped_ages().items_s())
        assert held.stats.emptied


# Keep-alives


@every_driver
def test_keep_alives_are_spread_evenly_and_each_connection_has_its_own_in_every_interval(
    driver: DriverName,
) -> None:
    log = Log()
    with h.HostileServer(serve(log.answer)) as server:

        async def during(held: Held) -> None:
            await held.until_held(20)
            await held.until(lambda held: held.stats.keepalive.count >= 40)

        began = time.perf_counter()
        held = hold(hold_spec(server.url(), connections=(20,), keepalive_s=0.4, driver=driver), during)
        assert held.stats.keepalive.count <= sum(map(len, log.times.values()))
        asked = [len(moments) for moments in log.times.values()]
        assert len(asked) == 20
        assert max(asked) - min(asked) <= 1
        # None before its turn: 20 ms apart, whatever the machine adds.
        assert log.all_times[-1] - began >= (sum(asked) - 20) * 0.02


# Closing


@every_driver
def test_closing_is_bounded_by_a_server_that_does_not_close(driver: DriverName) -> None:
    with h.HostileServer(serve(h.stall)) as server:

        async def during(held: Held) -> None:
            await held.until_held(5)

        held = hold(hold_spec(server.url(), driver=driver, close_s=0.2), during)
        assert held.counts == (5, 0, 0, 5)
        assert held.stats.close_s < 0.2 + MARGIN_S
        # libpq does not wait for the server.
        assert held.stats.forced == (0 if driver == "psycopg" else 5)


@every_driver
def test_closing_while_queries_are_under_way_is_bounded(driver: DriverName) -> None:
    with h.HostileServer(serve(h.read_message, h.stall)) as server:

        async def during(held: Held) -> None:
            await held.until_held(4)
            await asyncio.sleep(0.1)  # for the queries, which nothing tells us of

        spec = hold_spec(server.url(), connections=(4,), driver=driver, active=1.0, close_s=0.4)
        held = hold(spec, during)
        assert held.counts == (4, 0, 0, 4)
        assert held.stats.close_s < 0.4 + MARGIN_S


@every_engine
def test_a_query_that_does_not_fit_into_the_socket_does_not_keep_the_client_busy(
    loop: LoopName, poller: PollerName
) -> None:
    gate = Gate()
    busy = 1.0
    with h.HostileServer(serve(gate)) as server:

        async def during(held: Held) -> None:
            nonlocal busy
            await held.until_held(2)
            before, began = time.process_time(), time.perf_counter()
            await asyncio.sleep(0.4)
            busy = (time.process_time() - before) / (time.perf_counter() - began)
            await end(held, gate)

        spec = hold_spec(
            server.url(),
            connections=(2,),
            active=1.0,
            close_s=60.0,
            keepalive_query="SELECT '" + "x" * 20_000_000 + "'",
        )
        held = hold(spec, during, loop=loop, poller=poller)
        assert held.counts == (2, 0, 0, 2)
        assert held.stats.forced == 2
        # It gives up at once, for half a message cannot be followed by another.
        assert held.stats.close_s < MARGIN_S
        assert busy < 0.35


@every_driver
def test_a_stop_while_opening_gives_up_what_is_under_way(driver: DriverName) -> None:
    gate = Gate()
    scripts = (*[serve(h.read_message)] * 3, (h.read_startup, gate))
    with h.HostileServer(*scripts) as server:

        async def during(held: Held) -> None:
            await held.until(lambda held: held.stats.opened == 3 and gate.waiting == 4)
            assert held.stage is Stage.OPEN
            await end(held, gate)

        spec = hold_spec(server.url(), connections=(30,), batch_size=7, driver=driver)
        held = hold(spec, during)
        assert held.counts == (3, 0, 0, 3)
        assert (held.opening.ok, held.opening.failed, held.opening.unfinished) == (3, 0, 4)
        assert held.elapsed_s < MARGIN_S


@every_driver
def test_a_stop_before_the_first_connection_ends_the_run_with_nothing(driver: DriverName) -> None:
    gone = h.HostileServer()
    url = gone.url()
    gone._listener.close()

    async def during(held: Held) -> None:
        return

    held = hold(hold_spec(url, driver=driver, rate=0.5, connections=(50,)), during)
    assert held.counts == (0, 0, 0, 0)
    assert held.opening.attempts <= 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_a_blocked_event_loop_missed_of_the_timeline_is_not_made_up_for(loop: LoopName) -> None:
    async def block(held: Held) -> None:
        await held.until_held(5)
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)
        await held.until(lambda held: held.snapshots[-1].seconds >= 0.15)
        # Those that would follow it at once, and some in their time.
        count = len(held.snapshots) + 10
        await held.until(lambda held: len(held.snapshots) >= count)

    with h.HostileServer(serve(h.read_message)) as server:
        spec = hold_spec(server.url(), tick_s=0.02)
        held = hold(spec, block, loop=loop)
        holding = [snapshot for snapshot in held.snapshots if snapshot.stage is Stage.HOLD]
        assert_missed_ticks_are_not_made_up_for(holding[:-1], spec.tick_s)
