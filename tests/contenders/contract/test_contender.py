"""What holds of every contender, whatever it connects to: load reaches all of them in the same way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.contenders.base import Contender
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets import Target, from_url

SIZE = 2
CLIENTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One contender.

    Attributes:
        name: what it is called.
        scheme: of the URL that leads to its server.
        query, failing: what its server answers, and what it does not.
        opened: connections it has opened once 12 clients were served by a pool of 2.
        held: those of them it still has then.
        waits: callers wait for others; where they do not there is no limit to be met.
    """

    name: ContenderName
    scheme: str
    query: str
    failing: str
    opened: int = SIZE
    held: int = SIZE
    waits: bool = True


def _postgres(name: ContenderName) -> Case:
    return Case(name=name, scheme="postgresql", query="SELECT 1", failing="SELECT 1 / 0")


def _surreal(name: ContenderName, *, opened: int = SIZE, held: int = SIZE, waits: bool = True) -> Case:
    return Case(
        name=name,
        scheme="ws",
        query="RETURN 1",
        failing="THROW 'on purpose'",
        opened=opened,
        held=held,
        waits=waits,
    )


CASES = {
    **{name: _postgres(name) for name in ("reference", "asyncpg", "psycopg", "sqlalchemy")},
    # One more than the clients, to see whether there is anybody.
    "naive": Case(
        name="naive",
        scheme="postgresql",
        query="SELECT 1",
        failing="SELECT 1 / 0",
        opened=CLIENTS + 1,
        held=0,
        waits=False,
    ),
    "surreal-reference": _surreal("reference"),
    "surreal-shared": _surreal("shared", opened=1, held=1, waits=False),
    "surreal-naive": _surreal("naive", opened=CLIENTS + 1, held=0, waits=False),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_waiting_case = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.waits], ids=[name for name in CASES if CASES[name].waits]
)


def target_of(case: Case, request: pytest.FixtureRequest) -> Target:
    """A server for `case`."""
    if case.scheme == "postgresql":
        return from_url(request.getfixturevalue("embedded").url, env={})
    server = request.getfixturevalue("surreal")
    env = {
        "SURREAL_USER": server.user,
        "SURREAL_PASS": server.password,
        "SURREAL_NAMESPACE": "contenders",
        "SURREAL_DATABASE": "here",
    }
    return from_url(server.url, env=env)


@asynccontextmanager
async def opened(
    case: Case, target: Target, *, size: int = SIZE, timeout_s: float = 30.0
) -> AsyncIterator[Contender[object]]:
    """The contender, open until the end of the block."""
    contender = make(case.name, ContenderConfig(target=target, size=size, timeout_s=timeout_s))
    await contender.open()
    try:
        yield contender
    finally:
        await contender.close()


@every_case
async def test_more_clients_are_served_than_there_are_connections(
    case: Case, request: pytest.FixtureRequest
) -> None:
    async with opened(case, target_of(case, request)) as contender:

        async def use() -> None:
            async with contender.lease() as leased:
                await contender.execute(leased, case.query)

        await asyncio.gather(*(use() for _ in range(CLIENTS)))
        assert (contender.opens.opened, contender.opens.failed, contender.opens.opening) == (
            case.opened,
            0,
            0,
        )
        assert contender.size == case.held
        assert contender.name == case.name
        assert contender.version
        assert contender.behaviour
    if case.scheme == "ws":
        assert contender.size == 0


async def _lease_again(contender: Contender[object], query: str) -> None:
    """Lease what was given back; on a slow machine that comes back later than the next may wait for it."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with contender.lease() as leased:
                    return await contender.execute(leased, query)
            except Exception as error:
                if contender.as_error(error, Phase.CHECKOUT).kind is not FailureKind.TIMEOUT:
                    raise


@every_waiting_case
async def test_a_wait_that_is_too_long_is_a_timeout_of_the_checkout(
    case: Case, request: pytest.FixtureRequest
) -> None:
    async with opened(case, target_of(case, request), size=1, timeout_s=0.1) as contender:
        async with contender.lease():
            with pytest.raises(Exception) as caught:  # noqa: PT011  # each pool has its own
                async with contender.lease():
                    raise AssertionError("there is one connection, and it is leased")
        assert not isinstance(caught.value, AssertionError)
        error = contender.as_error(caught.value, Phase.CHECKOUT)
        assert (error.kind, error.phase) == (FailureKind.TIMEOUT, Phase.CHECKOUT)
        assert error.message
        await _lease_again(contender, case.query)


@every_case
async def test_a_failed_query_is_told_in_our_terms_and_the_next_one_succeeds(
    case: Case, request: pytest.FixtureRequest
) -> None:
    async with opened(case, target_of(case, request), size=1) as contender:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # each pool has its own
            async with contender.lease() as leased:
                await contender.execute(leased, case.failing)
        error = contender.as_error(caught.value, Phase.QUERY)
        assert isinstance(error, ConnectError)
        assert (error.kind, error.phase) == (FailureKind.OTHER, Phase.QUERY)
        if case.scheme == "postgresql":
            assert error.sqlstate == "22012"
        async with contender.lease() as leased:
            await contender.execute(leased, case.query)


@every_case
async def test_a_server_that_is_not_there_is_told_without_the_password(case: Case) -> None:
    url = f"{case.scheme}://u:s3cr3t@127.0.0.1:1"
    target = from_url(f"{url}/db?sslmode=disable" if case.scheme == "postgresql" else url, env={})
    contender = make(case.name, ContenderConfig(target=target, size=2, timeout_s=0.5))
    opening = asyncio.create_task(contender.open())
    async with asyncio.timeout(60):
        while not contender.opens.failed:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.01)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each pool has its own
        # One of them would go on trying.
        await asyncio.wait_for(opening, 0.5)
    error = contender.as_error(caught.value, Phase.CONNECT)
    assert error.kind in (FailureKind.REFUSED, FailureKind.TIMEOUT, FailureKind.OTHER)
    assert "s3cr3t" not in f"{error} {caught.value!r}"
    assert contender.opens.opened == 0
    assert contender.opens.failed >= 1
    await contender.close()
