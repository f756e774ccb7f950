"""Connections of the official client that are held, and tell when their server ends them.

The client has a task for each WebSocket that reads from it; its end is the connection's. Over HTTP the client
opens a connection for each request, so there is none to hold.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from websockets.protocol import State

from pool_bench.drivers.surreal.client import SurrealClientConnection, SurrealClientDriver, connect_error
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.targets.surreal import SurrealTarget

if TYPE_CHECKING:
    from pool_bench.drivers.surreal.client_session import TrackingWebSocket


class HeldClientConnection(SurrealClientConnection):
    """One connection of the official client over a WebSocket."""

    __slots__ = ("_leaving",)

    def __init__(self, opened: SurrealClientConnection) -> None:
        super().__init__(opened.raw, opened.target, opened.credentials)
        self._leaving = False

    async def close(self) -> None:
        """Say goodbye and wait until the server has closed, at most five seconds."""
        self._leaving = True
        await super().close()

    def terminate(self) -> None:
        """Close the socket at once."""
        self._leaving = True
        super().terminate()

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once, in the event loop, when the connection ends without our asking."""
        from pool_bench.drivers.surreal.client_session import TrackingWebSocket

        raw = self.raw
        assert isinstance(raw, TrackingWebSocket)  # noqa: S101  # the driver opens no other
        reader = raw.recv_task

        def tell(_: object = None) -> None:
            if not self._leaving:
                lost(_ending(raw))

        if reader is None or reader.done():
            asyncio.get_running_loop().call_soon(tell)
        else:
            reader.add_done_callback(tell)


class HeldClientDriver(SurrealClientDriver):
    """Opens connections of the official client to hold.

    Raises:
        UsageError: the target asks for what the client does not do, or there is nothing to hold.
    """

    def __init__(self, target: SurrealTarget) -> None:
        check_holdable(target)
        super().__init__(target)

    async def connect(self) -> HeldClientConnection:
        """Open one connection, sign in, select namespace and database; cancelling it leaves no socket.

        Raises:
            ConnectError: it could not be opened.
        """
        return HeldClientConnection(await super().connect())


def check_holdable(target: SurrealTarget) -> None:
    """Make sure that the official client has connections to `target` that can be held.

    Raises:
        UsageError: it has none.
    """
    if not target.is_websocket:
        raise UsageError(
            f"--driver surrealdb holds nothing over {target.scheme}://: the official client opens a "
            "connection for each request"
        )


def _ending(raw: "TrackingWebSocket") -> ConnectError:
    """Why a connection has ended."""
    socket = raw.socket
    if socket is None or socket.state is not State.CLOSED:
        return ConnectError(FailureKind.CLOSED, Phase.HOLD, "the client stopped to listen")
    goodbye: Exception = socket.protocol.close_exc
    return connect_error(goodbye, Phase.HOLD)
