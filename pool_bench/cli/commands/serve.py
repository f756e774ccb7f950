"""The embedded SurrealDB as a server of its own, in the foreground."""

import asyncio
import os
import secrets
import ssl
from pathlib import Path
from typing import Final

import click

from pool_bench.cli.options.serve import Served
from pool_bench.cli.options.types import EXIT_OK
from pool_bench.cli.status import notify
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.errors import UsageError, reason_of
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig, is_loopback, parse_bind, serve
from pool_bench.targets.surreal import surreal_target

_PASSWORD_VARIABLE: Final = "SURREAL_PASS"  # noqa: S105  # the name of one
_MADE_BYTES: Final = 12
_LEAST_CHARACTERS: Final = 12
_LEAST_DISTINCT: Final = 5
# What a password is that has but digits and signs besides.
_COMMON_WORDS: Final = frozenset(
    (
        *("admin", "administrator", "changeme", "default", "letmein", "master", "password", "passwort"),
        *("qwerty", "qwertyuiop", "root", "secret", "surreal", "surrealdb", "test", "welcome"),
    )
)


def serve_forever(served: Served) -> int:
    """Serve until SIGINT or SIGTERM, with a namespace and a database made.

    Returns:
        The exit code.

    Raises:
        ServerStartError: it did not start, or ended without being asked to.
        ConnectError: it started, and does not let us in.
        UsageError: an option cannot be right.
    """
    if not served.user:
        raise UsageError("--user must not be empty")
    if not served.namespace or not served.database:
        raise UsageError("--namespace and --database must not be empty")
    if (served.certificate is None) != (served.key is None):
        raise UsageError("--certificate and --key go together")
    if served.certificate is not None and served.key is not None:
        check_certificate(served.certificate, served.key)
    if served.path is not None:
        check_store(served.path)
    host, port = parse_bind(served.bind)
    given = _given_password(served)
    if given is None and served.path is not None and _is_filled(served.path):
        raise UsageError(
            f"--path: {served.path} has a user with a password already: "
            f"give it in {_PASSWORD_VARIABLE} or by --pass"
        )
    if not is_loopback(host):
        if given is not None:
            check_password(given, served.user)
        clear = "" if served.certificate else ", passwords in the clear without --certificate"
        notify(
            f"warning: {served.bind} can be reached from other machines{clear}; this server is for local use"
        )
    password = secrets.token_urlsafe(_MADE_BYTES) if given is None else given

    def ready(server: EmbeddedSurreal) -> None:
        asyncio.run(_make_place(server, served.namespace, served.database))
        place = f"namespace {served.namespace}, database {served.database}"
        click.echo(f"{server.version}, at {server.url}, user {server.user}, {place}; Ctrl-C ends it")
        if given is None:
            notify(f"password of {server.user}, made for this server and shown only here: {password}")

    config = SurrealConfig(
        user=served.user,
        password=password,
        path=served.path,
        host=host,
        port=port,
        certificate=served.certificate,
        key=served.key,
        sign_in_within_s=served.sign_in_within_s,
        allowed_hosts=served.allowed_hosts,
    )
    serve(config, ready)
    return EXIT_OK


def _given_password(served: Served) -> str | None:
    """The option's, else the environment's, never an empty one; None where one is to be made."""
    if served.password is not None:
        password, origin = served.password, "--pass"
    else:
        found = os.environ.get(_PASSWORD_VARIABLE)
        if found is None:
            return None
        password, origin = found, _PASSWORD_VARIABLE
    if not password:
        raise UsageError(f"{origin} must not be empty")
    return password


def _is_filled(store: Path) -> bool:
    return store.is_dir() and any(store.iterdir())


def check_password(password: str, user: str) -> None:
    """Make sure that a password may stand between other machines and everything in the store.

    Raises:
        UsageError: it is one that is tried first; says what is wrong with it, not what it is.
    """
    letters = "".join(filter(str.isalpha, password.casefold()))
    words = _COMMON_WORDS | {"".join(filter(str.isalpha, user.casefold()))}
    if len(password) < _LEAST_CHARACTERS:
        fault = f"has fewer than {_LEAST_CHARACTERS} characters"
    elif len(set(password)) < _LEAST_DISTINCT:
        fault = f"has fewer than {_LEAST_DISTINCT} different characters"
    elif letters and any(not letters.replace(word, "") for word in words if word):
        fault = "is a common word or the user's name with signs"
    else:
        return
    raise UsageError(
        f"the password {fault}, and --bind is reached from other machines; without one a good one is made"
    )


def check_certificate(certificate: Path, key: Path) -> None:
    """Make sure that a server can speak TLS with these PEM files.

    Raises:
        UsageError: it cannot; names the option and the file.
    """
    for option, file in (("--certificate", certificate), ("--key", key)):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            raise UsageError(f"{option}: cannot read {file}: {reason_of(error)}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        raise UsageError(f"--certificate: no certificate in PEM format in {certificate}") from None
    try:
        # An empty pass phrase: without one OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if (error.reason or "").startswith(("CA_", "EE_")):
            # OpenSSL's security level: EE_KEY_TOO_SMALL, CA_MD_TOO_WEAK.
            words = str(error.reason).lower().replace("_", " ")
            raise UsageError(f"--certificate: OpenSSL refuses {certificate}: {words}") from None
        # For all else its reasons say little: a key of another type is as much "PEM lib" as no key at all.
        text = key.read_bytes()
        if b"PRIVATE KEY-----" not in text:
            raise UsageError(f"--key: no key in PEM format in {key}") from None
        if b"ENCRYPTED" in text:
            raise UsageError(f"--key: {key} is encrypted, which is not supported") from None
        raise UsageError(f"--key: {key} is not the key of the certificate in {certificate}") from None


def check_store(path: Path) -> None:
    """Make sure that `path` is a directory that can be read and written to, or that it can be made.

    Raises:
        UsageError: it is none, and cannot.
    """
    # A link to nowhere is there, too: nothing can be made in its place.
    there = next(part for part in (path.absolute(), *path.absolute().parents) if os.path.lexists(part))
    if not there.is_dir():
        raise UsageError(f"--path: {there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--path: {there} cannot be written to")
    if there == path.absolute() and not os.access(there, os.R_OK):
        raise UsageError(f"--path: {there} cannot be read")


async def _make_place(server: EmbeddedSurreal, namespace: str, database: str) -> None:
    """Select them, which makes them; over what may be a certificate for another name than ours."""
    target = surreal_target(
        server.url,
        user=server.user,
        password=server.password,
        namespace=namespace,
        database=database,
        verify=False,
        environ={},
    )
    connection = await SurrealDriver(target).connect()
    await connection.close()
