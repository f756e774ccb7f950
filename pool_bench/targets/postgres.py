"""Targets: PostgreSQL URLs the way libpq reads them, printable only without their password.

https://www.postgresql.org/docs/current/libpq-connect.html (34.1.1.2 connection URIs, 34.1.2
parameter key words, 34.15 environment variables, 34.16 the password file). No I/O here: what the
environment and files hold is passed in.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final, Literal, TypeVar, cast, get_args
from urllib.parse import quote, unquote

from pool_bench.errors import UsageError
from pool_bench.targets.addresses import Way, label_of
from pool_bench.targets.conninfo import PARAMETERS, check_values, from_environment
from pool_bench.targets.service_file import read_service

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
SslNegotiation = Literal["postgres", "direct"]
ChannelBinding = Literal["disable", "prefer", "require"]
SessionAttrs = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
TlsVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
ProtocolVersion = Literal["3.0", "3.2", "latest"]
_Choice = TypeVar("_Choice")

DEFAULT_PORT: Final = 5432
_MASK: Final = "***"
# What stands behind an unescaped colon in the password is dropped, as libpq does.
_PASSFILE_LINE: Final = re.compile(r"((?:\\.|[^:\\])*):" * 4 + r"((?:\\.|[^:\\]|\\$)*)")

_SECRET_NAME: Final = re.compile(r"(?i)pass|pwd|secret|token")
# From the first colon to the last @ before the next URL, so that an unescaped @ hides all of it.
_CREDENTIALS: Final = re.compile(r"(//[^:\s]*):(?:(?![\s,]+[a-z]+://).)*@", re.DOTALL)
# `scheme://user:secret` without a host: what stands where a port belongs may be a password.
_CREDENTIALS_ONLY: Final = re.compile(r"(://[^:/@?\s\[]*):(?!\d{0,5}(?:[,/?\s]|$)|\*\*\*@)\S*")
_WORD: Final = re.compile(r"\S+")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ENCODED_NAME: Final = re.compile(r"(?<=[?&])[^=&\s]*%[^=&\s]*(?==)")
# An unescaped & is part of the secret unless a parameter follows it.
_SECRET_VALUE: Final = re.compile(
    r"(?i)\b(\w*(?:pass|pwd|secret|token|scram_client_key|scram_server_key)\w*\s*=\s*)"
    rf"(?:'(?:\\.|[^'\\])*'|(?!&(?:{'|'.join(sorted(PARAMETERS))})=)\S)*"
)

# These name a server. Someone who only keeps PGUSER or PGPASSWORD in a profile named none.
NAMING_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE")

# Drivers that close the socket first: libpq does not wait for the server's end; the others do.
_CLOSE_FIRST: Final = ("psycopg",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One place to try: a name, an address or the directory of a Unix socket.

    Attributes:
        name: what certificates are checked against and people are shown.
        port: TCP port, or the number in the Unix socket's name.
        address: numeric address that replaces the look-up of `name`, if given.
        password: the password for this host from the password file, if that is where it came from.
    """

    name: str
    port: int = DEFAULT_PORT
    address: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket (a directory, or an abstract name that starts with `@`)."""
        return self.address is None and self.name.startswith(("/", "@"))

    @property
    def is_named(self) -> bool:
        """True where it has a name and no address; TLS tells only names (RFC 6066, section 3)."""
        if self.is_unix:
            return False
        try:
            ip_address(self.address or self.name)
        except ValueError:
            return True
        return False

    @property
    def socket_path(self) -> str:
        """Path of the Unix socket; an abstract one starts with a zero byte."""
        path = f"{self.name}/.s.PGSQL.{self.port}"
        return "\0" + path[1:] if path.startswith("@") else path

    @property
    def way(self) -> Way:
        """The way to it."""
        if self.is_unix:
            return Way(str(self), path=self.socket_path)
        return Way(str(self), self.address or self.name, self.port)

    def __str__(self) -> str:
        name = re.sub(
            r"[^\w.:~-]", lambda match: quote(match[0], errors="surrogateescape", safe=""), self.name
        )
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresTarget:
    """A server or pooler to connect to, in libpq's terms.

    `str()` and `repr()` never contain a password.
    """

    hosts: tuple[Host, ...]
    user: str
    dbname: str
    password: str | None = field(default=None, repr=False)
    sslmode: SslMode = "prefer"
    sslnegotiation: SslNegotiation = "postgres"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: str | None = field(default=None, repr=False)
    sslsni: bool = True
    ssl_min_protocol_version: TlsVersion = "TLSv1.2"
    ssl_max_protocol_version: TlsVersion | None = None
    channel_binding: ChannelBinding = "prefer"
    application_name: str = ""
    client_encoding: str | None = None
    options: str | None = None
    connect_timeout_s: float | None = None
    load_balance_hosts: bool = False
    target_session_attrs: SessionAttrs = "any"
    max_protocol_version: ProtocolVersion = "3.0"

    def password_for(self, host: Host) -> str | None:
        """The password to use at `host`: an explicit one, else the password file's."""
        return self.password if self.password is not None else host.password

    def shared_password(self, driver: str) -> str | None:
        """The one password for all hosts, for a driver that takes no other.

        Raises:
            UsageError: the password file has different ones.
        """
        passwords = {self.password_for(host) for host in self.hosts}
        if len(passwords) > 1:
            raise UsageError(
                f"{self}: the password file has different passwords for these hosts; {driver} takes one, "
                "wire takes all"
            )
        return passwords.pop()

    @property
    def has_one_address(self) -> bool:
        """Whether there is one place to connect to: a single host that is an address or a Unix socket."""
        host = self.hosts[0]
        if len(self.hosts) > 1 or self.target_session_attrs == "prefer-standby":
            return False
        return not host.is_named

    @property
    def only_address(self) -> str:
        """The one place to connect to, as results name it; "" where there may be several."""
        if not self.has_one_address:
            return ""
        host = self.hosts[0]
        return label_of(host.socket_path if host.is_unix else (host.address or host.name, host.port))

    @property
    def ways(self) -> tuple[Way, ...]:
        """The ways to its hosts, in the order in which they are tried."""
        return tuple(host.way for host in self.hosts)

    @property
    def uncommon_settings(self) -> tuple[str, ...]:
        """What it asks for that not every driver can honour, as it stands in a URL."""
        is_named = self.sslmode != "disable" and any(host.is_named for host in self.hosts)
        asked = {
            "channel_binding=require": self.channel_binding == "require",
            "load_balance_hosts=random": self.load_balance_hosts,
            "sslsni=0": not self.sslsni and is_named,
            "max_protocol_version=3.2": self.max_protocol_version == "3.2",
        }
        return tuple(setting for setting, is_asked in asked.items() if is_asked)

    def client_closes_first(self, driver: str) -> bool:
        """Whether `driver` closes the socket before the server does, and so keeps its local port."""
        return driver in _CLOSE_FIRST

    @property
    def server_closes_with(self) -> str:
        """What to use so that the server closes first, in words."""
        return "--driver wire, which lets the server close first"

    def startup_parameters(self) -> dict[str, str]:
        """The parameters of the StartupMessage, in the order libpq sends them."""
        parameters = {"user": self.user, "database": self.dbname}
        if self.options:
            parameters["options"] = self.options
        if self.application_name:
            parameters["application_name"] = self.application_name
        if self.client_encoding:
            parameters["client_encoding"] = self.client_encoding
        return parameters

    def __str__(self) -> str:
        """A URL without secrets that names the target."""
        places = ",".join(str(host) for host in self.hosts)
        user, dbname = (quote(name, safe="", errors="surrogateescape") for name in (self.user, self.dbname))
        text = f"postgresql://{user}@{places}/{dbname}"
        shown = []
        if self.sslmode != "prefer":
            shown.append(f"sslmode={self.sslmode}")
        if self.sslnegotiation != "postgres":
            shown.append(f"sslnegotiation={self.sslnegotiation}")
        return text + ("?" + "&".join(shown) if shown else "")


