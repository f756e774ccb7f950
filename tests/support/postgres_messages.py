"""Server messages as bytes, and exchanges that can be delivered in any pieces."""

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pool_bench.pgwire import NEED_DATA, Connection
from pool_bench.pgwire import connection as connection_module
from pool_bench.pgwire import events as ev

Exchange = Sequence[tuple[ev.ClientEvent, bytes]]
Split = Callable[[bytes], Iterable[bytes]]

STARTUP = ev.Startup({"user": "u", "database": "d"})
PASSWORD = ev.Password(b"pencil")
FIRST = ev.SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=nonce")
FINAL = ev.SASLResponse(b"c=biws,r=nonce2,p=proof")
QUERY = ev.Query("SELECT 1")
TERMINATE = ev.Terminate()


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode("latin-1") + struct.pack("!i", len(body) + 4) + body


def authentication(code: int, body: bytes = b"") -> bytes:
    return message("R", struct.pack("!i", code) + body)


def error(text: str, kind: str = "E") -> bytes:
    return message(kind, b"SERROR\0VERROR\0C22012\0M" + text.encode() + b"\0\0")


def report(name: str, value: str) -> bytes:
    return message("S", name.encode() + b"\0" + value.encode() + b"\0")


def row(payload: bytes) -> bytes:
    return message("D", payload)


OK = authentication(0)
KEY = message("K", struct.pack("!I", 4242) + b"abcd")
READY = message("Z", b"I")
SASL = authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
CHALLENGE = authentication(11, b"r=nonce2,s=c2FsdA==,i=4096")
PROOF = authentication(12, b"v=c2lnbmF0dXJl")
REPORTS = report("server_version", "18.6") + report("TimeZone", "") + report("search_path", '"$user", public')
GREETING = OK + REPORTS + KEY + READY
NOTICE = error("look", "N")
NOTIFICATION = message("A", struct.pack("!I", 7) + b"channel\0payload\0")
RESULT = (
    message("T", b"\0\1rest of a row description")
    + row(b"\0\1\0\0\0\1x")
    + row(b"")
    + NOTICE
    + row(b"\0\1" + b"y" * 300)
    + message("C", b"SELECT 3\0")
)

EXCHANGES: dict[str, Exchange] = {
    "trust": [(STARTUP, GREETING)],
    "no reports at all": [(STARTUP, OK + KEY + READY)],
    "a notice among the reports": [(STARTUP, OK + REPORTS + NOTICE + REPORTS + KEY + READY)],
    "a long key": [
        (
            ev.Startup({"user": "u"}, minor=2),
            message("v", struct.pack("!ii", 3 << 16, 1) + b"_pq_.x\0")
            + OK
            + REPORTS
            + message("K", b"\0\0\0\1" + bytes(range(200)))
            + READY,
        )
    ],
    "cleartext": [(STARTUP, authentication(3)), (PASSWORD, GREETING)],
    "md5": [(STARTUP, authentication(5, b"salt")), (PASSWORD, GREETING)],
    "scram": [(STARTUP, SASL), (FIRST, CHALLENGE), (FINAL, PROOF + GREETING)],
    "unsupported": [(STARTUP, authentication(9))],
    "TLS refused": [(ev.SSLRequest(), b"N"), (STARTUP, GREETING)],
    "TLS accepted": [(ev.SSLRequest(), b"S"), (STARTUP, GREETING)],
    "an error for an answer to SSLRequest": [(ev.SSLRequest(), error("too many"))],
    "no process for an answer to SSLRequest": [(ev.SSLRequest(), b"Ecould not fork new process\n\0")],
    "no process": [(STARTUP, b"Ecould not fork new process: Resource unavailable\n\0")],
    "refused": [(STARTUP, error("sorry, too many clients already"))],
    "a wrong password": [(STARTUP, authentication(3)), (PASSWORD, NOTICE + error("no"))],
    "query": [(STARTUP, GREETING), (QUERY, RESULT + READY), (TERMINATE, b"")],
    "several statements": [
        (STARTUP, GREETING),
        (QUERY, RESULT + message("I") + row(b"abc") + error("div") + READY),
        (QUERY, RESULT + report("TimeZone", "UTC") + NOTIFICATION + READY),
    ],
    "copy out": [
        (STARTUP, GREETING),
        (
            QUERY,
            message("H", b"\0\0\0") + message("d", b"data") * 2 + message("c") + message("C", b"COPY 2\0"),
        ),
    ],
    "hung up on while in a query": [(STARTUP, GREETING), (QUERY, row(b"x") + error("shutdown"))],
    "said good-bye while in a query": [(STARTUP, GREETING), (QUERY, b""), (TERMINATE, RESULT + READY)],
}


def recordings() -> dict[str, list[tuple[str, bytes]]]:
    """Sessions with PostgreSQL 18.6, the client's nonce being `bytes(range(18))` in base64."""
    text = Path(__file__).with_name("recordings.json").read_text(encoding="utf-8")
    return {
        name: [(side, data.encode("latin-1")) for side, data in turns]
        for name, turns in json.loads(text).items()
    }


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def by_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def drain(connection: Connection) -> list[ev.ServerEvent]:
    events: list[ev.ServerEvent] = []
    while True:
        event = connection.next_event()
        if event is NEED_DATA:
            return events
        events.append(event)


def play(exchange: Exchange, split: Split = whole, *, reports: bool = True) -> list[ev.ServerEvent]:
    """Everything the client hears in `exchange`, and then the end of the stream."""
    connection = Connection(reports=reports)
    events = []
    for event, data in exchange:
        connection.send(event)
        for chunk in split(data):
            connection.receive_data(chunk)
            events += drain(connection)
    connection.receive_data(b"")
    return events + drain(connection)


def forget_reports() -> None:
    connection_module._known_reports.clear()


def reached(*exchange: tuple[ev.ClientEvent, bytes], reports: bool = True) -> Connection:
    """A connection after `exchange`."""
    connection = Connection(reports=reports)
    for event, data in exchange:
        connection.send(event)
        if data:
            connection.receive_data(data)
            drain(connection)
    return connection


def buffered(connection: Connection) -> int:
    return len(connection._data)
