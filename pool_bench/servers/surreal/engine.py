"""The embedded SurrealDB engine, and the sessions that one client has in it.

The engine is the one of the package `surrealdb-embedded`: SurrealDB's own core, called in-process. Its calls
run on threads of its own and never block the event loop; a call that is cancelled is dropped there, too.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID, uuid4

import cbor2
from surrealdb_embedded import AsyncEmbeddedDB

from pool_bench.servers.surreal.codec import (
    Format,
    Request,
    RequestError,
    add_session,
    decode,
    failure,
    invalid_request,
    parse_error,
    read_request,
    remove_session,
    success,
    write_answer,
)

# As a server's SURREAL_WEBSOCKET_MAX_ATTACHED_SESSIONS.
_MAX_ATTACHED: Final = 256
# What the engine would answer for all clients at once, or as its own owner.
_OWN_METHODS: Final = frozenset({"attach", "detach", "sessions", "version"})
_SIGN_IN_METHODS: Final = frozenset({"signin", "signup", "authenticate"})


# What is under way for one message; whatever it ends with is nobody's business.
Running = asyncio.Future[bytes] | asyncio.Future[dict[str, Any]]
Say = Callable[[bytes, Running | None], None]


class EngineError(Exception):
    """The engine refused a call of ours; the message is its own."""


class Engine:
    """SurrealDB's core in this process.

    Opening a directory blocks. Requests that name no session run as the owner: only this module may make
    them, which is why clients' requests always get a session here.

    Args:
        store: `mem://`, or `surrealkv://` and a directory.

    Raises:
        RuntimeError: the store cannot be opened.
    """

    def __init__(self, store: str) -> None:
        self._db = AsyncEmbeddedDB(store)

    def execute(self, request: bytes) -> asyncio.Future[bytes]:
        """Hand a CBOR request to the engine; the future gets its CBOR answer, and drops it if cancelled.

        The future's error is a ValueError: it is no request, or its answer cannot be put into CBOR.
        """
        # A future whatever its stub says; to wait for it in a task would take a turn of the loop more.
        return cast("asyncio.Future[bytes]", self._db.execute(request))

    async def call(self, method: str, *params: object, session: UUID | None = None) -> Any:
        """Call one method, by default as the owner, and return its result.

        Raises:
            EngineError: the engine refused it.
        """
        message: dict[str, object] = {"method": method, "params": params}
        if session is not None:
            message["session"] = session
        answer = decode(await self._db.execute(cbor2.dumps(message)))
        if "error" in answer:
            raise EngineError(answer["error"]["message"])
        return answer["result"]

    async def query(self, text: str, **variables: object) -> list[Any]:
        """Run statements as the owner and return the result of each.

        Raises:
            EngineError: one of them failed.
        """
        results = await self.call("query", text, variables)
        for result in results:
            if result["status"] != "OK":
                raise EngineError(str(result["result"]))
        return [result["result"] for result in results]

    async def version(self) -> str:
        """The engine's version, such as `3.2.4`."""
        version: str = await self.call("version")
        return version.removeprefix("surrealdb-")

    async def session_count(self) -> int:
        """How many sessions clients have."""
        return len(await self.call("sessions")) - 1

    async def define_root(self, user: str, password: str) -> None:
        """Create a root user where there is none yet, as `surreal start --user --pass` does.

        Raises:
            EngineError: the engine refused it.
        """
        (info,) = await self.query("INFO FOR ROOT")
        if info["users"]:
            return
        # The statement takes no parameter in the place of a password, but a hash needs no quoting.
        (password_hash,) = await self.query("RETURN crypto::argon2::generate($password)", password=password)
        await self.query(f"DEFINE USER $user ON ROOT PASSHASH '{password_hash}' ROLES OWNER", user=user)

    async def close(self) -> None:
        """Write out what is to be kept."""
        await self._db.close()