def redact(text: str) -> str:
    """Remove what is or could be a password from a URL, or from anything that contains one.

    Malformed URLs lose more than well-formed ones, never less.
    """
    text = _CREDENTIALS.sub(rf"\1:{_MASK}@", text)
    text = _CREDENTIALS_ONLY.sub(rf"\1:{_MASK}", text)
    text = _WORD.sub(lambda match: _without_bare(match[0]), text)
    text = _ENCODED_NAME.sub(
        lambda match: unquote(match[0]) if _SECRET_NAME.search(unquote(match[0])) else match[0], text
    )
    return _SECRET_VALUE.sub(rf"\1{_MASK}", text)


def _without_bare(word: str) -> str:
    """A word without what may be a password in a URL that lacks its scheme, as `user:secret@host`."""
    colon, at = word.find(":"), word.rfind("@")
    if colon < 0 or at < colon or word.startswith("://", colon):
        return word
    return f"{word[: colon + 1]}{_MASK}{word[at:]}"


def shown_url(url: str) -> str:
    """`url` for an error message: on one line and without secrets."""
    is_url = _SCHEME.match(url) is not None
    # White space ends a URL in running text; here all of it is one.
    url = "".join(c if c.isprintable() and c != " " else "\N{REPLACEMENT CHARACTER}" for c in url)
    if is_url:
        return redact(url)
    # Where a value of a keyword/value string ends is not to be told, nor whether `one:other` has a port.
    name, colon, _ = url.partition(":")
    return _MASK if "=" in url or "/" in name else redact(name) + (f"{colon}{_MASK}" if colon else "")


