"""A TCP proxy that makes the faults of a network, switchable while connections exist.

While it refuses, a second socket that is bound but does not listen keeps the port: the kernel answers
ECONNREFUSED and nobody else can be given the number. Accepting happens in a callback of the event loop, so
that switching the mode is done when the call returns; bytes move in the flows of each `Link`.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import perf_counter_ns
from typing import Final, Self
from urllib.parse import quote, urlencode

from pool_bench.faults.conditions import PASS, Conditions, Cut, Mode
from pool_bench.faults.link import Link, reset_on_close

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 1024
# Accepted at one go, lest a storm keep bytes from moving.
_ACCEPTS_PER_TURN: Final = 64


@dataclass(slots=True)
class Counts:
    """What a proxy has seen since it began or since `FaultProxy.clear_counts`.

    Connections that the kernel refused are not seen by anyone; `Mode.RESET` refuses and counts.

    Attributes:
        accepted: connections that came in, those reset at once included.
        finished: of those that exist or existed, how many are over.
        peak_open: most connections at a time.
        accepts_ns: when each came in, in perf_counter_ns.
        to_server_bytes: handed on to the server on connections that are over.
        to_client_bytes: handed on to the client on connections that are over.
    """

    accepted: int = 0
    finished: int = 0
    peak_open: int = 0
    accepts_ns: list[int] = field(default_factory=list)
    to_server_bytes: int = 0
    to_client_bytes: int = 0

    def peak_accepts(self, window_s: float) -> int:
        """Most connections that came in within any `window_s` seconds."""
        window_ns, first, peak = int(window_s * 1e9), 0, 0
        for last, now_ns in enumerate(self.accepts_ns):
            while self.accepts_ns[first] <= now_ns - window_ns:
                first += 1
            peak = max(peak, last - first + 1)
        return peak


class FaultProxy:
    """Passes TCP connections on to one server, and spoils them as told.

    Use it as an async context manager, or call `start` and `close`. All of it belongs to the event loop that
    started it; `ThreadedProxy` is for clients that block theirs.

    Args:
        upstream_host: the server's address.
        upstream_port: its port.
        conditions: how to begin.
        port: where to listen; 0 takes a free one.
        host: the address to listen on, one of loopback.

    Attributes:
        counts: what came in and went through.
        conditions: what happens to it.

    Raises:
        ValueError: `host` is no address of loopback.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        conditions: Conditions = PASS,
        port: int = 0,
        host: str = LOOPBACK,
    ) -> None:
        address = ip_address(host)
        if not address.is_loopback:
            raise ValueError(f"host must be an address of loopback, not {host}")
        self._family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._host = host
        self._upstream = (upstream_host, upstream_port)
        self._wanted_port = port
        self._guard: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._links: dict[int, Link] = {}
        self._changed: list[asyncio.Future[None]] = []
        self._accepted = 0
        self.conditions = conditions
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def start(self) -> None:
        """Bind the port, and listen unless the conditions say otherwise.

        Raises:
            OSError: the port is taken.
        """
        self._guard = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._guard.bind((self._host, self._wanted_port))
            self.set(self.conditions)
        except BaseException:
            self._guard.close()
            raise

    async def close(self) -> None:
        """Stop listening, cut what is open, and wait until it is gone; safe to call again."""
        self._stop_listening()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        links = list(self._links.values())
        for link in links:
            link.cut()
        for link in links:
            await link.finished

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._host

    @property
    def port(self) -> int:
        """The port that it listens on, or refuses on.

        Raises:
            RuntimeError: it is not running.
        """
        if self._guard is None:
            raise RuntimeError("the proxy is not running")
        port: int = self._guard.getsockname()[1]
        return port

    def url(self, dbname: str = "postgres", *, user: str = "postgres", **parameters: str) -> str:
        """A PostgreSQL URL that leads through the proxy, without TLS unless `sslmode` says otherwise."""
        query = urlencode({"sslmode": "disable", **parameters}, quote_via=quote)
        host = f"[{self.host}]" if self._family == socket.AF_INET6 else self.host
        return f"postgresql://{quote(user, safe='')}@{host}:{self.port}/{quote(dbname, safe='')}?{query}"

    @property
    def links(self) -> list[Link]:
        """The connections that are open, the oldest first."""
        return list(self._links.values())

    def set(self, conditions: Conditions) -> None:
        """Treat all connections so from now on.

        Raises:
            OSError: it cannot listen again.
        """
        self.conditions = conditions
        if conditions.mode is Mode.REFUSE:
            self._stop_listening()
        else:
            self._listen()
        for link in self.links:
            link.apply(conditions)

    def point_at(self, host: str, port: int) -> None:
        """Take new connections to another server; those that exist stay where they are."""
        self._upstream = (host, port)

    def cut(self, how: Cut = Cut.RST) -> int:
        """Cut all connections that are open; returns how many."""
        links = self.links
        for link in links:
            link.cut(how)
        return len(links)

    def clear_counts(self) -> None:
        """Count from here on; what is open counts as peak."""
        self.counts = Counts(peak_open=len(self._links))

    async def wait_until(self, holds: Callable[["FaultProxy"], bool]) -> None:
        """Wait for what changes when a connection comes or ends; the caller bounds the time."""
        while not holds(self):
            changed = asyncio.get_running_loop().create_future()
            self._changed.append(changed)
            await changed

    def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, _address = listener.accept()
            except OSError:
                return  # none left, or none to be had
            number = self._accepted
            self._accepted += 1
            self.counts.accepted += 1
            self.counts.accepts_ns.append(perf_counter_ns())
            if self.conditions.mode is Mode.RESET:
                reset_on_close(sock)
                sock.close()
                self.counts.finished += 1
            else:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links[number] = Link(
                    number, sock, self.conditions, lambda: self._upstream, self._finish
                )
                self.counts.peak_open = max(self.counts.peak_open, len(self._links))
            self._tell()

    def _finish(self, link: Link) -> None:
        del self._links[link.number]
        self.counts.finished += 1
        to_server, to_client = link.moved
        self.counts.to_server_bytes += to_server
        self.counts.to_client_bytes += to_client
        self._tell()

    def _tell(self) -> None:
        waiting, self._changed = self._changed, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)
