"""SurrealDB targets: URLs as its clients read them, printable only without their password.

https://surrealdb.com/docs/sdk/python/concepts/connecting-to-surrealdb. No I/O here: the environment is passed
in.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args
from urllib.parse import quote, unquote, urlsplit

from pool_bench.errors import UsageError
from pool_bench.targets.addresses import Way
from pool_bench.targets.postgres import shown_url

Scheme = Literal["ws", "wss", "http", "https"]
AuthLevel = Literal["root", "namespace", "database"]
AuthMode = Literal["signin", "token", "none"]
SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)
AUTH_LEVELS: Final[tuple[AuthLevel, ...]] = get_args(AuthLevel)
AUTH_MODES: Final[tuple[AuthMode, ...]] = get_args(AuthMode)

URL_VARIABLE: Final = "SURREAL_URL"
_ENVIRONMENT: Final = {
    "user": "SURREAL_USER",
    "password": "SURREAL_PASS",
    # The names that the program `surreal` knows.
    "namespace": "SURREAL_NAMESPACE",
    "database": "SURREAL_DATABASE",
}
_DEFAULT_PORTS: Final[Mapping[Scheme, int]] = {"ws": 80, "wss": 443, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealTarget:
    """A SurrealDB to connect to.

    `str()` and `repr()` never contain a password.

    Attributes:
        scheme: how it is spoken to.
        host: name or address, without brackets.
        port: TCP port.
        path: of the RPC endpoint.
        namespace: what to select after signing in; None is nothing.
        database: likewise; only together with a namespace.
        user: whom to sign in as; None is nobody.
        password: of that user.
        level: where that user was defined.
        ca_file: PEM file with the authorities to trust instead of the system's, for `wss` and `https`.
        verify: whether to check the server's certificate.
    """

    scheme: Scheme
    host: str
    port: int
    path: str = "/rpc"
    namespace: str | None = None
    database: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    level: AuthLevel = "root"
    ca_file: str | None = None
    verify: bool = True

    @property
    def has_one_address(self) -> bool:
        """Whether the host is an address, not a name, which may have several."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_secure(self) -> bool:
        """Whether it is spoken to through TLS."""
        return self.scheme in ("wss", "https")

    @property
    def is_websocket(self) -> bool:
        """Whether it is spoken to through a WebSocket, and not through HTTP requests."""
        return self.scheme in ("ws", "wss")

    @property
    def ways(self) -> tuple[Way, ...]:
        """The one way to it."""
        return (Way(self.authority, self.host, self.port),)

    @property
    def uncommon_settings(self) -> tuple[str, ...]:
        """What it asks for that not every driver can honour: nothing."""
        return ()

    def shared_password(self, driver: str) -> str | None:
        """The one password, for any driver."""
        return self.password

    def client_closes_first(self, driver: str) -> bool:
        """Whether this side closes the socket before the server does, and so keeps its local port.

        The end of a WebSocket is the server's (RFC 6455, section 7.1.1), that of HTTP the client's, which
        has no other goodbye; all drivers do the same.
        """
        return not self.is_websocket

    @property
    def server_closes_with(self) -> str:
        """What to use so that the server closes first, in words."""
        return "a ws:// or wss:// URL, with which the server closes first"

    @property
    def authority(self) -> str:
        """Host and port, as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL without a user, and without `/rpc`: what the official client takes."""
        return f"{self.scheme}://{self.authority}{self.path.removesuffix('/rpc')}"

    def credentials(self) -> dict[str, str]:
        """The parameters of the method `signin`.

        Raises:
            UsageError: there is no user or no password, or no place at the user's level.
        """
        if self.user is None or self.password is None:
            raise UsageError("signing in needs --user and --pass (or SURREAL_USER and SURREAL_PASS)")
        credentials = {"user": self.user, "pass": self.password}
        if self.level == "root":
            return credentials
        if self.namespace is None:
            needs = "--namespace" if self.level == "namespace" else "--namespace and --database"
            raise UsageError(f"--level {self.level} needs {needs}")
        credentials["ns"] = self.namespace
        if self.level == "database":
            if self.database is None:
                raise UsageError("--level database needs --database")
            credentials["db"] = self.database
        return credentials

    def __str__(self) -> str:
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        return f"{self.scheme}://{user}{self.authority}{self.path}"


def names_surreal(url: str) -> bool:
    """Whether `url` has a scheme by which SurrealDB is reached."""
    return url.partition("://")[0].lower() in SCHEMES


def surreal_target(
    url: str | None = None,
    *,
    namespace: str | None = None,
    database: str | None = None,
    user: str | None = None,
    password: str | None = None,
    level: AuthLevel = "root",
    ca_file: str | None = None,
    verify: bool = True,
    environ: Mapping[str, str],
) -> SurrealTarget:
    """A target from what the user gave: an option, else the URL, else the environment.

    Args:
        url: such as `ws://user:password@127.0.0.1:8000`; None takes `SURREAL_URL`.
        environ: where `SURREAL_URL`, `SURREAL_USER`, `SURREAL_PASS`, `SURREAL_NAMESPACE` and
            `SURREAL_DATABASE` are looked for.

    Raises:
        UsageError: no URL, or one that cannot be right; one line, without a password.
    """
    option = "--url"
    if url is None:
        url, option = environ.get(URL_VARIABLE, ""), URL_VARIABLE
        if not url:
            raise UsageError(f"no target: give --url, or set {URL_VARIABLE}")
    if not url:
        raise UsageError("--url is empty")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{option}: {shown_url(url)!r} is not a URL: {_reason(error)}") from None
    if parts.scheme not in SCHEMES:
        raise UsageError(
            f"{option}: a SurrealDB URL begins with {', '.join(SCHEMES)}, not {shown_url(url)!r}"
        )
    scheme = parts.scheme
    if "@" in parts.path:
        # What stands before it would be taken for the host, and be looked up.
        raise UsageError(f"{option}: write / in a password as %2F, in {shown_url(url)!r}")
    host = _host(parts.hostname, option, url)
    if parts.query or parts.fragment:
        raise UsageError(f"{option}: nothing may follow a ? or # in {shown_url(url)!r}")
    if port == 0:
        raise UsageError(f"{option}: port 0 cannot be connected to")
    for name, value in (("namespace", namespace), ("database", database)):
        if value == "":
            raise UsageError(f"--{name} must not be empty")
    given = {
        "user": user if user is not None else _unquoted(parts.username),
        "password": password if password is not None else _unquoted(parts.password),
        "namespace": namespace,
        "database": database,
    }
    known = {
        name: value if value is not None else environ.get(_ENVIRONMENT[name]) or None
        for name, value in given.items()
    }
    if known["database"] is not None and known["namespace"] is None:
        raise UsageError("--database needs --namespace")
    return SurrealTarget(
        scheme=scheme,
        host=host,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        path=f"{parts.path.rstrip('/').removesuffix('/rpc')}/rpc",
        user=known["user"],
        password=known["password"],
        namespace=known["namespace"],
        database=known["database"],
        level=level,
        ca_file=ca_file,
        verify=verify,
    )


def _host(name: str | None, option: str, url: str) -> str:
    if not name or any(not mark.isprintable() or mark in " \\\"'<>^`{|}" for mark in name):
        raise UsageError(f"{option}: no host in {shown_url(url)!r}")
    if ":" in name:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise UsageError(f"{option}: {name!r} is not an address") from None
    return name


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _reason(error: ValueError) -> str:
    """What urllib says, where it does not repeat the part of the URL that may be a password."""
    text = str(error)
    return text.partition(":")[0].partition(" as ")[0] if "Port" in text else "it cannot be read"