_shown = shown_url


def parse_target(
    url: str,
    *,
    env: Mapping[str, str],
    default_user: str,
    default_host: str = "localhost",
    read_passfile: Callable[[str | None], str] = lambda path: "",
    read_service_file: Callable[[str], str | None] = lambda path: None,
) -> PostgresTarget:
    """Read a `postgresql://` URL; what it leaves out comes from `PG*` variables in `env`.

    Args:
        url: the URL; `postgresql://` alone takes everything from `env` and the defaults.
        env: environment variables.
        default_user: user where neither names one (libpq takes the operating system's).
        default_host: host where neither names one.
        read_passfile: gives the text of the password file at a path (None: the default place),
            "" where there is none.
        read_service_file: gives the text of the service file at a path, None where there is none.

    Raises:
        UsageError: the URL, a variable or a service file is malformed or asks for something unsupported; no
            secret in the message.
    """
    values = _split_url(url)
    service = values.pop("service", "") or env.get("PGSERVICE")
    if service:
        named = read_service(service, env, PARAMETERS, read_service_file)
        values = named | values
    values = from_environment(env, values) | values
    values.pop("service", None)
    return _build(values, default_user, default_host, read_passfile, _shown(url))


def _split_url(url: str) -> dict[str, str]:
    """The parameters a URL names; the scan of libpq's conninfo_uri_parse_options."""
    scheme = re.match(r"postgres(?:ql)?://", url)
    if scheme is None and "=" in url and _SCHEME.match(url) is None:
        raise UsageError(
            "a keyword/value string is not a PostgreSQL URL (postgresql://user@host:port/database)"
        )
    if scheme is None:
        raise UsageError(f"{_shown(url)} is not a PostgreSQL URL (postgresql://user@host:port/database)")
    values: dict[str, str] = {}
    rest = url[scheme.end() :]
    # More lenient than libpq in one thing: an unescaped @ may stand in the password.
    at = re.split(r"[/?]", rest, maxsplit=1)[0].rfind("@")
    if at < 0:
        at = rest.partition("/")[0].find("@")
    if at >= 0:
        user, _, password = rest[:at].partition(":")
        if user:
            values["user"] = _decode(user, url)
        if password:
            values["password"] = _decode(password, url)
    rest, _, query = rest[at + 1 :].partition("?")
    places, _, path = rest.partition("/")
    names, ports = zip(*(_split_place(place, url) for place in places.split(",")), strict=True)
    # Two empty places are still two places.
    if any(names) or len(names) > 1:
        values["host"] = ",".join(names)
    if any(ports) or len(ports) > 1:
        values["port"] = ",".join(ports)
    if "@" in path:
        # libpq would take the rest of a password with an unescaped / for a database, and show it.
        raise UsageError(f"{_shown(url)}: write / in a password as %2F, and @ in a database name as %40")
    if path:
        values["dbname"] = _decode(path, url)
    return values | _split_query(query, url)


