"""Server messages: payload bytes to events. No state, no I/O.

Formats: https://www.postgresql.org/docs/current/protocol-message-formats.html. Every function
takes the bytes behind type and length, and raises `RemoteProtocolError` where they do not fit.
"""

import struct
from types import MappingProxyType
from typing import Final

from pool_bench.pgwire import events as ev
from pool_bench.pgwire.errors import RemoteProtocolError

_UNSUPPORTED_METHODS: Final = MappingProxyType(
    {2: "Kerberos V5", 6: "SCM credentials", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}
)
_READY: Final = MappingProxyType({code: ev.ReadyForQuery(chr(code)) for code in b"ITE"})
_OK: Final = ev.AuthenticationOk()
_CLEARTEXT: Final = ev.AuthenticationCleartextPassword()


def _decode(data: bytes) -> str:
    # Before client_encoding is settled a server may answer in its own encoding.
    return data.decode("utf-8", "replace")


def _strings(data: bytes, what: str) -> list[str]:
    if not data.endswith(b"\0"):
        raise RemoteProtocolError(f"{what} is not terminated")
    return [_decode(part) for part in data[:-1].split(b"\0")]


def authentication(payload: bytes) -> ev.ServerEvent:
    """`R`: the sub-code decides."""
    if len(payload) < 4:
        raise RemoteProtocolError("authentication request is too short")
    code, rest = int.from_bytes(payload[:4], "big"), payload[4:]
    if code == 10:
        if not rest.endswith(b"\0\0"):
            raise RemoteProtocolError("list of SASL mechanisms is not terminated")
        return ev.AuthenticationSASL(tuple(_strings(rest[:-1], "SASL mechanism")))
    if code == 11:
        return ev.AuthenticationSASLContinue(rest)
    if code == 12:
        return ev.AuthenticationSASLFinal(rest)
    if code == 5:
        if len(rest) != 4:
            raise RemoteProtocolError("MD5 salt is not four bytes")
        return ev.AuthenticationMD5Password(rest)
    if code in _UNSUPPORTED_METHODS:
        return ev.AuthenticationUnsupported(_UNSUPPORTED_METHODS[code])
    if rest:
        raise RemoteProtocolError(f"authentication request {code} has a body")
    if code == 0:
        return _OK
    if code == 3:
        return _CLEARTEXT
    raise RemoteProtocolError(f"unknown authentication request {code}")


def _fields(payload: bytes) -> dict[str, str]:
    if not payload.endswith(b"\0"):
        raise RemoteProtocolError("error fields are not terminated")
    # The list ends with an empty field; some poolers leave that last byte out.
    body = payload[:-1] if payload.endswith(b"\0\0") or payload == b"\0" else payload
    fields: dict[str, str] = {}
    for part in _strings(body, "error field") if body else ():
        if not part:
            raise RemoteProtocolError("empty error field")
        fields[part[0]] = part[1:]
    return fields


def error_response(payload: bytes) -> ev.ErrorResponse:
    """`E`."""
    return ev.ErrorResponse(_fields(payload))


def notice_response(payload: bytes) -> ev.NoticeResponse:
    """`N`."""
    return ev.NoticeResponse(_fields(payload))


def parameter_status(payload: bytes) -> ev.ParameterStatus:
    """`S`."""
    strings = _strings(payload, "parameter")
    if len(strings) != 2:
        raise RemoteProtocolError("a parameter is a name and a value")
    return ev.ParameterStatus(strings[0], strings[1])


def backend_key_data(payload: bytes) -> ev.BackendKeyData:
    """`K`: a key of 4 bytes in protocol 3.0, of 4 to 256 since 3.2."""
    if not 8 <= len(payload) <= 260:
        raise RemoteProtocolError("cancel key is not 4 to 256 bytes")
    return ev.BackendKeyData(int.from_bytes(payload[:4], "big"), payload[4:])


def ready_for_query(payload: bytes) -> ev.ReadyForQuery:
    """`Z`."""
    if len(payload) != 1 or payload[0] not in _READY:
        raise RemoteProtocolError("unknown transaction status")
    return _READY[payload[0]]


def negotiate_protocol_version(payload: bytes) -> ev.NegotiateProtocolVersion:
    """`v`: the version as (major << 16 | minor) and the options not understood."""
    if len(payload) < 8:
        raise RemoteProtocolError("version negotiation is too short")
    version, count = struct.unpack("!Ii", payload[:8])
    names = _strings(payload[8:], "protocol option") if len(payload) > 8 else []
    if version >> 16 not in (0, ev.PROTOCOL_MAJOR):
        raise RemoteProtocolError(f"server speaks protocol {version >> 16}, not 3")
    if count != len(names):
        raise RemoteProtocolError(f"server counts {count} protocol options and names {len(names)}")
    return ev.NegotiateProtocolVersion(version & 0xFFFF, tuple(names))


def notification_response(payload: bytes) -> ev.NotificationResponse:
    """`A`."""
    strings = _strings(payload[4:], "notification")
    if len(payload) < 6 or len(strings) != 2:
        raise RemoteProtocolError("a notification is a process, a channel and a payload")
    return ev.NotificationResponse(int.from_bytes(payload[:4], "big"), strings[0], strings[1])


def command_tag(payload: bytes) -> str:
    """`C`: the command tag."""
    strings = _strings(payload, "command tag")
    if len(strings) != 1:
        raise RemoteProtocolError("a command tag is one string")
    return strings[0]
