"""Who may talk to the embedded SurrealDB's server, and what a client may cost before it has signed in.

A page in a browser reaches whatever listens on its machine's loopback. What it sends by itself has the page's
`Origin`; where the page's own name was pointed at this machine (DNS rebinding), the name stands in `Host`.
Neither is ours, so both are refused; programs send no `Origin`, and the name or address they connected to.
https://datatracker.ietf.org/doc/html/rfc9110#section-7.2 https://datatracker.ietf.org/doc/html/rfc6454
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<literal>[0-9a-f:.]+)\]|(?P<name>[^\[\]:/@\s]+))(?::\d{1,5})?", re.IGNORECASE
)
_KNOWN_HOSTS: Final = 64
_ANSWER_WAIT_S: Final = 1.0
_TURNED_AWAY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a client may cost before it has signed in.

    Attributes:
        message_bytes: the longest message, of a WebSocket or in a body, and the most that is kept of one.
        in_flight: messages of one WebSocket that are answered at the same time.
        within_s: seconds until a connection is closed that has not signed in; 0 is never, and then
            `total_bytes` and `clients` do not hold either.
        total_bytes: of all messages of one WebSocket together; what they set is kept in its session.
        clients: connections at a time that have not signed in.
    """

    message_bytes: int = 64 << 10
    in_flight: int = 8
    within_s: float = 0.0
    total_bytes: int = 1 << 20
    clients: int = 4096


class Guard:
    """Knows by which names this server is reached.

    Args:
        names: host names that are its own, besides this machine's and `localhost`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        own = {"localhost", socket.gethostname(), *names}
        self._names: Final = frozenset(_plain(name) for name in own if name)
        self._is_own = lru_cache(_KNOWN_HOSTS)(self._judge)

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that came by a page of somebody else's; None to all others."""
        headers = request.headers
        host, origin = headers.get("Host"), headers.get("Origin")
        if host is not None:
            here = None if request.transport is None else request.transport.get_extra_info("sockname")
            if here is not None and not self._is_own(host, str(here[0])):
                return web.Response(status=403, text="This server is not reached by that name (Host)\n")
        if origin is not None and not _is_origin_of(host, origin):
            return web.Response(status=403, text="Pages of other servers are not answered (Origin)\n")
        return None

    def _judge(self, host: str, here: str) -> bool:
        authority = _AUTHORITY.fullmatch(host)
        if authority is None:
            return False
        name = authority["literal"] or authority["name"]
        named, local = _address(name), _address(here)
        if named is None:
            return _plain(name) in self._names
        return named == local or (named.is_loopback and local is not None and local.is_loopback)


class Doorway:
    """Lets connections in: so many that have not signed in at a time, and those for so long.

    Args:
        bounds: what holds.
        server: serves the connections.
    """

    def __init__(self, bounds: Bounds, server: web.Server) -> None:
        self._bounds: Final = bounds
        self._server: Final = server
        # What closes each that has not signed in, and when it came, in the loop's seconds; the oldest first.
        self._strangers: dict[asyncio.BaseProtocol, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that has just been accepted."""
        if not self._bounds.within_s:
            return self._server()
        if len(self._strangers) >= self._bounds.clients:
            return _TurnedAway()
        loop = asyncio.get_running_loop()
        visitor = _Visitor(self._server, loop, self.let_go)
        self._strangers[visitor] = loop.time(), visitor.force_close
        if self._timer is None:
            self._timer = loop.call_later(self._bounds.within_s, self._close_the_late)
        return visitor

    def close_by(self, visitor: asyncio.BaseProtocol, close: Callable[[], None]) -> None:
        """Close it in this way where it is late; with anyone who need not hurry nothing happens."""
        stranger = self._strangers.get(visitor)
        if stranger is not None:
            self._strangers[visitor] = stranger[0], close

    def let_go(self, visitor: asyncio.BaseProtocol) -> None:
        """It has signed in, or gone."""
        self._strangers.pop(visitor, None)

    def close(self) -> None:
        """Watch the time no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _close_the_late(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for visitor, (came_s, close) in tuple(self._strangers.items()):
            due_s = came_s + self._bounds.within_s
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._close_the_late)
                return
            del self._strangers[visitor]
            close()


class _Visitor(RequestHandler):
    """One connection, which says when it is lost."""

    __slots__ = ("_lost",)

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[asyncio.BaseProtocol], None],
    ) -> None:
        super().__init__(server, loop=loop)
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost(self)
        super().connection_lost(exc)


class _TurnedAway(asyncio.Protocol):
    """One too many: gets an answer if it asks at once. What was not read would make the close a reset."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        asyncio.get_running_loop().call_later(_ANSWER_WAIT_S, transport.close)

    def data_received(self, data: bytes) -> None:
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(_TURNED_AWAY)
        self._transport.close()


def _is_origin_of(host: str | None, origin: str) -> bool:
    """Whether a page with this origin came from the server that it names in `Host`; `null` never did."""
    scheme, separator, authority = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and host is not None and authority == host


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _plain(name: str) -> str:
    return name.casefold().removesuffix(".")
