"""A SurrealDB server around the embedded engine; the program of the process that `server.py` starts.

WebSocket and HTTP at `/rpc`, in CBOR and JSON, with the answers, limits and status codes of a real server
(its modules `ntw` and `rpc`: https://github.com/surrealdb/surrealdb/tree/main/surrealdb/server/src); HTTP at
`/health` and `/version`; and `/status`, which says how many sockets and sessions there are. Not served: the
other HTTP routes, and what the embedded engine refuses: live queries and client-side transactions.

A socket is one session. Its messages are answered side by side, so a slow query delays nothing but itself; a
client that has gone takes its running queries along. Who may ask, and what may be asked before signing in, is
`guard.py`'s.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from aiohttp import web
from websockets.frames import CloseCode

from pool_bench.servers.surreal.client_socket import ClientSocket
from pool_bench.servers.surreal.codec import Format, RequestError, read_request
from pool_bench.servers.surreal.engine import ClientSessions, Engine, EngineError
from pool_bench.servers.surreal.guard import Bounds, Doorway, Guard

_MAX_BODY_BYTES: Final = 4 << 20
_CLOSE_WAIT_S: Final = 2.0
_BACKLOG: Final = 4096
_FORMATS: Final[dict[str, Format]] = {"application/cbor": "cbor", "application/json": "json"}


class Gateway:
    """Serves one engine.

    Args:
        engine: what answers.
        engine_version: its version, such as `3.2.4`.
        bounds: what a client may cost before it has signed in.
        names: host names, besides this machine's own, by which clients reach it.
    """

    def __init__(
        self, engine: Engine, engine_version: str, bounds: Bounds | None = None, names: Iterable[str] = ()
    ) -> None:
        self._engine = engine
        self._bounds = Bounds() if bounds is None else bounds
        self._guard = Guard(names)
        self._doorway: Doorway | None = None
        self._listening: asyncio.Server | None = None
        # Build metadata (Semantic Versioning, section 10): clients compare what stands before the plus.
        self._version = f"surrealdb-{engine_version}+embedded"
        self._server = f"embedded SurrealDB engine {engine_version} (pool-bench)"
        self._engine_version = engine_version
        self._sockets: set[ClientSocket] = set()
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/rpc", self._socket, allow_head=False)
        app.router.add_post("/rpc", self._post)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._show_version)
        app.router.add_get("/status", self._status)
        app.on_response_prepare.append(self._name_server)
        app.on_shutdown.append(self._close_sockets)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_WAIT_S
        )

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port.

        Raises:
            OSError: nobody can listen there.
        """
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - it has just been set up
        self._doorway = Doorway(self._bounds, server)
        patience_s = (self._bounds.within_s or None) if tls is not None else None
        self._listening = await asyncio.get_running_loop().create_server(
            self._doorway.admit, host, port, ssl=tls, backlog=_BACKLOG, ssl_handshake_timeout=patience_s
        )
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Say goodbye to all sockets and stop listening."""
        if self._listening is not None:
            self._listening.close()
        if self._doorway is not None:
            self._doorway.close()
        await self._runner.cleanup()

    async def _name_server(self, _request: web.BaseRequest, response: web.StreamResponse) -> None:
        response.headers["Server"] = self._server

    async def _close_sockets(self, _app: web.Application) -> None:
        goodbyes = [
            socket.say_goodbye(CloseCode.GOING_AWAY, "shutting down", _CLOSE_WAIT_S)
            for socket in self._sockets
        ]
        await asyncio.gather(*goodbyes, return_exceptions=True)

    async def _health(self, request: web.Request) -> web.Response:
        return self._guard.refusal(request) or web.Response()

    async def _show_version(self, request: web.Request) -> web.Response:
        return self._guard.refusal(request) or web.Response(text=self._version)

    async def _status(self, request: web.Request) -> web.Response:
        return self._guard.refusal(request) or web.json_response(
            {
                "engine": self._engine_version,
                "sockets": len(self._sockets),
                "sessions": await self._engine.session_count(),
            }
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        foreign = self._guard.refusal(request)
        if foreign is not None:
            return foreign
        handshake = _Handshake(protocols=("cbor", "json"), compress=False)
        sessions = ClientSessions(self._engine, self._version)
        socket: ClientSocket | None = None
        try:
            refusal = await _begin(sessions, request)
            if refusal is not None:
                return refusal
            await handshake.prepare(request)
            if request.transport is not None:
                form: Format = "cbor" if handshake.ws_protocol == "cbor" else "json"
                socket = self._take_over(request.transport, request.protocol, sessions, form)
                self._sockets.add(socket)
                await socket.wait_until_ended()
        finally:
            if socket is not None:
                self._sockets.discard(socket)
            await sessions.close()
        return handshake

    def _take_over(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.BaseProtocol,
        sessions: ClientSessions,
        form: Format,
    ) -> ClientSocket:
        doorway = self._doorway
        assert doorway is not None  # noqa: S101 - the client came through it
        socket = ClientSocket(
            transport, sessions, form, protocol, self._bounds, lambda: doorway.let_go(protocol)
        )
        late = f"not signed in within {self._bounds.within_s:g} s"
        doorway.close_by(protocol, lambda: socket.refuse(late))
        return socket

    async def _post(self, request: web.Request) -> web.StreamResponse:
        foreign = self._guard.refusal(request)
        if foreign is not None:
            return foreign
        form = _FORMATS.get(request.content_type)
        accept = _FORMATS.get(request.headers.get("Accept", "").partition(";")[0].strip(), form)
        if form is None or accept != form:
            return _refusal(415, "Unsupported media type", "The specified media type is unsupported")
        sessions = ClientSessions(self._engine, self._version)
        try:
            refusal = await _begin(sessions, request)
            if refusal is not None:
                return refusal
            if sessions.signed_in:
                self._let_stay(request)
                body = await request.read()
            else:
                # Its time is the doorway's; a session is one request's here, so nothing adds up.
                body = await request.clone(client_max_size=self._bounds.message_bytes).read()
            try:
                read_request(body, form)
            except RequestError as error:
                return _refusal(400, "Request problems detected", str(error))
            answer = await sessions.answer(body, form)
            if sessions.signed_in:
                self._let_stay(request)
            return web.Response(body=answer, content_type=f"application/{form}")
        finally:
            await sessions.close()

    def _let_stay(self, request: web.Request) -> None:
        if self._doorway is not None:
            self._doorway.let_go(request.protocol)


class _Handshake(web.WebSocketResponse):
    """Turns HTTP into a WebSocket, and leaves the WebSocket to somebody else."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the goodbyes have been said."""


