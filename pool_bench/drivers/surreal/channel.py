"""One connection for SurrealDB's RPC messages, whatever they travel in.

Requests are made one at a time, each with the message that answers it. The protocols underneath are
libraries without I/O; the event loop feeds them as data arrives, so that pings of the server are answered and
its goodbye is noticed while nobody waits for anything.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from pool_bench.drivers.network.failures import StreamError
from pool_bench.drivers.network.stream import Stream
from pool_bench.drivers.surreal.rpc import decode_answer
from pool_bench.errors import FailureKind

Answer = dict[str, Any]


class Channel(ABC):
    """One connection for requests.

    Attributes:
        arrived_ns: when the end of the latest answer arrived, as `perf_counter_ns` counts.
        on_end: called once when the connection ends without our asking.
        upgrades: whether `open` turns HTTP into something else.
    """

    upgrades: ClassVar[bool] = False

    def __init__(self) -> None:
        self.stream = Stream(self)
        self.arrived_ns = 0
        self.on_end: Callable[[StreamError], None] | None = None
        self._failure: StreamError | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether no request can be made any more."""
        return self._failure is not None or self.stream.is_lost

    @property
    def is_waiting(self) -> bool:
        """Whether a request is under way."""
        return self._waiting is not None

    async def open(self) -> None:  # noqa: B027 - nothing is to be done by default
        """Get ready for requests, the stream being open.

        Raises:
            StreamError: the server does not play along.
        """

    def signed_in(self, token: str) -> None:  # noqa: B027 - nothing is to be done by default
        """Requests come from the bearer of `token` from now on, where the server does not remember it."""

    def selected(self, namespace: str, database: str | None) -> None:  # noqa: B027 - as above
        """Requests are for these from now on, where the server does not remember it."""

    async def request(self, message: bytes) -> Answer:
        """Send a request and wait for its answer; where that fails or is cancelled the channel is closed.

        Raises:
            StreamError: the connection failed.
        """
        self._send(message)
        return await self._answer()

    @abstractmethod
    async def close(self) -> None:
        """End it politely, in a few seconds at the most; never raises."""

    def abort(self) -> None:
        """End it at once."""
        self.on_end = None
        self._fail(StreamError(FailureKind.CLOSED, "the connection is closed"))
        self.stream.abort()

    @abstractmethod
    def received(self, data: bytes, arrived_ns: int) -> None:
        """What the stream hands on."""

    def lost(self, error: StreamError) -> None:
        """The stream is lost."""
        self._fail(error)

    @abstractmethod
    def _send(self, message: bytes) -> None:
        """Write a request to the stream."""

    async def _answer(self) -> Answer:
        if self._failure is not None:
            raise self._failure
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        try:
            return await waiting
        except BaseException:
            # The answer may still come, and could be taken for another's.
            self.abort()
            raise
        finally:
            self._waiting = None

    def _deliver(self, message: bytes, arrived_ns: int) -> None:
        try:
            answer = decode_answer(message)
        except ValueError as error:
            raise StreamError(FailureKind.PROTOCOL, str(error)) from error
        if answer is not None:
            self._wake(answer, arrived_ns)

    def _wake(self, answer: Answer, arrived_ns: int) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            self.arrived_ns = arrived_ns
            waiting.set_result(answer)

    def _fail(self, error: StreamError) -> None:
        if self._failure is None:
            self._failure = error
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_exception(self._failure)
        tell, self.on_end = self.on_end, None
        if tell is not None:
            tell(self._failure)
