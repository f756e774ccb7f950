"""A server whose behaviour is known, in a process of its own, to hold against what is measured."""

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from tests.support.forkserver import context
from tests.support.hostile_postgres import READY, RESULT, WELCOME


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the server does; seconds count from its first connection.

    Attributes:
        delay_s: from the start-up message to the answer.
        slow_first: so many connections are answered only after `slow_s`.
        stall_after_s, stall_s: from then on, for so long, it does nothing at all.
        one_at_a_time_s: each connection keeps its only worker so long, 0 for any number of workers.
    """

    delay_s: float = 0.0
    slow_first: int = 0
    slow_s: float = 0.0
    stall_after_s: float = 0.0
    stall_s: float = 0.0
    one_at_a_time_s: float = 0.0


class _Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._queue: deque[asyncio.Transport] = deque()
        self._free_at = 0.0
        self.accepted = 0

    def protocol(self) -> asyncio.Protocol:
        return _Peer(self)

    def opened(self) -> int:
        self.accepted += 1
        if self.accepted == 1 and self._behaviour.stall_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._behaviour.stall_after_s, time.sleep, self._behaviour.stall_s)
        return self.accepted

    def wait_s(self, number: int) -> float:
        """How long this connection's answer takes."""
        behaviour = self._behaviour
        if behaviour.one_at_a_time_s:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + behaviour.one_at_a_time_s
            return self._free_at - now
        return behaviour.slow_s if number <= behaviour.slow_first else behaviour.delay_s


class _Peer(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._welcomed = False
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._number = self._server.opened()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._welcomed:
            self._welcomed = True
            wait_s = self._server.wait_s(self._number)
            if wait_s > 0:
                asyncio.get_running_loop().call_later(wait_s, self._transport.write, WELCOME)
            else:
                self._transport.write(WELCOME)
        elif data.startswith(b"Q"):
            self._transport.write(RESULT + READY)
        else:
            self._transport.close()


def _serve(sock: socket.socket, behaviour: Behaviour, control: "Connection[int, str]") -> None:
    async def main() -> None:
        server = _Server(behaviour)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server.protocol, sock=sock, backlog=4096)
        control.send(0)
        await loop.run_in_executor(None, control.recv)
        control.send(server.accepted)
        listener.close()

    asyncio.run(main())


class KnownServer:
    """Serves PostgreSQL's start-up (trust) as `behaviour` says, until the end of the `with` block.

    Attributes:
        accepted: connections accepted; known after the end.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._control, far = context.Pipe()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._socket.getsockname()[1]
        self._process = context.Process(target=_serve, args=(self._socket, behaviour, far), daemon=True)
        self.accepted = 0

    @property
    def url(self) -> str:
        """A URL to it."""
        return f"postgresql://u@127.0.0.1:{self.port}/d?sslmode=disable"

    def __enter__(self) -> Self:
        self._process.start()
        self._socket.close()
        assert self._control.poll(60)
        self._control.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.send("stop")
        if self._control.poll(60):
            self.accepted = self._control.recv()
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._control.close()
