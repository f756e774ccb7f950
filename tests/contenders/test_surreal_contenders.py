"""SurrealDB's contenders behind the one protocol, on a real engine."""

import asyncio

import pytest

from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.targets.surreal import SurrealTarget, surreal_target

POOLS: tuple[ContenderName, ...] = ("reference", "shared", "naive")


def target_of(server: EmbeddedSurreal, password: str | None = None) -> SurrealTarget:
    """The server, in a namespace of its own."""
    return surreal_target(
        server.url,
        user=server.user,
        password=server.password if password is None else password,
        namespace="contenders",
        database="here",
        environ={},
    )


@pytest.mark.parametrize("pool", POOLS)
async def test_every_contender_serves_more_clients_than_it_has_connections(
    surreal: EmbeddedSurreal, pool: ContenderName
) -> None:
    contender = make(pool, ContenderConfig(target=target_of(surreal), size=2, timeout_s=30.0))
    await contender.open()
    try:

        async def use() -> None:
            async with contender.lease() as leased:
                await contender.execute(leased, "RETURN 1")

        await asyncio.gather(*(use() for _ in range(6)))
        # The naive one has opened one more to see whether there is anybody.
        assert contender.opens.opened == {"reference": 2, "shared": 1, "naive": 7}[pool]
        assert contender.size == {"reference": 2, "shared": 1, "naive": 0}[pool]
    finally:
        await contender.close()
    assert contender.size == 0


@pytest.mark.parametrize("pool", POOLS)
async def test_every_contender_tells_its_errors_by_kind(
    surreal: EmbeddedSurreal, pool: ContenderName
) -> None:
    refused = make(pool, ContenderConfig(target=target_of(surreal, "wrong pencil"), size=1))
    with pytest.raises(Exception) as failure:  # noqa: PT011  # whatever the pool raises
        await refused.open()
    await refused.close()
    error = refused.as_error(failure.value, Phase.CONNECT)
    assert error.kind is FailureKind.AUTH
    assert "wrong pencil" not in str(error)

    contender = make(pool, ContenderConfig(target=target_of(surreal), size=1))
    await contender.open()
    with pytest.raises(Exception) as failure:  # noqa: PT011
        async with contender.lease() as leased:
            await contender.execute(leased, "THROW 'on purpose'")
    assert isinstance(contender.as_error(failure.value, Phase.QUERY), ConnectError)
    await contender.close()


async def test_who_waits_too_long_at_the_reference_pool_has_timed_out(surreal: EmbeddedSurreal) -> None:
    contender = make("reference", ContenderConfig(target=target_of(surreal), size=1, timeout_s=0.05))
    await contender.open()
    async with contender.lease():
        with pytest.raises(TimeoutError) as failure:
            async with contender.lease():
                pass
    assert contender.as_error(failure.value, Phase.CHECKOUT).kind is FailureKind.TIMEOUT
    await contender.close()


def test_a_pool_of_postgresqls_is_refused_for_a_surrealdb(surreal: EmbeddedSurreal) -> None:
    with pytest.raises(UsageError, match=r"unknown pool asyncpg \(choose from reference, shared"):
        make("asyncpg", ContenderConfig(target=target_of(surreal), size=1))
