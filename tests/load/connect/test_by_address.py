"""One bad replica behind a name: the split by address names it, by every driver, and its counts add up."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from pool_bench.drivers.base import DRIVER_NAMES, DriverName
from pool_bench.errors import FailureKind
from pool_bench.faults import PASS, Conditions, FaultProxy, Mode, ThreadedProxy
from pool_bench.load.arrivals import constant
from pool_bench.load.generator import generate
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.report.summary.addresses import standing_out
from pool_bench.results.addresses import AddressRecord
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.stats.addresses import AddressStats
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import RunResult, Snapshot
from pool_bench.stats.timeline import Timeline
from pool_bench.targets.surreal import surreal_target
from tests.support.generators import Outcome, enough, run, target
from tests.support.holding import Held, hold, hold_spec

_NAME = "replicas.test"
# The embedded SurrealDB answers to names of this machine only.
_NEAR_NAME = "localhost"
_SLOW_S = 0.1
_SLOW = Conditions(to_client_delay_s=_SLOW_S)
every_driver = pytest.mark.parametrize("driver", DRIVER_NAMES)


@contextmanager
def _replicas(
    upstream: EmbeddedPostgres | EmbeddedSurreal, *conditions: Conditions
) -> Iterator[list[ThreadedProxy]]:
    """Proxies at 127.0.0.1, 127.0.0.2 and so on, all with one port, as the addresses of a name have."""
    for left in reversed(range(20)):
        with ExitStack() as stack:
            proxies: list[ThreadedProxy] = []
            try:
                for number, one in enumerate(conditions, 1):
                    port = proxies[0].port if proxies else 0
                    proxy = ThreadedProxy(
                        FaultProxy(
                            upstream.host, upstream.port, conditions=one, host=f"127.0.0.{number}", port=port
                        )
                    )
                    proxies.append(stack.enter_context(proxy))
            except OSError:
                # Another has that port at one of the addresses.
                if not left:
                    raise
                continue
            yield proxies
            return


def _label(proxy: ThreadedProxy) -> str:
    return f"{proxy.call(lambda one: one.host)}:{proxy.port}"


def _accepted(proxy: ThreadedProxy) -> int:
    return proxy.call(lambda one: one.counts.accepted)


def _measured(outcome: Outcome) -> RunResult:
    return RunResult(label="", concurrency=1, driver="", targets=(), total=outcome.total)


@pytest.fixture
def _name_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a name lead to 127.0.0.1 and 127.0.0.2, now one first, now the other, as many resolvers do."""
    real = socket.getaddrinfo
    asked = 0

    def look_up(host: str, port: int, *args: int, **kwargs: int) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        if host not in (_NAME, _NEAR_NAME):
            return list(real(host, port, *args, **kwargs))
        addresses = ("127.0.0.1", "127.0.0.2") if asked % 2 else ("127.0.0.2", "127.0.0.1")
        return [found for address in addresses for found in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def _spec(url: str, driver: DriverName, **changes: object) -> ConnectSpec:
    given: dict[str, object] = {
        "targets": (target(url),),
        "driver": driver,
        "concurrency": 4,
        "warmup_s": 0.0,
        "duration_s": 120.0,
        "grace_s": 60.0,
        "connect_timeout_s": 60.0,
        "tick_s": 0.05,
        "seed": 1,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


def _enough_of_each(count: int, *labels: str) -> "enough":  # type: ignore[valid-type]  # a function makes it
    def seen(targets: list[BenchStats]) -> bool:
        rows = targets[0].addresses
        return all(rows.get(label, AddressStats()).ok >= count for label in labels)

    return enough(seen)


@every_driver
@pytest.mark.usefixtures("_name_in_turn")
def test_the_slow_address_of_a_name_is_named(embedded: EmbeddedPostgres, driver: DriverName) -> None:
    with _replicas(embedded, PASS, _SLOW) as (fast, slow):
        url = f"postgresql://bench@{_NAME}:{fast.port}/postgres?sslmode=disable"
        labels = _label(fast), _label(slow)
        outcome = run(_spec(url, driver), stop_when=_enough_of_each(20, *labels))
        accepted = [_accepted(proxy) for proxy in (fast, slow)]
    rows = outcome.total.addresses
    assert set(rows) == set(labels)
    # As many as the proxies themselves have counted.
    assert [rows[label].ok for label in labels] == accepted
    assert rows[labels[1]].latency.min_ns >= _SLOW_S * 1e9
    assert rows[labels[0]].latency.min_ns < _SLOW_S * 1e9
    (told,) = standing_out(AddressRecord.all_of(_measured(outcome)))
    assert told.startswith(f"{labels[1]} is slow: p50 ")


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
def test_several_hosts_are_told_apart_ipv6_included(embedded: EmbeddedPostgres, driver: DriverName) -> None:
    with (
        _replicas(embedded, PASS, _SLOW) as (fast, slow),
        ThreadedProxy(FaultProxy(embedded.host, embedded.port, host="::1")) as sixth,
    ):
        places = f"{_label(fast)},{_label(slow)},[::1]:{sixth.port}"
        url = f"postgresql://bench@{places}/postgres?sslmode=disable&load_balance_hosts=random"
        labels = _label(fast), _label(slow), f"[::1]:{sixth.port}"
        outcome = run(_spec(url, driver), stop_when=_enough_of_each(10, *labels))
        accepted = [_accepted(proxy) for proxy in (fast, slow, sixth)]
    rows = outcome.total.addresses
    assert [rows[label].ok for label in labels] == accepted
    assert outcome.total.ok == sum(accepted)


@every_driver
@pytest.mark.usefixtures("_name_in_turn")
def test_in_an_open_loop_addresses_are_told_apart_as_well(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    with _replicas(embedded, PASS, PASS) as proxies:
        url = f"postgresql://bench@{_NAME}:{proxies[0].port}/postgres?sslmode=disable"
        spec = _spec(url, driver, open_loop=OpenLoop(profile=constant(100)), duration_s=0.5, concurrency=500)
        outcome = run(spec)
        accepted = {_label(proxy): _accepted(proxy) for proxy in proxies}
    assert outcome.total.ok == sum(accepted.values()) > 0
    assert {label: row.ok for label, row in outcome.total.addresses.items()} == accepted


@pytest.mark.usefixtures("_name_in_turn")
def test_an_address_that_refuses_is_named_although_every_connect_succeeds(embedded: EmbeddedPostgres) -> None:
    with _replicas(embedded, PASS, Conditions(mode=Mode.REFUSE)) as (good, dead):
        url = f"postgresql://bench@{_NAME}:{good.port}/postgres?sslmode=disable"
        outcome = run(_spec(url, "wire"), stop_when=_enough_of_each(40, _label(good)))
        rows = outcome.total.addresses
        assert outcome.total.failed == 0
        assert rows[_label(good)].ok == outcome.total.ok == _accepted(good)
        passed = rows[_label(dead)]
        assert passed.passed_over > 0
        assert passed.passed_over_errors == {FailureKind.REFUSED: passed.passed_over}
        (told,) = standing_out(AddressRecord.all_of(_measured(outcome)))
        assert told.startswith(f"{_label(dead)} fails: 100% of what was tried there (refused ")


def test_what_hangs_at_an_address_is_unfinished_there(embedded: EmbeddedPostgres) -> None:
    with _replicas(embedded, PASS, Conditions(mode=Mode.HOLE)) as (good, hole):
        places = f"{_label(good)},{_label(hole)}"
        url = f"postgresql://bench@{places}/postgres?sslmode=disable&load_balance_hosts=random"

        over = asyncio.Event()

        def all_hang(snapshot: Snapshot) -> bool:
            if snapshot.final:
                over.set()
            return hole.call(lambda proxy: len(proxy.links)) == 4

        async def cut_what_nobody_reads(_stop: asyncio.Event) -> None:
            await over.wait()
            await asyncio.to_thread(hole.call, lambda proxy: proxy.cut())

        spec = _spec(url, "wire", grace_s=0.0)
        outcome = run(spec, stop_when=all_hang, during=cut_what_nobody_reads)
        assert outcome.total.unfinished == 4
        assert outcome.total.addresses[_label(hole)].unfinished == 4


@every_driver
def test_where_there_is_one_address_failures_are_its_own_if_asked_for(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    with ThreadedProxy(
        FaultProxy(embedded.host, embedded.port, conditions=Conditions(mode=Mode.RESET))
    ) as proxy:
        spec = _spec(proxy.url(user="bench"), driver, by_address=True)
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].failed >= 3))
        assert {name: row.failed for name, row in outcome.total.addresses.items()} == {
            _label(proxy): outcome.total.failed
        }


@every_driver
def test_where_there_is_one_address_nothing_is_split(embedded: EmbeddedPostgres, driver: DriverName) -> None:
    outcome = run(_spec(embedded.url, driver), stop_when=enough(lambda targets: targets[0].ok >= 3))
    assert outcome.total.addresses == {}


def test_asyncpg_does_not_say_at_which_of_several_addresses_it_failed_and_that_is_a_row_of_its_own(
    embedded: EmbeddedPostgres,
) -> None:
    with _replicas(embedded, Conditions(mode=Mode.REFUSE), Conditions(mode=Mode.REFUSE)) as proxies:
        places = ",".join(map(_label, proxies))
        url = f"postgresql://bench@{places}/postgres?sslmode=disable"
        outcome = run(_spec(url, "asyncpg"), stop_when=enough(lambda targets: targets[0].failed >= 3))
    assert {name: row.failed for name, row in outcome.total.addresses.items()} == {"": outcome.total.failed}


@every_driver
@pytest.mark.usefixtures("_name_in_turn")
def test_held_connections_that_are_dropped_are_counted_at_their_address(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    with _replicas(embedded, PASS, PASS) as (steady, flaky):
        url = f"postgresql://bench@{_NAME}:{steady.port}/postgres?sslmode=disable"
        cut = 0

        async def drop(held: Held) -> None:
            nonlocal cut
            await held.until_held(10)
            cut = await asyncio.to_thread(flaky.call, lambda proxy: proxy.cut())
            await held.until(lambda held: held.stats.dropped == cut)

        held = hold(hold_spec(url, driver=driver, connections=(10,)), drop, loop="asyncio")
        rows = held.opening.addresses
        accepted = [_accepted(proxy) for proxy in (steady, flaky)]
        labels = [_label(proxy) for proxy in (steady, flaky)]
    assert [rows[label].ok for label in labels] == accepted
    assert sum(accepted) == 10
    assert cut == accepted[1] > 0
    assert [rows[label].dropped for label in labels] == [0, cut]


@pytest.mark.usefixtures("_name_in_turn")
async def test_surreals_addresses_are_told_apart_and_one_that_refuses_is_named(
    surreal: EmbeddedSurreal,
) -> None:
    with _replicas(surreal, PASS, Conditions(mode=Mode.REFUSE)) as (good, dead):
        total = BenchStats()
        stop = asyncio.Event()

        def send(snapshot: Snapshot) -> None:
            total.merge(replace(snapshot.targets[0], intervals=Timeline()))
            if total.ok >= 10:
                stop.set()

        url = f"ws://{_NEAR_NAME}:{good.port}"
        one = surreal_target(url, user="root", password="surreal pencil", environ={})
        await generate(_spec("postgresql://none@none/none", "surreal", targets=(one,)), send, stop)
        assert total.ok == total.addresses[_label(good)].ok == _accepted(good)
        passed = total.addresses[_label(dead)]
        assert passed.passed_over_errors == {FailureKind.REFUSED: passed.passed_over}
        assert passed.passed_over > 0
