"""Several hosts and addresses, as libpq does it: timeouts for each, and servers of the wanted sort only."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from pool_bench.drivers.base import DriverName
from pool_bench.drivers.wire.driver import WireDriver
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.load.drivers import make_drivers
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support import hostile_postgres as h
from tests.support.generators import enough, run, target
from tests.support.replication import replicated_pair, replicated_url

every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
# Fails with 22012 where it runs on a standby.
_ON_PRIMARY: Final = "SELECT 1 / (CASE WHEN pg_is_in_recovery() THEN 0 ELSE 1 END)"
_SILENT_S: Final = 0.3
_CROWD: Final = """
import socket, sys
crowd = [socket.socket() for _ in range(8)]
for one in crowd:
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", int(sys.argv[1])))
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def replicated() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its streaming standby."""
    with replicated_pair() as pair:
        yield pair


async def _is_primary(driver: DriverName, url: str) -> bool:
    """Connect by `driver`; whether the server that it chose is a primary."""
    opened = (
        WireDriver(target(url))
        if driver == "wire"
        else make_drivers(ConnectSpec(targets=(target(url),), driver=driver))[0]
    )
    async with asyncio.timeout(60):
        connection = await opened.connect()
        try:
            await connection.execute(_ON_PRIMARY)
        except ConnectError as error:
            return error.sqlstate != "22012"
        finally:
            await connection.close()
    return True


@every_driver
@pytest.mark.parametrize(
    ("attrs", "is_primary"),
    [
        ("any", None),
        ("read-write", True),
        ("primary", True),
        ("read-only", False),
        ("standby", False),
        ("prefer-standby", False),
    ],
)
async def test_only_a_server_of_the_wanted_sort_is_taken_wherever_it_stands_in_the_list(
    replicated: tuple[EmbeddedPostgres, EmbeddedPostgres],
    driver: DriverName,
    attrs: str,
    is_primary: bool | None,
) -> None:
    primary, standby = replicated
    options = f"target_session_attrs={attrs}"
    assert await _is_primary(driver, replicated_url(primary, standby, options=options)) is (
        is_primary is not False
    )
    assert await _is_primary(driver, replicated_url(standby, primary, options=options)) is (
        is_primary is True
    )


@every_driver
async def test_where_no_server_is_of_the_wanted_sort_that_is_the_failure(
    replicated: tuple[EmbeddedPostgres, EmbeddedPostgres], driver: DriverName
) -> None:
    primary, _ = replicated
    with pytest.raises(ConnectError) as caught:
        await _is_primary(driver, replicated_url(primary, primary, options="target_session_attrs=standby"))
    assert caught.value.kind is FailureKind.SESSION_ATTRS
    assert await _is_primary(driver, replicated_url(primary, options="target_session_attrs=prefer-standby"))


@pytest.mark.parametrize(
    ("attrs", "taken"), [("read-write", "no"), ("primary", "no"), ("read-only", "yes"), ("standby", "yes")]
)
async def test_a_server_that_does_not_say_what_it_is_is_asked(attrs: str, taken: str) -> None:
    # As PostgreSQL before 14, of which no package is at hand: no in_hot_standby at start-up.
    nothing = h.message(b"T", b"\0\0") + h.message(b"C", b"SELECT 0\0")
    answers = {"yes": h.RESULT + h.READY, "no": nothing + h.READY}
    questions: list[bytes] = []

    def read_question(peer: h.Peer) -> None:
        questions.append(peer.read_message()[1])

    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                h.HostileServer((h.read_startup, h.send(h.WELCOME), read_question, h.send(answer), h.stall))
            )
            for name, answer in answers.items()
        }
        hosts = ",".join(f"127.0.0.1:{servers[name].port}" for name in ("yes", "no"))
        url = f"postgresql://u@{hosts}/d?sslmode=disable&target_session_attrs={attrs}"
        connection = await WireDriver(target(url)).connect()
        assert connection.address == f"127.0.0.1:{servers[taken].port}"
        connection.terminate()
    about = b"transaction_read_only" if attrs.startswith("read") else b"pg_is_in_recovery"
    assert len(questions) == (1 if taken == "yes" else 2)
    assert all(about in question for question in questions)


@pytest.mark.parametrize("where", ["in its accept queue", "after the start-up message"])
def test_a_silent_first_host_costs_the_connect_timeout_and_is_a_step_of_its_own(
    embedded: EmbeddedPostgres, where: str
) -> None:
    with ExitStack() as stack:
        if where == "in its accept queue":
            port = stack.enter_context(_full_accept_queue())
        else:
            port = stack.enter_context(h.HostileServer((h.read_startup, h.stall))).port
        url = f"postgresql://bench@127.0.0.1:{port},127.0.0.1:{embedded.port}/postgres?sslmode=disable"
        spec = ConnectSpec(
            targets=(target(url),),
            concurrency=2,
            warmup_s=0,
            duration_s=30,
            grace_s=20,
            connect_timeout_s=_SILENT_S,
            tick_s=0.05,
        )
        # A machine that stands still could let the good host's time pass, too: what succeeded is looked at.
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok >= 2))
    total = outcome.total
    earlier, tcp = total.phases[Phase.EARLIER], total.phases[Phase.TCP]
    assert total.ok >= 2
    assert earlier.count == tcp.count == total.ok
    assert earlier.min_ns >= _SILENT_S * 1e9 * 0.99
    assert {kind for kind, _, _ in outcome.failures} <= {FailureKind.TIMEOUT}


@contextmanager
def _full_accept_queue() -> Iterator[int]:
    """A port to which no connection is made any more; those in its queue are another process's."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port: int = full.getsockname()[1]
        with subprocess.Popen(
            [sys.executable, "-c", _CROWD, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as crowd:
            assert crowd.stdout is not None
            crowd.stdout.readline()
            yield port
            crowd.kill()


def test_psycopg_gives_each_host_its_own_time(embedded: EmbeddedPostgres) -> None:
    with h.HostileServer((h.read_startup, h.stall)) as silent:
        hosts = f"127.0.0.1:{silent.port},127.0.0.1:{embedded.port}"
        url = f"postgresql://bench@{hosts}/postgres?sslmode=disable"
        spec = ConnectSpec(
            targets=(target(url),),
            driver="psycopg",
            concurrency=1,
            warmup_s=0,
            duration_s=30,
            grace_s=20,
            connect_timeout_s=2,
            tick_s=0.05,
        )
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].attempts >= 1))
    assert outcome.total.ok >= 1


