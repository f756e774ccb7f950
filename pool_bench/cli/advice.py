"""What to do about a server that cannot be used, by the kind of failure."""

from typing import Final

from pool_bench.errors import FailureKind

POSTGRES: Final = {
    FailureKind.DNS: "the name is unknown here: check its spelling, /etc/hosts, and this machine's DNS",
    FailureKind.REFUSED: "nothing listens there: check host and port, that the server runs, and its "
    "listen_addresses",
    FailureKind.TIMEOUT: "no answer: a firewall may drop the packets, or the server hangs",
    FailureKind.TLS: "TLS failed: check sslmode, sslrootcert, and the name in the server's certificate",
    FailureKind.AUTH: "the server knows neither this user nor this password, or pg_hba.conf forbids it: "
    "check user, password, database and pg_hba.conf",
    FailureKind.TOO_MANY_CONNECTIONS: "all connection slots are taken: close some, raise max_connections, or "
    "put a pooler in front",
    FailureKind.SERVER_STARTING: "the server is starting up or recovering: try again in a moment",
    FailureKind.NO_DATABASE: "the server has no database of that name: check its spelling, or create it",
    FailureKind.BACKEND_DOWN: "the pooler is there, but does not get to its server: check that server, and "
    "what the pooler logs in with",
    FailureKind.SESSION_ATTRS: "no host is of the sort that target_session_attrs asks for",
    FailureKind.SERVER_SHUTDOWN: "the server is shutting down",
    FailureKind.IDLE_TIMEOUT: "the server or the pooler ends connections that idle",
    FailureKind.PROTOCOL: "what answers there does not speak PostgreSQL's protocol: check the port",
    FailureKind.RESET: "the connection was cut, by the server or by something in between",
    FailureKind.CLOSED: "the other side closed the connection without an answer: it may not be a "
    "PostgreSQL, or is overloaded",
    FailureKind.CLIENT_FDS: "this process has no file descriptors left: raise ulimit -n",
    FailureKind.CLIENT_PORTS: "this machine has no local ports left: wait for those in TIME_WAIT",
}
# The same, in SurrealDB's own terms where those are others.
SURREAL: Final = POSTGRES | {
    FailureKind.REFUSED: "nothing listens there: check host and port, and that the server runs",
    FailureKind.TLS: "TLS failed: use ws:// or http:// where the server has none, --ca-file where it is its "
    "own authority, and check the name in its certificate",
    FailureKind.AUTH: "the server knows neither this user nor this password: check --user, --pass, --level "
    "and --auth",
    FailureKind.PROTOCOL: "what answers there is not a SurrealDB, or speaks TLS (wss://, https://)",
    FailureKind.CLOSED: "what answers there is not a SurrealDB, or speaks TLS (wss://, https://)",
}
