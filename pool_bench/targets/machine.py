"""What this machine adds to a PostgreSQL URL, as for libpq: user name, socket directory, password, services.

https://www.postgresql.org/docs/current/libpq-connect.html (34.1.2), libpq-pgpass.html (34.16) and
libpq-pgservice.html (34.17).
"""

import getpass
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from pool_bench.targets.postgres import PostgresTarget, parse_target


def read_postgres_url(url: str, env: Mapping[str, str]) -> PostgresTarget:
    """Read one URL; what it leaves out comes from `env`, this account and its files.

    Raises:
        UsageError: the URL, a variable or a service file is malformed or asks for something unsupported.
    """
    return parse_target(
        url,
        env=env,
        default_user=_system_user(),
        default_host=_default_host(),
        read_passfile=_read_passfile,
        read_service_file=_read_service_file,
    )


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an entry in the password database
        return "postgres"


def _default_host() -> str:
    for directory in ("/var/run/postgresql", "/tmp"):  # noqa: S108  # libpq's own defaults
        if any(Path(directory).glob(".s.PGSQL.*[0-9]")):
            return directory
    return "localhost"


def _read_passfile(path: str | None) -> str:
    """The password file's text, "" without one; like libpq, one that others can read is not used."""
    file = Path(path).expanduser() if path else Path("~/.pgpass").expanduser()
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return ""
            if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                print(
                    f"warning: {file} is not used: others can read it (chmod 600 {file})",
                    file=sys.stderr,
                )
                return ""
            return stream.read()
    except OSError:
        return ""


def _read_service_file(path: str) -> str | None:
    """The service file's text, None where there is none that can be read."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, RuntimeError):  # also where there is no home directory
        return None