def test_a_dead_address_of_a_name_does_not_keep_from_the_good_one(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer_with(monkeypatch, "::1", "127.0.0.1")
    url = f"postgresql://bench@replicas.test:{embedded.port}/postgres?sslmode=disable"
    spec = ConnectSpec(targets=(target(url),), concurrency=2, warmup_s=0, duration_s=30, tick_s=0.05)
    outcome = run(spec, stop_when=enough(lambda targets: targets[0].attempts >= 20))
    total = outcome.total
    assert total.ok
    assert not total.failed
    # Refused at once, but told: the time is not hidden in the good address's `tcp`.
    assert total.phases[Phase.EARLIER].count == total.ok


def _answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name lead to `addresses`, in that order."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: int, **kwargs: int) -> list[tuple[object, ...]]:
        return [found for address in addresses for found in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_the_failure_of_several_hosts_tells_of_each() -> None:
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in (one, two)]
        url = f"postgresql://u@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/d?sslmode=disable"
        with pytest.raises(ConnectError) as caught:
            await WireDriver(target(url)).connect()
    assert caught.value.kind is FailureKind.REFUSED
    assert all(f"127.0.0.1:{port}: connection refused" in caught.value.message.lower() for port in ports)


def test_asyncpg_is_refused_what_it_does_not_do() -> None:
    spec = ConnectSpec(targets=(target("postgresql://u@a,b/d?load_balance_hosts=random"),), driver="asyncpg")
    with pytest.raises(UsageError, match="load_balance_hosts"):
        make_drivers(spec)