def _split_query(query: str, url: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in query.removesuffix("&").split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise UsageError(f"{_shown(url)}: a URL parameter is written name=value")
        key, value = _decode(key, url), _decode(value, url)
        if key == "ssl" and value == "true":
            key, value = "sslmode", "require"
        if key not in PARAMETERS:
            # Behind an unescaped ? or & in a password the "name" would be the rest of it.
            named = f" {key!r}" if re.fullmatch(r"[a-z_]+", key) and f"{key}=" in _shown(url) else ""
            raise UsageError(f"{_shown(url)}: URL parameter{named} is not supported")
        values[key] = value
    return values


def _split_place(place: str, url: str) -> tuple[str, str]:
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]*)(?::(.*))?", place, re.DOTALL)
    if match is None:
        raise UsageError(f"{_shown(url)}: write an IPv6 address in brackets, as [::1]:5432")
    return _decode(match[1].strip("[]"), url), _decode(match[2] or "", url)


def _decode(text: str, url: str) -> str:
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        raise UsageError(f"{_shown(url)}: a percent sign must be written %25")
    decoded = unquote(text, errors="surrogateescape")
    if "\0" in decoded:
        raise UsageError(f"{_shown(url)}: a zero byte (%00) is not allowed")
    return decoded


def _build(
    values: dict[str, str],
    default_user: str,
    default_host: str,
    read_passfile: Callable[[str | None], str],
    shown: str,
) -> PostgresTarget:
    check_values(values, shown)
    user = values.get("user") or default_user
    # A certificate from a public authority proves nothing without the name in it.
    default_mode: SslMode = "verify-full" if values.get("sslrootcert") == "system" else "prefer"
    target = PostgresTarget(
        hosts=_hosts(values, default_host, shown),
        user=user,
        dbname=values.get("dbname") or user,
        password=values.get("password") or None,
        sslmode=_choice(values, "sslmode", SslMode, default_mode, shown),
        sslnegotiation=_choice(values, "sslnegotiation", SslNegotiation, "postgres", shown),
        sslrootcert=values.get("sslrootcert") or None,
        sslcert=values.get("sslcert") or None,
        sslkey=values.get("sslkey") or None,
        sslpassword=values.get("sslpassword") or None,
        sslsni=values.get("sslsni") != "0",
        ssl_min_protocol_version=_choice(values, "ssl_min_protocol_version", TlsVersion, "TLSv1.2", shown),
        ssl_max_protocol_version=_choice(values, "ssl_max_protocol_version", TlsVersion, None, shown),
        channel_binding=_choice(values, "channel_binding", ChannelBinding, "prefer", shown),
        application_name=values.get("application_name") or values.get("fallback_application_name", ""),
        client_encoding=values.get("client_encoding"),
        options=values.get("options"),
        connect_timeout_s=_connect_timeout(values.get("connect_timeout"), shown),
        load_balance_hosts=values.get("load_balance_hosts") == "random",
        target_session_attrs=_choice(values, "target_session_attrs", SessionAttrs, "any", shown),
        max_protocol_version=_choice(values, "max_protocol_version", ProtocolVersion, "3.0", shown),
    )
    _check_tls(target, shown)
    if target.password is None:
        target = _with_passfile(target, read_passfile(values.get("passfile")))
    return target


def _choice(values: Mapping[str, str], key: str, choices: object, default: _Choice, shown: str) -> _Choice:
    value = values.get(key)
    if value is None:
        return default
    allowed = get_args(choices)
    if value not in allowed:
        raise UsageError(f"{shown}: {key} must be one of {', '.join(allowed)}")
    return cast("_Choice", value)


