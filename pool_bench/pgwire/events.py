"""Everything either side can say during start-up and a simple query, as values.

Client events know their own bytes (computed once, so that a benchmark can send the same event a
million times); server events come from `Connection.next_event`. Message formats:
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_INT32: Final = struct.Struct("!i")

SSL_REQUEST_CODE: Final = 80877103
PROTOCOL_MAJOR: Final = 3
_MAX_SHOWN_CHARACTERS: Final = 1000


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _INT32.pack(len(body) + 4) + body


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise ValueError("a zero byte cannot be sent to PostgreSQL")
    return encoded + b"\0"


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """Ask whether the server speaks TLS."""

    encoded: bytes = field(default=struct.pack("!ii", 8, SSL_REQUEST_CODE), init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Startup:
    """StartupMessage for protocol 3.`minor`.

    Raises:
        ValueError: a name or value contains a zero byte.
    """

    parameters: Mapping[str, str]
    minor: int = 0
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pairs = b"".join(_text(name) + _text(value) for name, value in self.parameters.items())
        body = struct.pack("!HH", PROTOCOL_MAJOR, self.minor) + pairs + b"\0"
        object.__setattr__(self, "encoded", _INT32.pack(len(body) + 4) + body)


@dataclass(frozen=True, slots=True)
class Password:
    """PasswordMessage: the password itself, or its MD5 form."""

    secret: bytes = field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The message's bytes."""
        return _message(b"p", self.secret + b"\0")


@dataclass(frozen=True, slots=True)
class SASLInitialResponse:
    """The chosen mechanism and its first message."""

    mechanism: str
    data: bytes = field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The message's bytes."""
        return _message(b"p", _text(self.mechanism) + _INT32.pack(len(self.data)) + self.data)


@dataclass(frozen=True, slots=True)
class SASLResponse:
    """A later SASL message."""

    data: bytes = field(repr=False)

    @property
    def encoded(self) -> bytes:
        """The message's bytes."""
        return _message(b"p", self.data)


@dataclass(frozen=True, slots=True)
class Query:
    """A simple query; it may hold several statements.

    Raises:
        ValueError: the text contains a zero byte.
    """

    sql: str
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", _message(b"Q", _text(self.sql)))


@dataclass(frozen=True, slots=True)
class Terminate:
    """The polite end."""

    encoded: bytes = field(default=_message(b"X", b""), init=False, repr=False)


ClientEvent = SSLRequest | Startup | Password | SASLInitialResponse | SASLResponse | Query | Terminate


@dataclass(frozen=True, slots=True)
class SSLAnswer:
    """Whether the server goes on with TLS."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion:
    """The newest minor version the server speaks, and the options it did not know."""

    minor: int
    unrecognized: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthenticationOk:
    """Authentication is over."""


@dataclass(frozen=True, slots=True)
class AuthenticationCleartextPassword:
    """The server wants the password as it is."""


@dataclass(frozen=True, slots=True)
class AuthenticationMD5Password:
    """The server wants MD5(MD5(password + user) + salt)."""

    salt: bytes


@dataclass(frozen=True, slots=True)
class AuthenticationSASL:
    """The SASL mechanisms the server offers, best first."""

    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthenticationSASLContinue:
    """The server's challenge."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AuthenticationSASLFinal:
    """The server's own proof."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AuthenticationUnsupported:
    """A method of the protocol that this client does not speak."""

    method: str


@dataclass(frozen=True, slots=True)
class ParameterStatus:
    """A setting the server reports."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class BackendKeyData:
    """What cancels this session's query: process number and key (4 bytes in protocol 3.0)."""

    pid: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadyForQuery:
    """The server waits: `I` idle, `T` in a transaction, `E` in a failed one."""

    status: str


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error with all its fields by their one-letter codes."""

    fields: Mapping[str, str]

    @property
    def sqlstate(self) -> str | None:
        """The five-character code, if sent and if it is one."""
        code = self.fields.get("C", "")
        return code if len(code) == 5 and code.isascii() and code.isalnum() else None

    @property
    def message(self) -> str:
        """The primary message: one line, printable and not endless, whatever the server sent."""
        return self._shown("M")

    @property
    def detail(self) -> str:
        """The DETAIL, like `message`; empty where none was sent."""
        return self._shown("D")

    @property
    def hint(self) -> str:
        """The HINT, like `message`; empty where none was sent."""
        return self._shown("H")

    def _shown(self, field: str) -> str:
        words = self.fields.get(field, "")[: 4 * _MAX_SHOWN_CHARACTERS].split()
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(words))
        return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[: _MAX_SHOWN_CHARACTERS - 1] + "…"

    @property
    def severity(self) -> str:
        """The severity without translation where the server sends it so."""
        return self.fields.get("V") or self.fields.get("S", "")


@dataclass(frozen=True, slots=True)
class NoticeResponse:
    """A notice with all its fields by their one-letter codes."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NotificationResponse:
    """A NOTIFY from another session."""

    pid: int
    channel: str
    payload: str


@dataclass(frozen=True, slots=True)
class CommandComplete:
    """One statement is done; its rows were counted and thrown away.

    Attributes:
        tag: the command tag, such as `SELECT 1`; empty for an empty query.
        rows: DataRow messages received for it.
        row_bytes: their payload in bytes.
    """

    tag: str
    rows: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The server closed its side; `clean` if that was between two messages."""

    clean: bool


ServerEvent = (
    SSLAnswer
    | NegotiateProtocolVersion
    | AuthenticationOk
    | AuthenticationCleartextPassword
    | AuthenticationMD5Password
    | AuthenticationSASL
    | AuthenticationSASLContinue
    | AuthenticationSASLFinal
    | AuthenticationUnsupported
    | ParameterStatus
    | BackendKeyData
    | ReadyForQuery
    | ErrorResponse
    | NoticeResponse
    | NotificationResponse
    | CommandComplete
    | ConnectionClosed
)
