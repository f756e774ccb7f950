"""TLS: contexts as libpq makes them from `sslmode` and its files, and as SurrealDB's clients do; the channel
binding of SCRAM.
"""

import errno
import hashlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any, Final

from pool_bench.errors import UsageError
from pool_bench.targets.postgres import PostgresTarget, TlsVersion
from pool_bench.targets.surreal import SurrealTarget

ALPN_PROTOCOL: Final = "postgresql"

_VERSIONS: Final[dict[TlsVersion, ssl.TLSVersion]] = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}

# DER object identifiers that name a hash, alone or in a signature algorithm. RFC 5929, section 4.1
# puts SHA-256 in the place of MD5 and SHA-1.
_HASHES: Final = {
    bytes.fromhex(oid): name
    for name, oids in {
        "sha256": (
            "2a864886f70d010104",  # md5WithRSAEncryption
            "2a864886f70d010105",  # sha1WithRSAEncryption
            "2a8648ce3d0401",  # ecdsa-with-SHA1
            "2b0e03021a",  # sha1
            "2a864886f70d01010b",  # sha256WithRSAEncryption
            "2a8648ce3d040302",  # ecdsa-with-SHA256
            "608648016503040201",  # sha256
        ),
        "sha384": ("2a864886f70d01010c", "2a8648ce3d040303", "608648016503040202"),
        "sha512": ("2a864886f70d01010d", "2a8648ce3d040304", "608648016503040203"),
        "sha224": ("2a864886f70d01010e", "2a8648ce3d040301", "608648016503040204"),
    }.items()
    for oid in oids
}
_RSASSA_PSS: Final = bytes.fromhex("2a864886f70d01010a")


def default_file(name: str) -> str | None:
    """A file in `~/.postgresql`, which libpq uses where none is named; None where there is none."""
    path = Path("~/.postgresql").expanduser() / name
    return str(path) if path.is_file() else None


def postgres_context(target: PostgresTarget) -> ssl.SSLContext:
    """The context for all TLS connections to `target`; call it once, it reads files.

    As in libpq, `require` checks the certificate where a root certificate file is present, and
    files in `~/.postgresql` are used where none are named.

    Raises:
        UsageError: a certificate or key file is missing or unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = _VERSIONS[target.ssl_min_protocol_version]
    if target.ssl_max_protocol_version is not None:
        context.maximum_version = _VERSIONS[target.ssl_max_protocol_version]
    if target.sslnegotiation == "direct":
        context.set_alpn_protocols([ALPN_PROTOCOL])
    root = target.sslrootcert or default_file("root.crt")
    verify = target.sslmode in ("verify-ca", "verify-full")
    if verify and root is None:
        raise UsageError(f"sslmode={target.sslmode} needs sslrootcert=FILE (or ~/.postgresql/root.crt)")
    if verify or (target.sslmode == "require" and root is not None):
        _load_root(context, str(root))
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = target.sslmode == "verify-full"
    _load_client_certificate(context, target)
    return context


def surreal_context(target: SurrealTarget) -> ssl.SSLContext:
    """The context for all TLS connections to `target`; call it once, it reads files.

    Raises:
        UsageError: the CA file is unusable.
    """
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot read the CA file {target.ca_file}: {_reason(error)}") from None
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_root(context: ssl.SSLContext, root: str) -> None:
    if root == "system":
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    try:
        context.load_verify_locations(root)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot read sslrootcert {root}: {_reason(error)}") from None


def _load_client_certificate(context: ssl.SSLContext, target: PostgresTarget) -> None:
    certificate = target.sslcert or default_file("postgresql.crt")
    if certificate is None:
        return
    key = target.sslkey or default_file("postgresql.key")
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password=target.sslpassword or "")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use sslcert {certificate} with its key: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return error.strerror or str(error)


class _Socket(ssl.SSLSocket):
    """One that closes itself where the peer resets it while it is being made.

    `ssl` itself leaves it, and with it the descriptor, to the garbage collector.
    """

    def getpeername(self) -> Any:
        """As every socket's, but nothing half-made is left when there is no peer any more."""
        try:
            return super().getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None


def wrap(context: ssl.SSLContext, sock: socket.SocketType, name: str | None) -> ssl.SSLSocket:
    """A TLS socket in the place of `sock`, before its handshake; `sock` gives up its descriptor.

    Nagle's algorithm (RFC 896) is switched off: in TLS 1.3 the client speaks twice in succession, Finished
    and then its first message (RFC 8446, section 2), and with it the second one would wait for the server's
    delayed acknowledgement of the first, some 40 ms on Linux.

    Raises:
        OSError: `sock` is not connected (any more); it owns its descriptor, or the descriptor is closed.
        ssl.SSLError: `name` cannot stand in a ClientHello; likewise.
    """
    # On a socket that is no longer connected, wrapping would fail half-way; this raises ENOTCONN before.
    sock.getpeername()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context.sslsocket_class = _Socket  # for one whose peer goes in this very moment
    try:
        return context.wrap_socket(
            sock,  # type: ignore[arg-type]  # any socket object serves
            server_hostname=name,
            do_handshake_on_connect=False,
        )
    except ValueError as error:
        raise ssl.SSLError(0, f"{name!r} cannot be asked for by TLS: {error}") from error


def server_end_point(certificate: bytes) -> bytes:
    """The `tls-server-end-point` channel binding of a DER certificate (RFC 5929, section 4).

    Returns:
        Its hash, or b"" where the signature algorithm names none (as Ed25519).
    """
    try:
        name = _signature_hash(certificate)
    except IndexError:
        return b""
    return hashlib.new(name, certificate).digest() if name else b""


def _signature_hash(certificate: bytes) -> str | None:
    # Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature }
    start, _ = _der_content(certificate, 0)
    _, tbs_end = _der_content(certificate, start)
    algorithm_start, algorithm_end = _der_content(certificate, tbs_end)
    oid_start, oid_end = _der_content(certificate, algorithm_start)
    oid = certificate[oid_start:oid_end]
    if oid != _RSASSA_PSS:
        return _HASHES.get(oid)
    # RSASSA-PSS names its hash in the parameters; without any it is SHA-1, replaced by SHA-256.
    parameters = certificate[oid_end:algorithm_end]
    places = [(parameters.find(known), name) for known, name in _HASHES.items() if known in parameters]
    return min(places)[1] if places else "sha256"


def _der_content(data: bytes, position: int) -> tuple[int, int]:
    """Start and end of the content of the DER element at `position`."""
    length = data[position + 1]
    start = position + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    return start, start + length
