"""One look at a SurrealDB before it is used: what it is, and whether there is what is to be selected.

Selecting a namespace or a database makes it where it is missing, at least for those who may. So a look asks
first and selects nothing: a typing error shall not leave a namespace behind on somebody's server.
"""

from dataclasses import dataclass, replace

from pool_bench.drivers.base import ServerInfo
from pool_bench.drivers.surreal.driver import SurrealConnection, SurrealDriver, info_of
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.surreal import AuthMode, SurrealTarget


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was seen.

    Attributes:
        info: product and version.
        missing: what is not there, as a sentence; None where all is, or where it may not be seen.
    """

    info: ServerInfo
    missing: str | None


async def inspect(
    target: SurrealTarget, auth: AuthMode, *, create: bool = False, connect_timeout_s: float | None = None
) -> Preflight:
    """Connect once, sign in as connections will, and ask.

    Args:
        target: where to.
        auth: how to sign in.
        create: select namespace and database at once, which makes what is missing.
        connect_timeout_s: bound on connecting, seconds; the error then names the step that took too long.

    Raises:
        ConnectError: no connection could be opened, or signing in was refused.
        UsageError: the target cannot be used like this.
    """
    # Users of a namespace or database name it when they sign in, and could not make another one.
    blind = not create and target.level == "root"
    seen = replace(target, namespace=None, database=None) if blind else target
    connection = await SurrealDriver(seen, auth=auth, connect_timeout_s=connect_timeout_s).connect()
    try:
        info = info_of(await connection.version())
        missing = await _missing(connection, target) if blind and auth != "none" else None
    finally:
        await connection.close()
    return Preflight(info, missing)


async def _missing(connection: SurrealConnection, target: SurrealTarget) -> str | None:
    namespace, database = target.namespace, target.database
    if namespace is None:
        return None
    try:
        (root,) = await connection.query("INFO FOR ROOT")
        if namespace not in root["namespaces"]:
            quoted = _quoted(namespace)
            return (
                f"there is no namespace {namespace!r} (--namespace); DEFINE NAMESPACE {quoted} would make it"
            )
        if database is None:
            return None
        _, names = await connection.query(f"USE NS {_quoted(namespace)}; INFO FOR NS")
        if database not in names["databases"]:
            return (
                f"there is no database {database!r} in the namespace {namespace!r} (--database); "
                f"DEFINE DATABASE {_quoted(database)} would make it"
            )
    except ConnectError as error:
        # Who may use a server need not be allowed to look around in it.
        if error.kind is not FailureKind.AUTH or error.phase is not Phase.QUERY:
            raise
    except (KeyError, TypeError, ValueError):
        return None  # a server that answers in other words
    return None


def _quoted(name: str) -> str:
    """A name as SurrealQL takes it, whatever it is."""
    if name.isascii() and name.isidentifier():
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
