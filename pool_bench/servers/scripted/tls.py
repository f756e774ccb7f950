"""The TLS of a server of known behaviour: its certificate, made for it alone, and its end of a connection.

As PostgreSQL's, it sends no session tickets, so that nothing that it says after the handshake acknowledges
the client's last message of it by the way. The key is of an elliptic curve: no signature is cheaper.

Certificate and key are in the memory of the server's process only, from which the same user can read them as
files (memfd_create(2), proc(5)): nothing is left of them, whatever ends it.
"""

import contextlib
import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Final

from pool_bench.drivers.network.tls import ALPN_PROTOCOL

_OPENSSL: Final = "openssl"
_MAKE_S: Final = 30.0
_READ_BYTES: Final = 16_384


def can_make_certificates() -> bool:
    """Whether this machine has what makes certificates: the program `openssl`, and files in memory."""
    return (
        hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir() and shutil.which(_OPENSSL) is not None
    )


def make_context(host: str) -> tuple[ssl.SSLContext, int]:
    """A server's context with a new certificate for the address `host`, and a descriptor of the certificate.

    The descriptor is open as long as the process lives: `/proc/PID/fd/N` is what clients can trust.

    Raises:
        OSError: the program `openssl` cannot be run, or fails.
    """
    request = [
        _OPENSSL,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    names = ["-days", "2", "-subj", "/CN=null server", "-addext", f"subjectAltName=IP:{host}"]
    try:
        made = subprocess.run(  # noqa: S603 - the program is a constant, and host is an address of loopback
            [*request, *names, "-keyout", "-", "-out", "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MAKE_S,
            check=True,
        ).stdout
    except subprocess.SubprocessError as error:
        raise OSError(f"{_OPENSSL} made no certificate: {error}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN_PROTOCOL])
    secret = _in_memory(made)
    context.load_cert_chain(_path(secret))
    os.close(secret)
    begin = made.index(b"-----BEGIN CERTIFICATE-----")
    return context, _in_memory(made[begin:])


def _in_memory(content: bytes) -> int:
    handle = os.memfd_create("null server")
    os.write(handle, content)
    return handle


def _path(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


class TlsEnd:
    """The server's end of one connection; it is handed bytes, and hands bytes on."""

    __slots__ = ("_incoming", "_is_open", "_outgoing", "_tls")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = False

    def take(self, data: bytes) -> bytes:
        """What the client says, in the clear, after what has arrived; b"" before the handshake is over.

        Raises:
            ssl.SSLError: it is no TLS, or the client ends it.
        """
        self._incoming.write(data)
        clear = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            while part := self._tls.read(_READ_BYTES):
                clear += part
        return clear

    def say(self, data: bytes) -> None:
        """Have it sent."""
        self._tls.write(data)

    def end(self) -> None:
        """Say that nothing more will come; the client's answer is not waited for."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def unsent(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()
