"""Connection service files, as libpq reads them.

https://www.postgresql.org/docs/current/libpq-pgservice.html (34.17), and `parseServiceFile` of libpq: the
user's file first, then the system's; within the section of the service a line is `name=value`, taken as it is
up to white space at its end; a name that comes twice keeps its first value. No I/O here.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from pool_bench.errors import UsageError

# libpq's MAXBUFSIZE with room for the line's end.
_LONGEST_LINE: Final = 1022
# Where Debian's libpq and PostgreSQL's own packages look where PGSYSCONFDIR does not say.
SYSTEM_DIRECTORIES: Final = ("/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc")
FILE_NAME: Final = "pg_service.conf"


def read_service(
    name: str,
    env: Mapping[str, str],
    names: Collection[str],
    read: Callable[[str], str | None],
) -> dict[str, str]:
    """The parameters of service `name`.

    Args:
        name: the service.
        env: environment variables; PGSERVICEFILE and PGSYSCONFDIR say where the files are.
        names: parameters that may be set.
        read: gives the text of the file at a path (`~` stands for the home directory), None where there is
            none.

    Raises:
        UsageError: no file has the service, or a file is not as it should be; no value is in the message.
    """
    own = env.get("PGSERVICEFILE")
    paths = [own or f"~/.{FILE_NAME}"]
    system = env.get("PGSYSCONFDIR")
    directories = (system,) if system else SYSTEM_DIRECTORIES
    paths += [f"{directory.rstrip('/')}/{FILE_NAME}" for directory in directories]
    looked = []
    for index, path in enumerate(paths):
        text = read(path)
        if text is None:
            if own and index == 0:
                raise UsageError(f"service file {path} (PGSERVICEFILE) is not there or cannot be read")
            continue
        looked.append(path)
        service = parse_service(text, name, path, names)
        if service is not None:
            return service
    where = f" in {', '.join(looked)}" if looked else f": there is no {paths[0]}, and no system-wide file"
    raise UsageError(f"service {name!r} is not defined{where}")


def parse_service(text: str, name: str, path: str, names: Collection[str]) -> dict[str, str] | None:
    """The parameters of service `name` in the file at `path`; None where it is not in there.

    Raises:
        UsageError: a line of the service is not as it should be; the message has file and line.
    """
    values: dict[str, str] = {}
    is_found = False
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.strip(" \t\r\f\v")
        place = f"{path}, line {number}"
        if len(whole) > _LONGEST_LINE:
            raise UsageError(f"{place}: longer than the {_LONGEST_LINE} characters that libpq takes")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if is_found:
                break
            is_found = line.startswith(f"[{name}]")
            continue
        if not is_found:
            continue
        if re.match(r"ldaps?:", line):
            raise UsageError(f"{place}: a look-up by LDAP is not supported; write the parameters instead")
        key, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"{place}: a line of a service is written name=value")
        if key in ("service", "servicefile"):
            raise UsageError(f"{place}: a service cannot name another service")
        if key not in names:
            shown = f" {key!r}" if re.fullmatch(r"[a-z_]{1,40}", key) else ""
            raise UsageError(f"{place}: parameter{shown} is not supported")
        values.setdefault(key, value)
    return values if is_found else None
