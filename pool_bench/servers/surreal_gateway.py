"""A SurrealDB server around the embedded engine; the program of the process that `surreal.py` starts.

WebSocket and HTTP at `/rpc`, in CBOR and JSON, with the answers, limits and status codes of a real server
(its modules `ntw` and `rpc`: https://github.com/surrealdb/surrealdb/tree/main/surrealdb/server/src); HTTP at
`/health` and `/version`; and `/status`, which says how many sockets and sessions there are. Not served: the
other HTTP routes, and what the embedded engine refuses: live queries and client-side transactions.

A socket is one session. Its messages are answered side by side, so a slow query delays nothing but itself; a
client that has gone takes its running queries along.
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
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from websockets.frames import CloseCode

from pool_bench.servers.surreal_codec import Format, RequestError, read_request
from pool_bench.servers.surreal_sessions import ClientSessions, Engine, EngineError
from pool_bench.servers.surreal_socket import ClientSocket

_MAX_BODY_BYTES: Final = 4 << 20
_CLOSE_WAIT_S: Final = 2.0
_BACKLOG: Final = 4096
_FORMATS: Final[dict[str, Format]] = {"application/cbor": "cbor", "application/json": "json"}


class Gateway:
    """Serves one engine.

    Args:
        engine: what answers.
        engine_version: its version, such as `3.2.4`.
    """

    def __init__(self, engine: Engine, engine_version: str) -> None:
        self._engine = engine
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
        site = web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=_BACKLOG)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Say goodbye to all sockets and stop listening."""
        await self._runner.cleanup()

    async def _name_server(self, _request: web.BaseRequest, response: web.StreamResponse) -> None:
        response.headers["Server"] = self._server

    async def _close_sockets(self, _app: web.Application) -> None:
        goodbyes = [
            socket.say_goodbye(CloseCode.GOING_AWAY, "shutting down", _CLOSE_WAIT_S)
            for socket in self._sockets
        ]
        await asyncio.gather(*goodbyes, return_exceptions=True)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _show_version(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._version)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "engine": self._engine_version,
                "sockets": len(self._sockets),
                "sessions": await self._engine.session_count(),
            }
        )

    async def _socket(self, request: web.Request) -> web.StreamResponse:
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
                socket = ClientSocket(request.transport, sessions, form, request.protocol)
                self._sockets.add(socket)
                await socket.wait_until_ended()
        finally:
            if socket is not None:
                self._sockets.discard(socket)
            await sessions.close()
        return handshake

    async def _post(self, request: web.Request) -> web.StreamResponse:
        form = _FORMATS.get(request.content_type)
        accept = _FORMATS.get(request.headers.get("Accept", "").partition(";")[0].strip(), form)
        if form is None or accept != form:
            return _refusal(415, "Unsupported media type", "The specified media type is unsupported")
        sessions = ClientSessions(self._engine, self._version)
        try:
            refusal = await _begin(sessions, request)
            if refusal is not None:
                return refusal
            body = await request.read()
            try:
                read_request(body, form)
            except RequestError as error:
                return _refusal(400, "Request problems detected", str(error))
            answer = await sessions.answer(body, form)
            return web.Response(body=answer, content_type=f"application/{form}")
        finally:
            await sessions.close()


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
        gateway = Gateway(engine, version)
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
