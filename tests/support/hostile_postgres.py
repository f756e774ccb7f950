"""A real server on loopback that does to each connection what a script says, in threads of its own.

A script is a sequence of steps; a step is a function of the `Peer`. A step that finds the client gone
ends the script quietly.
"""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from pool_bench.pgwire.scram import derive_keys

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PATIENCE_S = 20.0


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message of the protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


def auth(code: int, body: bytes = b"") -> bytes:
    """An authentication request."""
    return message(b"R", struct.pack("!i", code) + body)


def error(sqlstate: str, text: str, severity: str = "FATAL") -> bytes:
    """An ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    return message(b"E", b"".join(f"{k}{v}\0".encode() for k, v in fields.items()) + b"\0")


def parameter(name: str, value: str) -> bytes:
    """A ParameterStatus."""
    return message(b"S", f"{name}\0{value}\0".encode())


OK = auth(0)
KEY = message(b"K", struct.pack("!ii", 4711, 42))
READY = message(b"Z", b"I")
WELCOME = OK + parameter("server_version", "17.0") + KEY + READY
NOTICE = message(b"N", b"SNOTICE\0C00000\0Mlook at me\0\0")
RESULT = (
    message(b"T", struct.pack("!h", 0)) + message(b"D", struct.pack("!h", 0)) + message(b"C", b"SELECT 1\0")
)


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.startup = b""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            ConnectionError: the client has gone.
        """
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise ConnectionAbortedError("the client has gone")
            data += more
        return data

    def read_message(self) -> tuple[bytes, bytes]:
        """Type and payload of the client's next message."""
        kind = self.read(1)
        return kind, self.read(struct.unpack("!i", self.read(4))[0] - 4)


Step = Callable[[Peer], None]
Script = Sequence[Step]


def read_startup(peer: Peer) -> None:
    """Read the StartupMessage, or an SSLRequest."""
    length = peer.read(4)
    peer.startup = length + peer.read(struct.unpack("!i", length)[0] - 4)


def read_message(peer: Peer) -> None:
    """Read one message and forget it."""
    peer.read_message()


def read_some(peer: Peer) -> None:
    """Read whatever comes first."""
    peer.read(1)


def send(data: bytes) -> Step:
    """Send bytes at once."""
    return lambda peer: peer.sock.sendall(data)


def send_byte_by_byte(data: bytes) -> Step:
    """Send bytes in packets of one."""

    def step(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            peer.sock.sendall(data[index : index + 1])

    return step


def flood(make: Callable[[int], bytes]) -> Step:
    """Send `make(0)`, `make(1)`, ... until the client has gone."""

    def step(peer: Peer) -> None:
        count = 0
        while True:
            peer.sock.sendall(b"".join(map(make, range(count, count + 500))))
            count += 500

    return step


def stall(peer: Peer) -> None:
    """Say nothing more; wait until the client has gone."""
    while peer.sock.recv(65536):
        continue


def never_close(peer: Peer) -> None:
    """Stay although the client has ended its side; only what is sent tells that it has closed."""
    stall(peer)
    while True:
        peer.sock.sendall(b"\0")
        time.sleep(0.02)


def hang_up(peer: Peer) -> None:
    """Close politely (FIN)."""
    peer.sock.close()


def reset(peer: Peer) -> None:
    """Close rudely (RST)."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


def start_tls(context: ssl.SSLContext) -> Step:
    """Turn to TLS."""

    def step(peer: Peer) -> None:
        peer.sock = context.wrap_socket(peer.sock, server_side=True)

    return step


def scram(
    password: str,
    *,
    lie: str | None = None,
    salt: bytes | None = None,
    mechanisms: bytes = b"SCRAM-SHA-256\0\0",
) -> Step:
    """Authenticate by SCRAM-SHA-256.

    Args:
        lie: None, "signature", "nonce" or "no proof".
        salt: None takes a new one for each connection.
    """

    def step(peer: Peer) -> None:
        peer.sock.sendall(auth(10, mechanisms))
        _, payload = peer.read_message()
        bare = payload.partition(b"\0")[2][4:].split(b",", 2)[2]
        if lie == "no proof":
            peer.sock.sendall(WELCOME)
            return stall(peer)
        nonce = b"another" if lie == "nonce" else bare.rpartition(b"r=")[2] + b"server"
        used = os.urandom(16) if salt is None else salt
        challenge = b"r=" + nonce + b",s=" + base64.b64encode(used) + b",i=4096"
        peer.sock.sendall(auth(11, challenge))
        _, final = peer.read_message()
        keys = derive_keys(password.encode(), used, 4096)
        signed = bare + b"," + challenge + b"," + final.rpartition(b",p=")[0]
        proof = base64.b64decode(final.rpartition(b",p=")[2])
        mask = hmac.digest(keys.stored, signed, "sha256")
        client_key = bytes(a ^ b for a, b in zip(proof, mask, strict=True))
        if hashlib.sha256(client_key).digest() != keys.stored:
            peer.sock.sendall(error("28P01", "password authentication failed"))
            return hang_up(peer)
        signature = hmac.digest(keys.server, signed, "sha256")
        if lie == "signature":
            signature = signature[::-1]
        return peer.sock.sendall(auth(12, b"v=" + base64.b64encode(signature)))

    return step


class HostileServer:
    """Serves a script, or the n-th of several to the n-th connection (the last one from then on)."""

    def __init__(self, *scripts: Script, backlog: int = 512) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.errors: list[Exception] = []
        self.peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing = True
        # A blocked accept does not notice that its socket is closed.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_PATIENCE_S)
        self._listener.close()
        for peer in self.peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE_S)
            assert not thread.is_alive()
        if exc_info[0] is None:
            assert self.errors == []

    def url(self, options: str = "sslmode=disable", user: str = "u", host: str = "127.0.0.1") -> str:
        """A URL to it."""
        return f"postgresql://{user}@{host}:{self.port}/d?{options}"

    def count_accepted(self, least: int) -> int:
        """How many connections it has accepted; `least` are waited for, as it may be late to notice."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.accepted < least and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.accepted

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._closing:
                sock.close()
                return
            peer = Peer(sock, self.accepted)
            self.accepted += 1
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            for step in self._scripts[min(peer.number, len(self._scripts) - 1)]:
                step(peer)
                if peer.sock.fileno() < 0:
                    return
        except (OSError, ssl.SSLError):
            return  # the client has gone
        except Exception as error:
            self.errors.append(error)
        finally:
            peer.sock.close()


# A well-behaved server's whole conversation: it closes once it has read Terminate.
POLITE: Script = (read_startup, send(WELCOME), read_message)
POLITE_QUERY: Script = (read_startup, send(WELCOME), read_message, send(RESULT + READY), read_message)