async def _begin(sessions: ClientSessions, request: web.Request) -> web.Response | None:
    """Open a client's session as its headers ask for; the refusal, if it is to be refused."""
    await sessions.open()
    headers = request.headers
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() == "bearer":
            await sessions.authenticate(secret.strip())
        elif scheme.lower() == "basic":
            user, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
            level = {"ns": headers.get("Surreal-Auth-NS"), "db": headers.get("Surreal-Auth-DB")}
            named = {key: value for key, value in level.items() if value is not None}
            await sessions.sign_in({"user": user, "pass": password, **named})
    except (EngineError, binascii.Error, UnicodeDecodeError):
        return web.Response(status=401, text="There was a problem with authentication")
    namespace, database = headers.get("Surreal-NS"), headers.get("Surreal-DB")
    if namespace is not None:
        try:
            await sessions.use(namespace, database)
        except EngineError as error:
            return _refusal(400, "Request problems detected", str(error))
    return None


def _refusal(status: int, details: str, information: str) -> web.Response:
    content = {"code": status, "details": details, "information": information}
    return web.json_response(content, status=status)


async def run_gateway(
    *,
    host: str,
    port: int,
    store: str,
    user: str,
    password: str,
    tls: ssl.SSLContext | None,
    bounds: Bounds,
    names: Iterable[str],
    on_ready: Callable[[int, str], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: the address to listen on.
        port: its port; 0 is any.
        store: `mem://`, or `surrealkv://` and a directory.
        user: the root user to create, unless the store has one.
        password: of that user.
        tls: for `wss://` and `https://`; None serves `ws://` and `http://`.
        bounds: what a client may cost before it has signed in.
        names: host names, besides this machine's own, by which clients reach it.
        on_ready: called once with the port and the engine's version, when clients are answered.

    Raises:
        OSError: nobody can listen there.
        RuntimeError: the store cannot be opened.
        EngineError: the root user cannot be created.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(store)
    try:
        await engine.define_root(user, password)
        version = await engine.version()
        gateway = Gateway(engine, version, bounds, {host, *names})
        try:
            on_ready(await gateway.start(host, port, tls), version)
            await stop.wait()
        finally:
            await gateway.stop()
    finally:
        await engine.close()


def main() -> None:
    """Serve as the file that the first argument names says, and remove that file: it has the password."""
    file = Path(sys.argv[1])
    config = json.loads(file.read_bytes())
    file.unlink()
    # As many threads as a server has (SURREAL_RUNTIME_WORKER_THREADS): with one for each of two cores, two
    # long queries would stop everything.
    os.environ.setdefault("TOKIO_WORKER_THREADS", str(max(4, os.cpu_count() or 1)))
    if hasattr(os, "SCHED_BATCH"):
        # The engine hands each answer to a thread that has to take the interpreter's lock. Left to preempt
        # whoever has it as soon as they wake, those threads and the event loop's stand in each other's way.
        # A thread inherits what its creator has (sched(7)).
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    def on_ready(port: int, version: str) -> None:
        print(f"[{os.getpid()}] embedded SurrealDB engine {version} listens on port {port}", flush=True)

    status = 1
    try:
        tls = _tls_of(config["certificate"], config["key"])
        with asyncio.Runner(loop_factory=_new_loop()) as runner:
            runner.run(
                run_gateway(
                    host=config["host"],
                    port=config["port"],
                    store=config["store"],
                    user=config["user"],
                    password=config["password"],
                    tls=tls,
                    bounds=Bounds(within_s=config["sign_in_within_s"]),
                    names=config["allowed_hosts"],
                    on_ready=on_ready,
                )
            )
        status = 0
    except (OSError, RuntimeError, EngineError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # A thread of the engine that wakes while the interpreter is being taken down aborts the process.
        os._exit(status)


def _tls_of(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What serves `wss://` and `https://`; None without a certificate.

    Raises:
        OSError: the files are unusable; names them.
    """
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        # OpenSSL does not say which of the two it was.
        raise OSError(f"certificate {certificate}, key {key}: {type(error).__name__}: {error}") from None
    return context


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
