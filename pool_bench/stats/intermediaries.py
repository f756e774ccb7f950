"""Who stands between us and a PostgreSQL, judged by what it does: plain data and calculation.

Both ends of a connection say what they see. Where the server sees our own port, nobody stands in between.
Where it sees another one, somebody passes us on: a pooler, if a session serves several connections or goes on
without its own, and a proxy (or address translation) if each connection has a session of its own.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["nobody", "pooler", "proxy", "unknown"]

_SERVERS: Final = frozenset({"postgres", "postmaster"})
# Programs by what their users call them.
_POOLERS: Final = {
    "pgbouncer": "PgBouncer",
    "pgpool": "pgpool-II",
    "odyssey": "Odyssey",
    "pgcat": "pgcat",
    "pgdog": "pgdog",
    "pgagroal": "pgagroal",
    "supavisor": "Supavisor",
}
_PROXIES: Final = {
    "haproxy": "HAProxy",
    "nginx": "nginx",
    "stunnel": "stunnel",
    "stunnel4": "stunnel",
    "envoy": "Envoy",
    "traefik": "Traefik",
    "ssh": "ssh",
    "sshd": "sshd",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One connection, as both its ends see it.

    Attributes:
        our_port: our own port, None over a Unix socket.
        seen_port: the client's port as the server sees it, None where that sees a Unix socket.
        given_pid: the process number given at start-up, 0 where none was.
        pid: the number of the process that answers queries.
        session: what tells a session from all others of the server, also from earlier ones of that number.
        backend_type: as `pg_stat_activity` names it, None where it does not say.
    """

    our_port: int | None
    seen_port: int | None
    given_pid: int
    pid: int
    session: str
    backend_type: str | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the server is one process, which serves one session: an embedded PostgreSQL."""
        return self.backend_type == "standalone backend"

    @property
    def is_passed_on(self) -> bool | None:
        """Whether the server sees somebody else than us; None where it cannot tell."""
        if self.is_alone:
            return None  # it has no idea of ports
        if self.our_port is None and self.seen_port is None:
            return None
        return self.our_port != self.seen_port


@dataclass(frozen=True, slots=True)
class Between:
    """Who stands between us and the server.

    Attributes:
        kind: what it is.
        name: what it is called, with its version where that is known; empty where it is not.
        shares: one session of the server serves several connections, so that the server's slots say nothing
            about how many connections may be opened.
        alone: the server is one process with one session: who looks at it keeps everybody else out.
    """

    kind: Kind
    name: str = ""
    shares: bool = False
    alone: bool = False

    @property
    def words(self) -> str:
        """Such as `PgBouncer`, `a pooler`, `HAProxy (a proxy)`; empty where nobody is known to be there."""
        if self.kind == "pooler":
            return self.name or "a pooler"
        if self.kind == "proxy":
            return f"{self.name} (a proxy)" if self.name else "a proxy or address translation"
        return ""


NOBODY: Final = Between("nobody")
UNKNOWN: Final = Between("unknown")


def is_decided(sight: Sight, program: str | None) -> bool:
    """Whether one connection tells it all, so that no second one need be made."""
    return sight.is_alone or program in _SERVERS or sight.is_passed_on is False


def judge(
    first: Sight, second: Sight | None, *, program: str | None, outlived: bool | None, pgpool: str | None
) -> Between:
    """Who stands in between, by the rule of the head of this module.

    Args:
        first: a connection.
        second: another one, made once the first was closed; None where there was none.
        program: the name of the process of this machine that listens to us, None where it is not seen.
        outlived: whether the session of the first was still there a while after that was closed.
        pgpool: what answered to `SHOW pool_version`, None where that was an error, as with all others.
    """
    if first.is_alone:
        return Between("nobody", alone=True)
    if pgpool is not None:
        return Between("pooler", f"pgpool-II {pgpool}".strip(), shares=_shares(first, second, outlived))
    if first.is_passed_on is False or program in _SERVERS:
        # A number that is not the process's proves nothing: some servers make theirs up.
        return NOBODY
    name = _POOLERS.get(program or "") or _PROXIES.get(program or "") or program or ""
    if _shares(first, second, outlived) or program in _POOLERS:
        return Between("pooler", name, shares=True)
    makes_up = first.given_pid not in (0, first.pid)
    if first.is_passed_on is None:
        # Over a Unix socket only its behaviour tells, and whose socket it is.
        if makes_up:
            return Between("pooler", name, shares=True)
        return Between("proxy", name) if name else NOBODY if second is not None else UNKNOWN
    if makes_up:
        # It speaks the protocol itself, at least at the start.
        return Between("pooler", name, shares=True)
    return Between("proxy", name)


def _shares(first: Sight, second: Sight | None, outlived: bool | None) -> bool:
    return bool(outlived) or (second is not None and second.session == first.session)
