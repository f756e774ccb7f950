"""Answers to the server's authentication requests, without I/O."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from pool_bench.pgwire import events as ev
from pool_bench.pgwire.errors import AuthenticationError
from pool_bench.pgwire.scram import (
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    ChannelBinding,
    ScramClient,
    ScramKeyCache,
    raw_utf8,
    saslprep,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are, and how far the server must go to prove who it is.

    Attributes:
        user: the user of the start-up message (MD5 hashes it).
        password: None or empty where there is none to send, as in libpq.
        channel_binding: whether SCRAM must be tied to the TLS channel.
        cache: keeps SCRAM keys between connections; None derives them each time.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    channel_binding: Literal["disable", "prefer", "require"] = "prefer"
    cache: ScramKeyCache | None = None
    secret: bytes | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", saslprep(self.password) if self.password else None)


class Authenticator:
    """Answers one connection's authentication requests.

    Args:
        credentials: what to answer with.
        certificate_hash: hash of the server's certificate by RFC 5929, tls-server-end-point;
            None without TLS, b"" where the certificate's algorithm has no such hash.
    """

    __slots__ = ("_binding", "_bound", "_certificate_hash", "_credentials", "_scram")

    def __init__(self, credentials: Credentials, certificate_hash: bytes | None = None) -> None:
        self._credentials = credentials
        self._certificate_hash = certificate_hash
        self._scram: ScramClient | None = None
        self._binding = self._bound = False

    def answer(self, request: ev.ServerEvent) -> ev.ClientEvent | None:
        """The event to send for an authentication request; None where nothing is to be sent.

        Raises:
            AuthenticationError: no password, a method not spoken here, or a server that fails to
                prove itself.
        """
        match request:
            case ev.AuthenticationOk():
                if self._credentials.channel_binding == "require" and not self._bound:
                    raise AuthenticationError("channel binding is required, but the server did without it")
                return None
            case ev.AuthenticationSASL(mechanisms):
                return self._start_scram(mechanisms)
            case ev.AuthenticationSASLContinue(data):
                return ev.SASLResponse(self._exchange.final(data))
            case ev.AuthenticationSASLFinal(data):
                self._exchange.verify(data)
                self._bound = self._binding
                return None
            case ev.AuthenticationMD5Password(salt):
                return ev.Password(self._md5(salt))
            case ev.AuthenticationCleartextPassword():
                return ev.Password(self._raw_password())
            case ev.AuthenticationUnsupported(method):
                raise AuthenticationError(f"the server wants {method} authentication, not supported here")
        raise AuthenticationError(f"{type(request).__name__} is not an authentication request")

    @property
    def _exchange(self) -> ScramClient:
        if self._scram is None:
            raise AuthenticationError("the server continues a SCRAM exchange that was not begun")
        return self._scram

    def _raw_password(self) -> bytes:
        password = self._credentials.password
        if not password:
            raise AuthenticationError("the server wants a password, but none was given")
        if self._credentials.channel_binding == "require":
            raise AuthenticationError("channel binding is required, but the server wants a plain password")
        return raw_utf8(password)

    def _md5(self, salt: bytes) -> bytes:
        user = raw_utf8(self._credentials.user)
        inner = hashlib.md5(self._raw_password() + user, usedforsecurity=False).hexdigest()
        outer = hashlib.md5(inner.encode("ascii") + salt, usedforsecurity=False).hexdigest()
        return b"md5" + outer.encode("ascii")

    def _start_scram(self, mechanisms: tuple[str, ...]) -> ev.SASLInitialResponse:
        credentials = self._credentials
        if credentials.secret is None:
            raise AuthenticationError("the server wants a password, but none was given")
        wanted = credentials.channel_binding
        if SCRAM_SHA_256_PLUS in mechanisms and self._certificate_hash and wanted != "disable":
            mechanism = SCRAM_SHA_256_PLUS
            binding = ChannelBinding(b"p=tls-server-end-point,,", self._certificate_hash)
            self._binding = True
        elif SCRAM_SHA_256_PLUS in mechanisms and self._certificate_hash is None and wanted != "disable":
            # RFC 5802, section 6: offered outside TLS it can only be an attack or a confused server.
            raise AuthenticationError("the server offers channel binding on a connection without TLS")
        elif wanted == "require":
            raise AuthenticationError("channel binding is required, but the server does not offer it")
        elif SCRAM_SHA_256 in mechanisms:
            mechanism = SCRAM_SHA_256
            # `y` lets the server notice that someone removed PLUS from its offer.
            can_bind = bool(self._certificate_hash) and wanted != "disable"
            binding = ChannelBinding(b"y,," if can_bind else b"n,,")
        else:
            raise AuthenticationError(f"the server offers only {_printable(', '.join(mechanisms))}")
        self._scram = ScramClient(credentials.secret, binding, credentials.cache)
        return ev.SASLInitialResponse(mechanism, self._scram.first())


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:100]) or "no mechanism"
