"""The official Python client, unchanged, against the embedded SurrealDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from surrealdb import AsyncSurreal, RecordID, Surreal
from surrealdb.errors import ConfigurationError, NotAllowedError, NotFoundError, ValidationError

from pool_bench.servers.surreal.server import EmbeddedSurreal

both = pytest.mark.parametrize("over", ["ws", "http"])


def _url(server: EmbeddedSurreal, over: str) -> str:
    return server.url if over == "ws" else server.http_url


@asynccontextmanager
async def _anonymous(server: EmbeddedSurreal, over: str = "ws") -> AsyncIterator[Any]:
    async with AsyncSurreal(_url(server, over)) as client:
        yield client


@asynccontextmanager
async def _signed_in(server: EmbeddedSurreal, over: str = "ws", namespace: str = "") -> AsyncIterator[Any]:
    async with _anonymous(server, over) as client:
        await client.signin({"username": server.user, "password": server.password})
        await client.use(namespace or f"ns_{uuid4().hex}", "db")
        yield client


@both
async def test_records_are_created_read_changed_and_deleted(surreal: EmbeddedSurreal, over: str) -> None:
    async with _signed_in(surreal, over) as client:
        tobie = RecordID("person", "tobie")
        assert await client.create(tobie, {"age": 30}) == {"id": tobie, "age": 30}
        assert await client.select("person") == [{"id": tobie, "age": 30}]
        assert await client.update(tobie, {"age": 31, "tall": True}) == {"id": tobie, "age": 31, "tall": True}
        assert await client.merge(tobie, {"age": 32}) == {"id": tobie, "age": 32, "tall": True}
        changes = [{"op": "replace", "path": "/age", "value": 33}]
        assert await client.patch(tobie, changes) == {"id": tobie, "age": 33, "tall": True}
        assert len(await client.insert("person", [{"n": 1}, {"n": 2}])) == 2
        assert await client.delete(tobie) == {"id": tobie, "age": 33, "tall": True}
        assert len(await client.delete("person")) == 2
        assert await client.select("person") == []


@both
async def test_a_query_takes_variables_of_all_types(surreal: EmbeddedSurreal, over: str) -> None:
    values: dict[str, Any] = {
        "text": "Müller\n'\"`",
        "number": 2**62,
        "fraction": 0.1,
        "nothing": None,
        "truth": True,
        "list": [1, [2, {"deep": "er"}]],
        "record": RecordID("person", 7),
        "uuid": UUID("018f0000-0000-7000-8000-000000000000"),
        "bytes": b"\x00\xff",
    }
    async with _signed_in(surreal, over) as client:
        assert await client.query("RETURN $values", {"values": values}) == values
        assert await client.query("RETURN $a + $b", {"a": 40, "b": 2}) == 42


@both
async def test_a_failed_statement_is_an_error_of_the_client(surreal: EmbeddedSurreal, over: str) -> None:
    async with _signed_in(surreal, over) as client:
        with pytest.raises(NotFoundError, match="does not exist"):
            await client.query("SELECT * FROM nowhere")
        with pytest.raises(ValidationError, match="Parse error"):
            await client.query("RETURN (")
        assert await client.query("RETURN 1") == 1


async def test_let_keeps_a_variable_for_the_session(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal) as client:
        await client.let("answer", 42)
        assert await client.query("RETURN $answer") == 42
        await client.unset("answer")
        assert await client.query("RETURN $answer") is None


async def test_over_http_the_client_sends_its_variables_along(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal, "http") as client:
        await client.let("answer", 42)
        assert await client.query("RETURN $answer") == 42


@both
async def test_a_wrong_password_is_refused(surreal: EmbeddedSurreal, over: str) -> None:
    async with _anonymous(surreal, over) as client:
        with pytest.raises(NotAllowedError, match="problem with authentication") as refusal:
            await client.signin({"username": surreal.user, "password": "wrong"})
        assert refusal.value.is_invalid_auth
        with pytest.raises(NotAllowedError, match="problem with authentication"):
            await client.signin({"username": "nobody", "password": surreal.password})


@both
async def test_anonymous_access_is_refused(surreal: EmbeddedSurreal, over: str) -> None:
    async with _anonymous(surreal, over) as client:
        with pytest.raises(NotAllowedError, match="Anonymous access not allowed"):
            await client.query("RETURN 1")


@both
async def test_a_token_stands_in_for_the_password(surreal: EmbeddedSurreal, over: str) -> None:
    async with _anonymous(surreal, over) as client:
        tokens = await client.signin({"username": surreal.user, "password": surreal.password})
    async with _anonymous(surreal, over) as client:
        await client.authenticate(tokens.access)
        await client.use("tokens", "db")
        assert await client.query("RETURN session::ns()") == "tokens"


async def test_a_forged_token_is_refused(surreal: EmbeddedSurreal) -> None:
    async with _anonymous(surreal) as client:
        tokens = await client.signin({"username": surreal.user, "password": surreal.password})
    head, payload, signature = tokens.access.split(".")
    async with _anonymous(surreal) as client:
        with pytest.raises(NotAllowedError):
            await client.authenticate(f"{head}.{payload}.{signature[::-1]}")
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await client.query("RETURN 1")


async def test_invalidating_makes_the_session_anonymous_again(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal) as client:
        await client.invalidate()
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await client.query("RETURN 1")


async def test_a_user_of_a_database_signs_in_and_is_kept_to_it(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal, namespace="users") as client:
        await client.query("DEFINE USER OVERWRITE reader ON DATABASE PASSWORD 'r' ROLES VIEWER")
    async with _anonymous(surreal) as client:
        where = {"namespace": "users", "database": "db"}
        await client.signin({**where, "username": "reader", "password": "r"})
        await client.use("users", "db")
        assert await client.query("RETURN 1") == 1
        with pytest.raises(NotAllowedError):
            await client.query("DEFINE TABLE forbidden")
        with pytest.raises(NotAllowedError):
            await client.query("INFO FOR ROOT")


async def test_a_live_query_is_refused_since_the_engine_has_none(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal) as client:
        with pytest.raises(ConfigurationError) as refusal:
            await client.live("person")
        assert refusal.value.is_live_query_not_supported
        assert await client.query("RETURN 1") == 1


async def test_a_transaction_of_the_client_is_refused_since_the_engine_has_none(
    surreal: EmbeddedSurreal,
) -> None:
    async with _signed_in(surreal) as client:
        with pytest.raises(NotAllowedError, match="Method not allowed"):
            await client.begin()
        assert await client.query("RETURN 1") == 1


async def test_the_version_says_that_the_engine_is_embedded(surreal: EmbeddedSurreal) -> None:
    number = surreal.version.removeprefix("embedded SurrealDB engine ")
    async with _anonymous(surreal) as client:
        assert await client.version() == f"surrealdb-{number}+embedded"


# The client's own use of the library `websockets`.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
@both
def test_the_blocking_client_works_as_well(surreal: EmbeddedSurreal, over: str) -> None:
    with Surreal(_url(surreal, over)) as client:
        client.signin({"username": surreal.user, "password": surreal.password})
        client.use("blocking", "db")
        assert client.query("RETURN 6 * 7") == 42


# -- sessions --------------------------------------------------------------------------------------------


async def test_namespace_database_and_variables_stay_in_their_socket(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal, namespace="one") as one, _signed_in(surreal, namespace="two") as two:
        await one.let("mine", 1)
        await one.use("one", "elsewhere")
        assert await one.query("RETURN [session::ns(), session::db(), $mine]") == ["one", "elsewhere", 1]
        assert await two.query("RETURN [session::ns(), session::db(), $mine]") == ["two", "db", None]


async def test_a_sign_in_stays_in_its_socket(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal), _anonymous(surreal) as other:
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await other.query("RETURN 1")


async def test_a_sign_out_stays_in_its_socket(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal) as one, _signed_in(surreal) as other:
        await one.invalidate()
        assert await other.query("RETURN 1") == 1


async def test_an_http_request_signs_nobody_else_in(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal, "http") as client, _anonymous(surreal, "http") as other:
        assert await client.query("RETURN 1") == 1
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await other.query("RETURN 1")


async def test_a_socket_may_have_several_sessions(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal, namespace="first") as client:
        second = await client.new_session()
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await second.query("RETURN 1")
        await second.signin({"username": surreal.user, "password": surreal.password})
        await second.use("second", "db")
        await second.let("x", 2)
        assert await second.query("RETURN [session::ns(), $x]") == ["second", 2]
        assert await client.query("RETURN [session::ns(), $x]") == ["first", None]
        await second.close_session()
        with pytest.raises(NotFoundError, match="Session not found"):
            await second.query("RETURN 1")
        assert await client.query("RETURN 1") == 1


async def test_a_session_of_another_socket_cannot_be_named(surreal: EmbeddedSurreal) -> None:
    async with _signed_in(surreal) as one, _anonymous(surreal) as other:
        session = await one.attach()
        await one.signin({"username": surreal.user, "password": surreal.password}, session_id=session)
        with pytest.raises(NotFoundError, match="Session not found"):
            await other.query("RETURN 1", session_id=session)
        # The same name for a session of its own is no clash, and no way in.
        await other._send(_attach(session), "attach")
        with pytest.raises(NotAllowedError, match="Anonymous"):
            await other.query("RETURN 1", session_id=session)
        assert await one.query("RETURN 1", session_id=session) == 1


def _attach(session: UUID) -> Any:
    from surrealdb.request_message.message import RequestMessage
    from surrealdb.request_message.methods import RequestMethod

    return RequestMessage(RequestMethod.ATTACH, session=session)
