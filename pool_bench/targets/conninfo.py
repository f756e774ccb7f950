"""The names by which libpq is told where and how to connect: URL parameters and environment variables.

`PQconninfoOptions` and `EnvironmentOptions` of libpq (fe-connect.c of PostgreSQL 18), and
https://www.postgresql.org/docs/current/libpq-envars.html (34.15). Each is supported, or refused where its
value would change whom we connect to, by what rules, or how long that may take; never passed over.
"""

from collections.abc import Collection, Mapping
from typing import Final

from pool_bench.errors import UsageError

ENVIRONMENT: Final = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "channel_binding": "PGCHANNELBINDING",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "client_encoding": "PGCLIENTENCODING",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "gssencmode": "PGGSSENCMODE",
    "max_protocol_version": "PGMAXPROTOCOLVERSION",
    "min_protocol_version": "PGMINPROTOCOLVERSION",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "sslcertmode": "PGSSLCERTMODE",
    "sslcompression": "PGSSLCOMPRESSION",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "gssdelegation": "PGGSSDELEGATION",
}
# Those that have no environment variable.
_URL_ONLY: Final = (
    "sslpassword",
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "replication",
    "sslkeylogfile",
    "scram_client_key",
    "scram_server_key",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
)
PARAMETERS: Final = frozenset(ENVIRONMENT) | frozenset(_URL_ONLY)

# The values that ask for nothing that is not done; anything else is refused.
_HARMLESS: Final[dict[str, tuple[str, ...]]] = {
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable", "random"),
    "sslsni": ("0", "1"),
    "min_protocol_version": ("3.0",),
    "require_auth": (),
    "requirepeer": (),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslcrl": (),
    "sslcrldir": (),
    "krbsrvname": ("postgres",),
    "gsslib": ("gssapi",),
    "gssdelegation": ("0",),
    "keepalives": ("1",),
    "keepalives_idle": ("0",),
    "keepalives_interval": ("0",),
    "keepalives_count": ("0",),
    "tcp_user_timeout": ("0",),
    "replication": ("false", "off", "no", "0"),
    "sslkeylogfile": (),
    "scram_client_key": (),
    "scram_server_key": (),
    "oauth_issuer": (),
    "oauth_client_id": (),
    "oauth_client_secret": (),
    "oauth_scope": (),
}


def from_environment(env: Mapping[str, str], given: Collection[str]) -> dict[str, str]:
    """Parameters that `PG*` variables set; an empty variable sets none, as in libpq.

    Args:
        env: environment variables.
        given: parameters that are set already, by the URL or a service: their variables do not count.

    Raises:
        UsageError: one is set to what is not supported; the message has its name, and no value.
    """
    values = {}
    for key, variable in ENVIRONMENT.items():
        value = env.get(variable)
        if not value or key in given:
            continue
        if key in _HARMLESS and value not in _HARMLESS[key]:
            raise UsageError(f"{variable} {_why(key)}; unset it")
        values[key] = value
    # The name of before PostgreSQL 8; libpq still takes it.
    if "sslmode" not in given and env.get("PGREQUIRESSL", "").startswith("1"):
        values.setdefault("sslmode", "require")
    return values


def check_values(values: Mapping[str, str], shown: str) -> None:
    """See that no parameter asks for what is not supported.

    Args:
        values: parameters by name.
        shown: the URL for messages.

    Raises:
        UsageError: one does.
    """
    for key, allowed in _HARMLESS.items():
        if values.get(key) and values[key] not in allowed:
            raise UsageError(f"{shown}: {key} {_why(key)}")


def _why(key: str) -> str:
    allowed = _HARMLESS[key]
    return f"can only be {' or '.join(allowed)} here" if allowed else "is not supported"
