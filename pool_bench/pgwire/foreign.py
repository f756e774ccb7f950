"""Recognises what answers in other protocols, by the first bytes that it sends."""

from typing import Final

_BEGINNINGS: Final = (
    (b"HTTP/", "HTTP"),  # RFC 9112, chapter 4
    (b"SSH-", "SSH"),  # RFC 4253, chapter 4.2
    (b"-ERR ", "Redis's protocol"),  # RESP, "Simple errors"
    (b"-DENIED ", "Redis's protocol"),
    (b"-NOAUTH ", "Redis's protocol"),
    (b"220 ", "SMTP or FTP"),  # RFC 5321, chapter 4.2, and RFC 959, chapter 4.2
    (b"220-", "SMTP or FTP"),
    (b"+OK ", "POP3"),  # RFC 1939, chapter 3
    (b"* OK ", "IMAP"),  # RFC 9051, chapter 7.1
    (b"\x15\x03", "TLS from the first byte on"),  # RFC 8446, chapter 5.1: an alert
    (b"\x16\x03", "TLS from the first byte on"),
)
# MySQL's documentation, "Protocol::HandshakeV10": three bytes of length, a sequence number of zero, the
# version of the protocol, the server's own as text; "ERR_Packet" in its place where it lets nobody in.
_MYSQL_HEADER_BYTES: Final = 5
_MYSQL_HANDSHAKE: Final = 10
_MYSQL_ERROR: Final = 0xFF


def protocol_of(data: bytes | bytearray) -> str | None:
    """The protocol whose server begins with `data`, None where that is not known."""
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    if len(data) <= _MYSQL_HEADER_BYTES or data[3] != 0:
        return None
    length = int.from_bytes(data[:3], "little")
    greets = data[4] == _MYSQL_HANDSHAKE and chr(data[5]).isdigit()
    refuses = data[4] == _MYSQL_ERROR and length + 4 == len(data)
    return "MySQL's protocol" if greets or refuses else None
