"""SurrealDB's contenders behind the one protocol, on a real engine."""

import pytest

from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.errors import FailureKind, Phase, UsageError
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
async def test_a_wrong_password_is_a_failure_of_auth_and_is_not_shown(
    surreal: EmbeddedSurreal, pool: ContenderName
) -> None:
    refused = make(pool, ContenderConfig(target=target_of(surreal, "wrong pencil"), size=1))
    with pytest.raises(Exception) as failure:  # noqa: PT011  # whatever the pool raises
        await refused.open()
    await refused.close()
    error = refused.as_error(failure.value, Phase.CONNECT)
    assert error.kind is FailureKind.AUTH
    assert "wrong pencil" not in str(error)


def test_a_pool_of_postgresqls_is_refused_for_a_surrealdb(surreal: EmbeddedSurreal) -> None:
    with pytest.raises(UsageError, match=r"unknown pool asyncpg \(choose from reference, shared"):
        make("asyncpg", ContenderConfig(target=target_of(surreal), size=1))
