"""What all wire connections to one target have in common, worked out once.

A connect cycle is tens of microseconds; nothing that can be computed before it belongs in it.
"""

import socket
import ssl
from dataclasses import dataclass, field
from typing import Final

from pool_bench.drivers.network.addresses import SocketEndpoint, literal_endpoint, look_up
from pool_bench.drivers.network.failures import StreamError
from pool_bench.drivers.network.local_ports import LOCAL_PORTS, LocalPorts
from pool_bench.drivers.network.source_addresses import SourceAddresses
from pool_bench.drivers.network.tls import postgres_context
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.pgwire import Credentials, ScramKeyCache
from pool_bench.pgwire.events import Query, Startup
from pool_bench.targets.postgres import Host, PostgresTarget

# Linux makes a socket non-blocking in the system call that makes it.
STREAM: Final = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
_MINOR_VERSIONS: Final = {"3.0": 0, "3.2": 2, "latest": 2}


@dataclass(frozen=True, slots=True)
class Endpoint(SocketEndpoint):
    """One address of one host.

    Attributes:
        host: the host it belongs to.
        credentials: whom to be there.
    """

    host: Host
    credentials: Credentials

    @staticmethod
    def of(endpoint: SocketEndpoint, host: Host, credentials: Credentials) -> "Endpoint":
        """An address as one of `host`."""
        return Endpoint(endpoint.family, endpoint.address, endpoint.is_near, host, credentials)


@dataclass(slots=True)
class Farewell:
    """What was learned of how a target's connections end.

    Attributes:
        half_close: the server closes only once our side has ended, too.
        silent: connections in a row that it did not close at all.
    """

    half_close: bool = False
    silent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WirePlan:
    """Everything a wire connection to `target` needs.

    Attributes:
        target: where to.
        startup: the start-up message.
        query: what to run once ready, if anything.
        tls: the TLS context, None where sslmode or the socket rules TLS out.
        tls_first: whether to begin with TLS; sslmode=allow turns to it only when it is refused.
        endpoints: addresses that need no look-up, in order; None where a name must be resolved.
        sources: local addresses to connect from, None where the system chooses.
        ports: from which local ports.
        farewell: how connections end, learned as they do.
    """

    target: PostgresTarget
    startup: Startup
    query: Query | None
    tls: ssl.SSLContext | None
    tls_first: bool
    endpoints: tuple[Endpoint, ...] | None
    credentials: dict[Host, Credentials] = field(repr=False)
    sources: SourceAddresses | None = None
    ports: LocalPorts = field(default=LOCAL_PORTS, compare=False)
    farewell: Farewell = field(default_factory=Farewell, compare=False)

    @property
    def is_multiple(self) -> bool:
        """Whether a connect may come to more than one address."""
        return self.endpoints is None or len(self.endpoints) > 1

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases a cycle by this plan can have, in order."""
        phases = [Phase.TCP, Phase.AUTH, Phase.READY]
        if self.endpoints is None:
            phases.insert(0, Phase.RESOLVE)
        if self.is_multiple:
            phases.insert(phases.index(Phase.TCP), Phase.EARLIER)
        if self.tls is not None:
            phases.insert(phases.index(Phase.AUTH), Phase.TLS)
        if self.query is not None:
            phases.append(Phase.QUERY)
        return (*phases, Phase.CLOSE)


def make_plan(
    target: PostgresTarget,
    *,
    query: str | None = None,
    cache: ScramKeyCache | None = None,
    source_ips: tuple[str, ...] = (),
) -> WirePlan:
    """Work out what connections to `target` share.

    Args:
        target: where to.
        query: SQL to run on each connection once it is ready.
        cache: SCRAM keys to reuse; None derives them for each connection.
        source_ips: local addresses to connect from in turn.

    Raises:
        UsageError: a certificate file is unusable, or a parameter or query holds a zero byte.
    """
    credentials = {
        host: Credentials(
            user=target.user,
            password=target.password_for(host),
            channel_binding=target.channel_binding,
            cache=cache,
        )
        for host in target.hosts
    }
    try:
        startup = Startup(target.startup_parameters(), _MINOR_VERSIONS[target.max_protocol_version])
        query_event = Query(query) if query else None
    except ValueError as error:
        raise UsageError(f"{target}: {error}") from None
    needs_tls = target.sslmode != "disable" and not all(host.is_unix for host in target.hosts)
    literal = [_literal_endpoint(host, credentials[host]) for host in target.hosts]
    known = tuple(endpoint for endpoint in literal if endpoint is not None)
    return WirePlan(
        target=target,
        startup=startup,
        query=query_event,
        tls=postgres_context(target) if needs_tls else None,
        tls_first=needs_tls and target.sslmode != "allow",
        endpoints=known if len(known) == len(literal) else None,
        credentials=credentials,
        sources=SourceAddresses(source_ips) if source_ips else None,
    )


def _literal_endpoint(host: Host, credentials: Credentials) -> Endpoint | None:
    """The endpoint of a socket directory or numeric address; None where a name must be looked up."""
    if host.is_unix:
        return Endpoint(socket.AF_UNIX, host.socket_path, True, host, credentials)
    literal = literal_endpoint(host.address or host.name, host.port)
    return None if literal is None else Endpoint.of(literal, host, credentials)


def resolve(plan: WirePlan) -> tuple[Endpoint, ...]:
    """Look up the plan's hosts; blocking, so call it in a thread.

    Hosts that cannot be resolved are passed over while another one can be, as libpq does.

    Raises:
        ConnectError: no host has an address.
    """
    endpoints: list[Endpoint] = []
    problem = "no address found"
    for host in plan.target.hosts:
        credentials = plan.credentials[host]
        literal = _literal_endpoint(host, credentials)
        if literal is not None:
            endpoints.append(literal)
            continue
        try:
            addresses = look_up(host.address or host.name, host.port, host.name)
        except StreamError as error:
            problem = error.message
        else:
            endpoints += [Endpoint.of(address, host, credentials) for address in addresses]
    if not endpoints:
        raise ConnectError(FailureKind.DNS, Phase.RESOLVE, problem)
    return tuple(endpoints)
