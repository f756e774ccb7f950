"""The official client over a WebSocket and a codec of ours: the same methods and values at half the cost.

What its user calls is the client's own. What carries its requests is `websocket_channel.py`, where an answer
wakes whoever waits for it without the tasks and queues in between, and `client_codec.py`. Many requests may
be under way at a time. As the client does, it asks a silent server for signs of life; unlike the client, it
uses no HTTP proxy and no compression.
"""

import asyncio
import ssl
from collections.abc import Hashable
from itertools import count
from typing import Any, Final
from uuid import UUID

from surrealdb.errors import ConnectionUnavailableError
from surrealdb.request_message.message import RequestMessage
from surrealdb.request_message.methods import RequestMethod
from surrealdb.types import Value

from pool_bench.drivers.network.addresses import resolve
from pool_bench.drivers.network.connecting import connect
from pool_bench.drivers.network.failures import StreamError, one_line
from pool_bench.drivers.surreal.client_codec import decode_message, encode_query
from pool_bench.drivers.surreal.client_session import TrackingWebSocket, answered_within
from pool_bench.drivers.surreal.websocket_channel import WebSocketChannel
from pool_bench.errors import FailureKind, QueryTimeoutError
from pool_bench.targets.surreal import SurrealTarget

Answer = dict[str, Any]

# As the official client's WebSocket has them.
_PING_EVERY_S: Final = 20.0
# A server's words where the time is up that `DURATION FOR SESSION` gives a user.
_EXPIRED: Final = "The session has expired"


def _has_expired(error: object) -> bool:
    return isinstance(error, dict) and error.get("message") == _EXPIRED


