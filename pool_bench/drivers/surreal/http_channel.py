"""SurrealDB's RPC messages as HTTP requests; the protocol is `h11`."""

from typing import Final

import h11

from pool_bench.drivers.network.failures import StreamError, one_line
from pool_bench.drivers.surreal.channel import Channel
from pool_bench.drivers.surreal.rpc import kind_of_status
from pool_bench.errors import FailureKind
from pool_bench.targets.surreal import SurrealTarget

_MAX_MESSAGE_BYTES: Final = 64 << 20
_MAX_HEADER_BYTES: Final = 64 << 10


class HttpChannel(Channel):
    """Requests as HTTP requests, one after the other on one connection (RFC 9112)."""

    def __init__(self, target: SurrealTarget) -> None:
        super().__init__()
        self._target = target
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._status = 0
        self._is_page = False
        self._body = bytearray()
        # Sent along with each request once they are set.
        self._token = ""
        self._namespace: str | None = None
        self._database: str | None = None

    def signed_in(self, token: str) -> None:
        """Send `token` along."""
        self._token = token

    def selected(self, namespace: str, database: str | None) -> None:
        """Send both along."""
        self._namespace, self._database = namespace, database

    async def close(self) -> None:
        """Close the connection; HTTP has no goodbye."""
        self.on_end = None
        self._fail(StreamError(FailureKind.CLOSED, "the connection is closed"))
        self.stream.close()

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Feed the protocol and take what it makes of it."""
        try:
            self._http.receive_data(data)
            if self._waiting is None:
                raise StreamError(FailureKind.PROTOCOL, "the server answers what was not asked")
            self._read_events(arrived_ns)
        except h11.RemoteProtocolError as error:
            raise _broken(error) from error

    def lost(self, error: StreamError) -> None:
        """The stream is lost, which may be the end of an answer."""
        if error.kind is FailureKind.CLOSED and self._waiting is not None and self._status:
            try:
                self._http.receive_data(b"")
                self._read_events(self.stream.arrived_ns)
            except h11.RemoteProtocolError:
                error = StreamError(FailureKind.CLOSED, "the server closed the connection within an answer")
            except StreamError as refusal:
                error = refusal
        super().lost(error)

    def _read_events(self, arrived_ns: int) -> None:
        while True:
            match self._http.next_event():
                case h11.Response(status_code=status, headers=headers):
                    self._status = status
                    self._is_page = any(
                        name == b"content-type" and b"html" in value for name, value in headers
                    )
                case h11.Data(data=data):
                    if len(self._body) + len(data) > _MAX_MESSAGE_BYTES:
                        raise StreamError(FailureKind.PROTOCOL, "the server's answer is too long")
                    self._body += data
                case h11.EndOfMessage():
                    self._end(arrived_ns)
                    return
                case h11.InformationalResponse():
                    continue
                case _:
                    return

    def _end(self, arrived_ns: int) -> None:
        status, self._status = self._status, 0
        body = bytes(self._body)
        self._body.clear()
        if status != 200:
            words = (
                "a web page" if self._is_page else one_line(body.decode("utf-8", "replace")) if body else ""
            )
            reason = f"the server answers HTTP {status}{f': {words}' if words else ''}"
            raise StreamError(kind_of_status(status), reason)
        self._deliver(body, arrived_ns)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._fail(StreamError(FailureKind.CLOSED, "the server closes the connection after each answer"))

    def _send(self, message: bytes) -> None:
        if self.is_closed:
            return
        headers = [
            ("Host", self._target.authority),
            ("Content-Type", "application/cbor"),
            ("Accept", "application/cbor"),
            ("Content-Length", str(len(message))),
        ]
        if self._token:
            headers.append(("Authorization", f"Bearer {self._token}"))
        if self._namespace is not None:
            headers.append(("Surreal-NS", self._namespace))
        if self._database is not None:
            headers.append(("Surreal-DB", self._database))
        http = self._http
        try:
            head = http.send(h11.Request(method="POST", target=self._target.path, headers=headers))
            body = http.send(h11.Data(data=message))
            end = http.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            self._fail(StreamError(FailureKind.OTHER, f"this cannot be sent as HTTP: {error}"))
            return
        # In one piece, so that it leaves in one packet.
        self.stream.write((head or b"") + (body or b"") + (end or b""))


def _broken(error: h11.RemoteProtocolError) -> StreamError:
    return StreamError(FailureKind.PROTOCOL, f"the server breaks the HTTP protocol: {one_line(error)}")
