"""PostgreSQL's start-up protocol without I/O, in h11's manner. See `connection.Connection`."""

from pool_bench.pgwire.auth import Authenticator, Credentials
from pool_bench.pgwire.connection import NEED_DATA, Connection, NeedData, is_known_welcome
from pool_bench.pgwire.errors import (
    AuthenticationError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
)
from pool_bench.pgwire.scram import ScramKeyCache
from pool_bench.pgwire.state import State

__all__ = [
    "NEED_DATA",
    "AuthenticationError",
    "Authenticator",
    "Connection",
    "Credentials",
    "LocalProtocolError",
    "NeedData",
    "ProtocolError",
    "RemoteProtocolError",
    "ScramKeyCache",
    "State",
    "is_known_welcome",
]