class _ClientChannel(WebSocketChannel):
    """A WebSocket whose answers may come in any order.

    Attributes:
        live: who gets the notifications of each live query.
    """

    def __init__(self, target: SurrealTarget, live: dict[str, list[asyncio.Queue[Answer]]]) -> None:
        super().__init__(target, max_message_bytes=None)
        self.live = live
        self._loop = asyncio.get_running_loop()
        self._pending: dict[Hashable, asyncio.Future[Answer]] = {}
        self._given_up: set[Hashable] = set()
        self._drained: asyncio.Future[None] | None = None
        self._heard_ns = 0
        self._is_asked = False
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Turn HTTP into a WebSocket, and watch over it from then on.

        Raises:
            StreamError: the server does not play along.
        """
        await super().open()
        if self._failure is not None:
            # A goodbye along with the welcome.
            raise self._failure
        self._timer = self._loop.call_later(_PING_EVERY_S, self._look_after)

    async def ask(self, number: Hashable, message: bytes) -> Answer:
        """Send a request and wait for its answer; others may be under way, and given up.

        Raises:
            StreamError: the connection is lost.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[number] = answer
        try:
            self._send(message)
            return await answer
        except asyncio.CancelledError:
            # It may have been answered since.
            if number in self._pending:
                self._given_up.add(number)
            raise
        finally:
            self._pending.pop(number, None)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all requests that were given up have been answered; False where some still are not."""
        if self._given_up and not self.is_closed:
            drained = self._drained = self._loop.create_future()
            await asyncio.wait([drained], timeout=timeout_s)
        return not self._given_up

    @property
    def _listens(self) -> bool:
        return True

    def _take(self, message: bytes) -> None:
        try:
            answer = decode_message(message)
        except Exception as error:
            reason = one_line(error)
            raise StreamError(
                FailureKind.PROTOCOL, f"the client cannot read the server's answer: {reason}"
            ) from error
        try:
            number = answer.get("id")
            waiting = None if number is None else self._pending.pop(number, None)
            if self._given_up:
                self._given_up.discard(number)
                if not self._given_up:
                    self._stop_draining()
        except (AttributeError, TypeError) as error:
            raise StreamError(FailureKind.PROTOCOL, "the server's answer is not a map in CBOR") from error
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(answer)
        elif number is None:
            self._notify(answer)

    def _stop_draining(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _notify(self, message: Answer) -> None:
        result = message.get("result")
        if isinstance(result, dict) and "id" in result:
            for queue in self.live.get(str(result["id"]), ()):
                queue.put_nowait(result)
        elif (error := message.get("error")) is not None:
            words = one_line(error.get("message", "") if isinstance(error, dict) else error)
            raise StreamError(FailureKind.PROTOCOL, f"the server cannot read our request: {words}")

    def _fail(self, error: StreamError) -> None:
        super()._fail(error)
        if self._timer is not None:
            self._timer.cancel()
        self._stop_draining()
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(StreamError(error.kind, error.message))

    def _look_after(self) -> None:
        """Ask for a sign of life after one silent period, and give up after a second one."""
        self._timer = self._loop.call_later(_PING_EVERY_S, self._look_after)
        if self.stream.arrived_ns != self._heard_ns:
            self._heard_ns, self._is_asked = self.stream.arrived_ns, False
        elif not self._is_asked:
            self._is_asked = True
            self._protocol.send_ping(b"")
            self._flush()
        else:
            self._fail(StreamError(FailureKind.TIMEOUT, f"the server was silent for {2 * _PING_EVERY_S:g} s"))
            self.stream.abort()


class FastWebSocket(TrackingWebSocket):
    """The official client, except for what carries its requests; `socket` is always None.

    Args:
        target: where the server is.
        tls: the context for `wss://`.
    """

    def __init__(self, target: SurrealTarget, tls: ssl.SSLContext | None) -> None:
        super().__init__(target.url)
        self._target = target
        self._tls = tls
        self._channel: _ClientChannel | None = None
        self._numbers = count(1)

    @property
    def is_lost(self) -> bool:
        """Whether no request can be answered any more."""
        return self._channel is None or self._channel.is_closed

    async def connect(self, url: str | None = None) -> None:
        """Connect, once; `url` is not looked at.

        Raises:
            ConnectionUnavailableError: it failed, or it was connected before and is not any more.
        """
        if self._channel is not None:
            if self._channel.is_closed:
                raise ConnectionUnavailableError("the connection is closed")
            return
        channel = self._channel = _ClientChannel(self._target, self.live_queues)
        try:
            await channel.stream.open(await connect(await resolve(self._target.host, self._target.port)))
            if self._tls is not None:
                await channel.stream.start_tls(self._tls, self._target.host)
            channel.stream.write_at_once()
            await channel.open()
        except StreamError as error:
            channel.abort()
            raise ConnectionUnavailableError(error.message) from error
        except BaseException:
            channel.abort()
            raise

    async def query_raw(
        self,
        query: str,
        params: dict[str, Value] | None = None,
        session_id: UUID | None = None,
        txn_id: UUID | None = None,
    ) -> Answer:
        """Run statements and return the server's answer, whatever it says.

        Raises:
            ConnectionUnavailableError: the connection was lost; the statements are not run again.
            QueryTimeoutError: no answer within `query_timeout`; it is thrown away when it comes.
        """
        number = next(self._numbers)
        message = encode_query(number, query, {} if params is None else params, session_id, txn_id)
        if message is None:
            return await super().query_raw(query, params, session_id, txn_id)
        may_listen = session_id is None and self.changes.note_statements(query)
        try:
            answer = await self._ask(number, message)
        except (asyncio.CancelledError, QueryTimeoutError):
            # What it listens to now nobody knows.
            self.changes.cut_off |= may_listen
            raise
        if may_listen:
            self.changes.note_results(answer)
        return answer

    async def _send(self, message: RequestMessage, process: str, bypass: bool = False) -> Answer:
        self.changes.note(message)
        encoded: bytes = message.WS_CBOR_DESCRIPTOR
        try:
            answer = await self._ask(message.id, encoded)
        except (asyncio.CancelledError, QueryTimeoutError):
            is_query = message.method is RequestMethod.QUERY
            self.changes.cut_off |= not is_query or self.changes.note_statements(message.kwargs["query"])
            raise
        if not bypass:
            self.check_response_for_error(answer, process)
        self.changes.note_answer(message, answer)
        return answer

    async def _ask(self, number: Hashable, message: bytes) -> Answer:
        channel = self._channel
        if channel is None or channel.is_closed:
            raise ConnectionUnavailableError("the connection is closed")
        try:
            answer = await answered_within(self.query_timeout, channel.ask(number, message))
        except (asyncio.CancelledError, QueryTimeoutError):
            self.changes.given_up = True
            raise
        except StreamError as error:
            raise ConnectionUnavailableError(
                f"the connection was lost within a request: {error.message}"
            ) from error
        if "error" in answer and _has_expired(answer["error"]):
            # The request was not executed; the next sign-in is the reset's.
            self.changes.sign_in = True
        return answer

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every request that was given up has been answered, and throw the answers away.

        Args:
            timeout_s: seconds to wait.

        Returns:
            Whether nothing is at work any more.
        """
        return self._channel is not None and await self._channel.drain(timeout_s)

    async def close(self) -> None:
        """Exchange goodbyes."""
        if self._channel is not None:
            await self._channel.close()

    def abort(self) -> None:
        """Close the socket at once."""
        if self._channel is not None:
            self._channel.abort()