def _connect_timeout(text: str | None, shown: str) -> float | None:
    """libpq: whole seconds; zero, negative or absent mean no limit."""
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
        raise UsageError(f"{shown}: connect_timeout must be a whole number of seconds")
    return float(text) if int(text) > 0 else None


def _check_tls(target: PostgresTarget, shown: str) -> None:
    strong = ("require", "verify-ca", "verify-full")
    if target.sslnegotiation == "direct" and target.sslmode not in strong:
        raise UsageError(f"{shown}: sslnegotiation=direct needs sslmode=require, verify-ca or verify-full")
    if target.sslrootcert == "system" and target.sslmode != "verify-full":
        raise UsageError(f"{shown}: sslrootcert=system needs sslmode=verify-full")
    if target.channel_binding == "require" and target.sslmode == "disable":
        raise UsageError(f"{shown}: channel_binding=require needs TLS, but sslmode is disable")
    order = get_args(TlsVersion)
    newest = target.ssl_max_protocol_version
    if newest is not None and order.index(newest) < order.index(target.ssl_min_protocol_version):
        raise UsageError(f"{shown}: ssl_max_protocol_version is below ssl_min_protocol_version")


def _hosts(values: Mapping[str, str], default_host: str, shown: str) -> tuple[Host, ...]:
    addresses = values["hostaddr"].split(",") if values.get("hostaddr") else []
    names = values["host"].split(",") if "host" in values else [""] * max(1, len(addresses))
    ports = values.get("port", "").split(",")
    if addresses and len(addresses) != len(names):
        raise UsageError(f"{shown}: {len(names)} hosts but {len(addresses)} addresses in hostaddr")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise UsageError(f"{shown}: {len(names)} hosts but {len(ports)} ports")
    hosts = []
    for index, (name, port) in enumerate(zip(names, ports, strict=True)):
        address = addresses[index] if addresses and addresses[index] else None
        # The text is not shown: where `user:secret` lacks its host, it is a password.
        if port and not (re.fullmatch(r"0*[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
            raise UsageError(f"{shown}: the port must be a number from 1 to 65535")
        hosts.append(
            Host(name=name or address or default_host, port=int(port or DEFAULT_PORT), address=address)
        )
    return tuple(hosts)


def _with_passfile(target: PostgresTarget, text: str) -> PostgresTarget:
    if not text:
        return target
    entries = parse_passfile(text)
    hosts = tuple(
        replace(host, password=_look_up(entries, host, target.dbname, target.user)) for host in target.hosts
    )
    return replace(target, hosts=hosts)


def parse_passfile(text: str) -> list[tuple[tuple[str | None, ...], str]]:
    r"""Entries of a password file: host, port, database and user (None matches any), and the password.

    Fields are split at `:`; `\:` and `\\` stand for the characters themselves. Comments and lines
    without five fields are passed over, as libpq does.
    """
    entries: list[tuple[tuple[str | None, ...], str]] = []
    # Not splitlines(), which also splits at characters a password may contain.
    for line in text.split("\n"):
        match = _PASSFILE_LINE.match(line.rstrip("\r"))
        if match is not None and not line.startswith("#"):
            *fields, password = match.groups()
            keys = tuple(None if part == "*" else _unescape(part) for part in fields)
            entries.append((keys, _unescape(password)))
    return entries


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _look_up(
    entries: list[tuple[tuple[str | None, ...], str]], host: Host, dbname: str, user: str
) -> str | None:
    # Sockets in a default directory are found under the name localhost.
    names = {host.name, "localhost"} if host.name in ("/tmp", "/var/run/postgresql") else {host.name}  # noqa: S108
    for (entry_host, *others), password in entries:
        if (entry_host is None or entry_host in names) and all(
            wanted is None or wanted == actual
            for wanted, actual in zip(others, (str(host.port), dbname, user), strict=True)
        ):
            return password or None
    return None
