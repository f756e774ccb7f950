"""Which of several hosts and addresses a connect is at, and which of them will do.

As in libpq (https://www.postgresql.org/docs/current/libpq-connect.html, 34.1.1.3 and
`target_session_attrs`): addresses are tried in order, each with the whole connect timeout; one that cannot
be reached is passed over for the next address, a server that is starting or not of the wanted sort for the
next host. An error that is the user's own, such as a wrong password, ends the connect.
"""

import random
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pool_bench.drivers.wire.plan import Endpoint, WirePlan
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import NeedData, RemoteProtocolError
from pool_bench.pgwire.events import BackendKeyData, ParameterStatus, Query, ServerEvent
from pool_bench.targets.postgres import SessionAttrs
from pool_bench.targets.session_attrs import complaint, is_restricted

# ERRCODE_CANNOT_CONNECT_NOW: starting, stopping, or in a recovery that takes no connections.
CANNOT_CONNECT_NOW: Final = "57P03"
# Of a time that was not taken.
ABSENT: Final = -1
# A server reports about fifteen parameters; more than this in one start-up is an attack on our memory.
_MAX_PARAMETERS: Final = 256
_MAX_PARAMETER_CHARACTERS: Final = 100_000
_MOST_NAMED: Final = 8
_IS_STANDBY: Final = Query("SELECT 1 WHERE pg_catalog.pg_is_in_recovery()")
_IS_READ_ONLY: Final = Query("SELECT 1 WHERE pg_catalog.current_setting('transaction_read_only') = 'on'")


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An address that was tried in vain before another one.

    Attributes:
        endpoint: the address.
        error: why it would not do.
        spent_ns: how long it was tried, nanoseconds.
    """

    endpoint: Endpoint
    error: ConnectError
    spent_ns: int


class SessionCheck:
    """Whether the server at the other end is of the sort that `target_session_attrs` names.

    Servers from PostgreSQL 14 on say so at start-up; others, and poolers that do not hand it on, are asked.

    Attributes:
        asked: a question is under way.
    """

    __slots__ = ("_attrs", "_is", "asked")

    def __init__(self, attrs: SessionAttrs) -> None:
        self._attrs = attrs
        self._is: bool | None = None
        self.asked = False

    def question(self, parameters: Mapping[str, str]) -> Query | None:
        """What to ask the server that has reported `parameters`; None where it is known."""
        if self._is is not None:
            return None
        self._is = is_restricted(self._attrs, parameters.get)
        if self._is is not None:
            return None
        self.asked = True
        return _IS_READ_ONLY if self._attrs in ("read-write", "read-only") else _IS_STANDBY

    def answered(self, rows: int) -> None:
        """The answer to the question had so many rows: one for yes."""
        self._is = rows > 0
        self.asked = False

    def complaint(self) -> str | None:
        """Why this server will not do, None where it will."""
        return complaint(self._attrs, self._is)


class Route:
    """The part of a dial that knows its addresses, and what it has learnt at the present one.

    Attributes:
        since_ns: when the present address was begun with, perf_counter_ns; of the first one, when the
            operation began.
        earlier_ns: time spent on addresses before the present one, nanoseconds, -1 for none.
        passed: those addresses, None for none.
        resolve_ns: how long names were looked up, nanoseconds, -1 where there was none to look up.
    """

    __slots__ = (
        "_endpoint",
        "_endpoints",
        "_first_error",
        "_plan",
        "_session",
        "_tls",
        "_tls_wanted",
        "auth_ns",
        "backend",
        "earlier_ns",
        "parameters",
        "passed",
        "phase",
        "ready_ns",
        "resolve_ns",
        "since_ns",
        "tcp_ns",
        "tls_ns",
    )

    _plan: WirePlan
    _endpoint: int
    _endpoints: tuple[Endpoint, ...]
    _session: SessionCheck | None
    _first_error: ConnectError | None
    _tls: ssl.SSLSocket | None
    _tls_wanted: bool
    phase: Phase
    parameters: dict[str, str] | None
    backend: BackendKeyData | None
    tcp_ns: int
    tls_ns: int
    auth_ns: int
    ready_ns: int
    since_ns: int
    resolve_ns: int
    earlier_ns: int
    passed: list[PassedOver] | None

    @property
    def endpoint(self) -> Endpoint | None:
        """The address it is at; None before there was any."""
        return self._endpoints[self._endpoint] if self._endpoints else None

    @property
    def _is_choosy(self) -> bool:
        """Whether the server is to be checked; prefer-standby takes any the second time round."""
        return self._session is not None and self._endpoint < self._second_round

    @property
    def _second_round(self) -> int:
        """Where addresses begin to come again, for which every server will do."""
        is_two = self._plan.target.target_session_attrs == "prefer-standby"
        return len(self._endpoints) // 2 if is_two else len(self._endpoints)

    def _pass_over(self, error: ConnectError, *, host: bool, now_ns: int) -> bool:
        """Turn to the next address, or the next host; False where there is none."""
        here, index = self._endpoints[self._endpoint], self._endpoint + 1
        round_end = self._second_round if self._endpoint < self._second_round else len(self._endpoints)
        while host and index < round_end and self._endpoints[index].host is here.host:
            index += 1
        if index >= len(self._endpoints):
            return False
        spent_ns = now_ns - self.since_ns
        if self.passed is None:
            self.passed, self.earlier_ns = [], 0
            # Looking names up is a step of its own.
            spent_ns -= max(self.resolve_ns, 0)
        self.passed.append(PassedOver(here, error, spent_ns))
        self.earlier_ns += spent_ns
        self._endpoint = index
        self.since_ns = now_ns
        return True

    def _forget(self) -> None:
        """Begin anew for the next address; what was spent on the one before is in `earlier_ns`."""
        self.tcp_ns = self.auth_ns = self.ready_ns = 0
        self.tls_ns = ABSENT
        self._first_error = self.backend = None
        self._tls_wanted = self._plan.tls_first
        if self._session is not None:
            self._session = SessionCheck(self._plan.target.target_session_attrs)
        if self.parameters is not None:
            self.parameters = {}

    def _other_tls_mode(self, kind: FailureKind) -> bool:
        """Switch TLS on (sslmode=allow) or off (prefer) once, where that may have been the reason."""
        mode = self._plan.target.sslmode
        if self._plan.tls is None:
            return False
        refused = self.phase is Phase.AUTH and kind is FailureKind.AUTH
        if mode == "allow" and not self._tls_wanted and refused:
            self._tls_wanted = self._endpoints[self._endpoint].family != socket.AF_UNIX
            return self._tls_wanted
        if mode == "prefer" and self._tls is not None and (refused or self.phase is Phase.TLS):
            self._tls_wanted = False
            return True
        return False

    def _on_parameter(self, event: ServerEvent | NeedData) -> None:
        match event:
            case ParameterStatus(name, value) if self.parameters is not None:
                self.parameters[name] = value
                size = sum(len(known) + len(setting) for known, setting in self.parameters.items())
                if size > _MAX_PARAMETER_CHARACTERS or len(self.parameters) > _MAX_PARAMETERS:
                    raise RemoteProtocolError("the server reports parameters without an end")
            case BackendKeyData():
                self.backend = event

    def _whole_story(self, error: ConnectError) -> ConnectError:
        """`error`, and how it went at the addresses before, as libpq tells it."""
        if self.passed is None:
            return error
        here = self._endpoints[self._endpoint]
        attempts = [(tried.endpoint, tried.error.message) for tried in self.passed] + [(here, error.message)]
        lines = list(dict.fromkeys(f"{endpoint.label}: {message}" for endpoint, message in attempts))
        left_out = [f"{len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
        text = "; ".join([*lines[: _MOST_NAMED - 1], *left_out, *lines[_MOST_NAMED - 1 :][-1:]])
        return ConnectError(error.kind, error.phase, text, sqlstate=error.sqlstate)


def ordered(plan: WirePlan, endpoints: tuple[Endpoint, ...], rng: random.Random) -> tuple[Endpoint, ...]:
    """The order in which one connect tries `endpoints`.

    With `load_balance_hosts=random` the hosts are shuffled, and the addresses of each. With
    `target_session_attrs=prefer-standby` all come twice, the second time without a check.
    """
    if plan.target.load_balance_hosts:
        groups: dict[int, list[Endpoint]] = {}
        for endpoint in endpoints:
            groups.setdefault(id(endpoint.host), []).append(endpoint)
        shuffled = list(groups.values())
        rng.shuffle(shuffled)
        for group in shuffled:
            rng.shuffle(group)
        endpoints = tuple(endpoint for group in shuffled for endpoint in group)
    if plan.target.target_session_attrs == "prefer-standby":
        endpoints *= 2
    return endpoints