class ClientSessions:
    """The sessions of one socket or one HTTP request: its own, and those that the client attached to it.

    What the client calls them is translated to identifiers of ours: a client can name no session of another.

    Attributes:
        signed_in: whether the client has shown once who it is, in whichever session.
    """

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version
        self._own = uuid4()
        self._attached: dict[UUID, UUID] = {}
        self._attaching: set[asyncio.Task[object]] = set()
        self.signed_in = False

    async def open(self) -> None:
        """Create the anonymous session that every client begins with."""
        await self._begin_session(self._own)

    async def close(self) -> None:
        """Forget all sessions, with what they have signed in as."""
        sessions = [self._own, *self._attached.values()]
        self._attached.clear()
        # Shielded, so that a second cancellation cannot leave any behind.
        await asyncio.shield(asyncio.ensure_future(self._end_sessions(sessions)))

    async def _begin_session(self, session: UUID) -> None:
        attaching: asyncio.Task[object] = asyncio.create_task(self._engine.call("attach", session=session))
        self._attaching.add(attaching)
        attaching.add_done_callback(self._attaching.discard)
        await asyncio.shield(attaching)

    async def _end_sessions(self, sessions: Sequence[UUID]) -> None:
        # The engine's threads may take up what was asked later first: a session that is attached after it was
        # detached would stay for good.
        await asyncio.gather(*self._attaching, return_exceptions=True)
        await asyncio.gather(*(self._engine.call("detach", session=session) for session in sessions))

    async def authenticate(self, token: str) -> None:
        """Sign in by a token, as the header `Authorization: Bearer` does.

        Raises:
            EngineError: it is refused.
        """
        await self._engine.call("authenticate", token, session=self._own)
        self.signed_in = True

    async def sign_in(self, credentials: Mapping[str, str]) -> None:
        """Sign in with a password, as the header `Authorization: Basic` does.

        Raises:
            EngineError: it is refused.
        """
        await self._engine.call("signin", dict(credentials), session=self._own)
        self.signed_in = True

    async def use(self, namespace: str | None, database: str | None) -> None:
        """Select a namespace and a database, as the headers `Surreal-NS` and `Surreal-DB` do.

        Raises:
            EngineError: it is refused.
        """
        await self._engine.call("use", namespace, database, session=self._own)

    async def answer(self, data: bytes, form: Format) -> bytes:
        """Answer one message of the client, in its format; whatever it is, there is an answer."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def say(answer: bytes, _running: Running | None) -> None:
            if not answered.done():
                answered.set_result(answer)

        running = self.begin(data, form, say)
        try:
            return await answered
        finally:
            if running is not None:
                running.cancel()

    def begin(self, data: bytes, form: Format, say: Say) -> Running | None:
        """Begin to answer one message of the client; whatever it is, there is an answer.

        Args:
            data: the message.
            form: its format, which the answer has, too.
            say: called once, now or later, with the answer and with what was under way for it.

        Returns:
            What is under way, to be cancelled where nobody waits for the answer any more; None where `say`
            has been called.
        """
        try:
            request = read_request(data, form)
        except RequestError as error:
            say(write_answer(error.answer, form), None)
            return None
        if request.method in _OWN_METHODS:

            def hand_on_own(running: asyncio.Future[dict[str, Any]]) -> None:
                if not running.cancelled():
                    say(_in_format(running.result(), request, form), running)

            task = asyncio.create_task(self._answer(request))
            task.add_done_callback(hand_on_own)
            return task
        session = self._own if request.session is None else self._attached.get(request.session)
        if session is None:
            say(write_answer(_session_not_found(request), form), None)
            return None

        def hand_on(running: asyncio.Future[bytes]) -> None:
            if not running.cancelled():
                answer = _unwrap(running, request, session)
                if request.method in _SIGN_IN_METHODS and not self.signed_in:
                    self.signed_in = _is_success(answer)
                say(_in_format(answer, request, form), running)

        running = self._engine.execute(add_session(request, session))
        running.add_done_callback(hand_on)
        return running

    async def _answer(self, request: Request) -> dict[str, Any]:
        match request.method:
            case "attach":
                return await self._attach(request)
            case "detach":
                return await self._detach(request)
            case "sessions":
                return success(request, list(self._attached))
            case _:
                # As a server says it that was built with a remark on the build.
                return success(request, self._version)

    async def _attach(self, request: Request) -> dict[str, Any]:
        named = request.session
        if named is None:
            return _no_session_named(request)
        if named in self._attached:
            details = {"kind": "Session", "details": {"id": str(named)}}
            message = f"Session already exists: {named}"
            return failure(-32000, "AlreadyExists", message, details, request=request)
        if len(self._attached) >= _MAX_ATTACHED:
            message = f"No more than {_MAX_ATTACHED} sessions can be attached"
            return failure(-32602, "NotAllowed", message, request=request)
        session = self._attached[named] = uuid4()
        await self._begin_session(session)
        return success(request, None)

    async def _detach(self, request: Request) -> dict[str, Any]:
        if request.session is None:
            return _no_session_named(request)
        session = self._attached.pop(request.session, None)
        if session is not None:
            await self._engine.call("detach", session=session)
        return success(request, None)


def _unwrap(running: asyncio.Future[bytes], request: Request, session: UUID) -> bytes | dict[str, Any]:
    """What the engine answered, without the session that was added."""
    try:
        answer = running.result()
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Failed to encode"):
            return _not_encoded(request, error)
        return invalid_request() if reason.startswith("Failed to parse") else parse_error()
    return remove_session(answer, session, request.session)


def _is_success(answer: bytes | dict[str, Any]) -> bool:
    return isinstance(answer, bytes) and "error" not in decode(answer)


def _in_format(answer: bytes | dict[str, Any], request: Request, form: Format) -> bytes:
    try:
        return write_answer(answer, form)
    except ValueError as error:
        return write_answer(_not_encoded(request, error), form)


def _not_encoded(request: Request, error: ValueError) -> dict[str, Any]:
    details = {"kind": "Serialization"}
    return failure(-32007, "Serialization", str(error), details, request=request)


def _no_session_named(request: Request) -> dict[str, Any]:
    details = {"kind": "InvalidParams"}
    return failure(-32603, "Validation", "Expected a session ID", details, request=request)


def _session_not_found(request: Request) -> dict[str, Any]:
    details = {"kind": "Session", "details": {"id": str(request.session)}}
    message = f"Session not found: {request.session}"
    return failure(-32000, "NotFound", message, details, request=request)
