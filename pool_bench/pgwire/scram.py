"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, client side, without I/O.

RFC 5802 (SCRAM), RFC 7677 (SHA-256), RFC 5929 (tls-server-end-point), RFC 4013 (SASLprep), and
https://www.postgresql.org/docs/current/sasl-authentication.html for what PostgreSQL makes of them.
"""

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from typing import Final

from pool_bench.pgwire.errors import AuthenticationError

SCRAM_SHA_256: Final = "SCRAM-SHA-256"
SCRAM_SHA_256_PLUS: Final = "SCRAM-SHA-256-PLUS"

# PostgreSQL's default is 4,096; a server that asks for so many that PBKDF2 runs for seconds is
# attacking, since nothing can interrupt it.
MAX_ITERATIONS: Final = 1_000_000
_MAX_CACHED_KEYS: Final = 1024


def saslprep(password: str) -> bytes:
    """Normalise a password as PostgreSQL does: by SASLprep, or left alone where that forbids it.

    Returns:
        UTF-8 bytes.
    """
    if password.isascii() and password.isprintable():
        return password.encode("ascii")
    try:
        return _saslprep(password).encode("utf-8")
    except UnicodeError:
        return raw_utf8(password)


def raw_utf8(text: str) -> bytes:
    """Bytes of `text` as they came from the operating system, surrogate escapes included."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _saslprep(text: str) -> str:
    import stringprep as sp
    import unicodedata

    mapped = "".join(" " if sp.in_table_c12(c) else c for c in text if not sp.in_table_b1(c))
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal:
        raise UnicodeError("nothing is left of it")
    forbidden = (
        sp.in_table_a1,
        sp.in_table_c12,
        sp.in_table_c21_c22,
        sp.in_table_c3,
        sp.in_table_c4,
        sp.in_table_c5,
        sp.in_table_c6,
        sp.in_table_c7,
        sp.in_table_c8,
        sp.in_table_c9,
    )
    if any(table(c) for c in normal for table in forbidden):
        raise UnicodeError("prohibited character")
    # RFC 3454, section 6: right-to-left text must be so from end to end.
    if any(map(sp.in_table_d1, normal)) and (
        any(map(sp.in_table_d2, normal)) or not (sp.in_table_d1(normal[0]) and sp.in_table_d1(normal[-1]))
    ):
        raise UnicodeError("mixed directions")
    return normal


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a password becomes with one salt and iteration count."""

    client: bytes = field(repr=False)
    stored: bytes = field(repr=False)
    server: bytes = field(repr=False)


def derive_keys(password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """PBKDF2 and the three keys of RFC 5802, section 3; milliseconds of CPU time."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(client, hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256"))


class ScramKeyCache:
    """Remembers derived keys per (password, salt, iterations), as poolers do, the last 1,024 of them."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[tuple[bytes, bytes, int], ScramKeys] = {}

    def __repr__(self) -> str:
        return f"ScramKeyCache({len(self._keys)} keys)"

    def keys(self, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
        """Derived keys, from the cache where they are in it."""
        key = (password, salt, iterations)
        keys = self._keys.get(key)
        if keys is None:
            if len(self._keys) >= _MAX_CACHED_KEYS:
                del self._keys[next(iter(self._keys))]
            keys = self._keys[key] = derive_keys(password, salt, iterations)
        return keys


@dataclass(frozen=True, slots=True)
class ChannelBinding:
    """How the exchange is tied to the TLS channel it runs in.

    Attributes:
        header: GS2 header: `n,,` without binding, `y,,` where only the server lacks it.
        data: hash of the server's certificate, for `p=tls-server-end-point`.
    """

    header: bytes
    data: bytes = b""


class ScramClient:
    """One exchange: `first`, then `final` on the challenge, then `verify` the server's proof."""

    __slots__ = ("_binding", "_cache", "_first_bare", "_nonce", "_password", "_server_signature")

    def __init__(
        self,
        password: bytes,
        binding: ChannelBinding,
        cache: ScramKeyCache | None,
        *,
        nonce: bytes | None = None,
    ) -> None:
        self._password = password
        self._binding = binding
        self._cache = cache
        self._nonce = nonce if nonce is not None else base64.b64encode(os.urandom(18))
        # PostgreSQL takes the user from the start-up message and wants the name empty here.
        self._first_bare = b"n=,r=" + self._nonce
        self._server_signature = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return self._binding.header + self._first_bare

    def final(self, challenge: bytes) -> bytes:
        """The client-final-message for the server's `challenge`.

        Raises:
            AuthenticationError: the challenge is malformed or not an answer to this exchange.
        """
        nonce, salt, iterations = self._read_challenge(challenge)
        derive = derive_keys if self._cache is None else self._cache.keys
        keys = derive(self._password, salt, iterations)
        binding = base64.b64encode(self._binding.header + self._binding.data)
        without_proof = b"c=" + binding + b",r=" + nonce
        auth_message = self._first_bare + b"," + challenge + b"," + without_proof
        signature = hmac.digest(keys.stored, auth_message, "sha256")
        proof = (int.from_bytes(keys.client, "big") ^ int.from_bytes(signature, "big")).to_bytes(32, "big")
        self._server_signature = hmac.digest(keys.server, auth_message, "sha256")
        return without_proof + b",p=" + base64.b64encode(proof)

    def _read_challenge(self, challenge: bytes) -> tuple[bytes, bytes, int]:
        parts = challenge.split(b",")
        if len(parts) < 3 or [part[:2] for part in parts[:3]] != [b"r=", b"s=", b"i="]:
            raise AuthenticationError("the server's SCRAM challenge is malformed")
        nonce, salt, count = (part[2:] for part in parts[:3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationError("the server's SCRAM nonce does not extend ours")
        if not count.isdigit() or not 1 <= len(count) <= 9 or not 1 <= int(count) <= MAX_ITERATIONS:
            raise AuthenticationError("the server's SCRAM iteration count is out of bounds")
        try:
            return nonce, base64.b64decode(salt, validate=True), int(count)
        except binascii.Error as error:
            raise AuthenticationError("the server's SCRAM salt is not base64") from error

    def verify(self, final: bytes) -> None:
        """Check the server's proof that it knows the password too.

        Raises:
            AuthenticationError: it does not, or reports an error instead.
        """
        if final.startswith(b"e="):
            reason = "".join(c if c.isprintable() else "?" for c in final[2:64].decode("ascii", "replace"))
            raise AuthenticationError(f"the server ended the SCRAM exchange: {reason}")
        try:
            signature = base64.b64decode(final[2:].split(b",")[0], validate=True)
        except binascii.Error:
            signature = b""
        # Before `final` there is no signature to compare with, and nothing equals nothing.
        expected = self._server_signature
        if not expected or not final.startswith(b"v=") or not hmac.compare_digest(signature, expected):
            raise AuthenticationError("the server's SCRAM signature is wrong: it does not know the password")
