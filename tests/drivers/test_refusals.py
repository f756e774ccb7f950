"""Every security setting through every driver, against a real server with TLS: honoured or refused."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pool_bench.drivers.base import Driver, DriverName
from pool_bench.drivers.refusals import check_settings
from pool_bench.drivers.wire.driver import WireDriver
from pool_bench.errors import ConnectError, UsageError
from pool_bench.load.drivers import make_drivers
from pool_bench.load.spec import ConnectSpec
from tests.support.commands import run_here
from tests.support.generators import target
from tests.support.servers import TlsPostgres

DRIVERS: tuple[DriverName, ...] = ("wire", "asyncpg", "psycopg")
every_driver = pytest.mark.parametrize("driver", DRIVERS)

_SSL = "(SELECT {} FROM pg_stat_ssl WHERE pid = pg_backend_pid())"


def _driver(name: DriverName, url: str) -> Driver:
    if name == "wire":
        return WireDriver(target(url))
    return make_drivers(ConnectSpec(targets=(target(url),), driver=name))[0]


async def _holds(driver: DriverName, url: str, condition: str) -> None:
    """Connect, and have the server divide by zero unless it sees what is to be so."""
    async with asyncio.timeout(60):
        connection = await _driver(driver, url).connect()
        await connection.execute(f"SELECT 1 / CASE WHEN {condition} THEN 1 ELSE 0 END")
        await connection.close()


def _url(server: TlsPostgres, user: str, options: str, host: str = "127.0.0.1", port: int = 0) -> str:
    password = server.users[user].password
    who = user if password is None else f"{user}:{password.replace(' ', '%20')}"
    return f"postgresql://{who}@{host}:{port or server.port}/postgres?{options}"


@every_driver
@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-full"])
async def test_a_client_certificate_is_shown_in_every_mode(
    tls_postgres: TlsPostgres, driver: DriverName, mode: str
) -> None:
    files = f"sslcert={tls_postgres.client_cert}&sslkey={tls_postgres.client_key}"
    files += f"&sslrootcert={tls_postgres.ca}"
    url = _url(tls_postgres, "cert_user", f"sslmode={mode}&{files}")
    await _holds(driver, url, _SSL.format("client_serial IS NOT NULL"))


@every_driver
@pytest.mark.parametrize("mode", ["prefer", "require"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_the_newest_and_oldest_version_of_tls_hold_in_every_mode(
    tls_postgres: TlsPostgres, driver: DriverName, mode: str, version: str
) -> None:
    limits = f"ssl_min_protocol_version={version}&ssl_max_protocol_version={version}"
    url = _url(tls_postgres, "scram_user", f"sslmode={mode}&{limits}")
    await _holds(driver, url, _SSL.format(f"version = '{version}'"))


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
async def test_required_channel_binding_is_used(tls_postgres: TlsPostgres, driver: DriverName) -> None:
    required = "sslmode=require&channel_binding=require"
    await _holds(driver, _url(tls_postgres, "scram_user", required), _SSL.format("ssl"))
    with pytest.raises(ConnectError, match=r"(?i)channel binding"):
        await _holds(driver, _url(tls_postgres, "password_user", required), "true")


@asynccontextmanager
async def _overheard(port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """Pass connections on to `port`; what clients say is kept."""
    said = bytearray()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bool) -> None:
        while data := await reader.read(65536):
            if keep:
                said.extend(data)
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, downstream, True), copy(upstream, writer, False))
        except OSError:
            pass
        finally:
            downstream.close()
            writer.close()

    server = await asyncio.start_server(serve, "localhost", 0, family=socket.AF_INET)
    async with server:
        yield server.sockets[0].getsockname()[1], said


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
@pytest.mark.parametrize("sni", [False, True])
async def test_the_servers_name_is_told_in_the_clear_only_where_it_may_be(
    tls_postgres: TlsPostgres, driver: DriverName, sni: bool
) -> None:
    async with _overheard(tls_postgres.port) as (port, said):
        options = f"sslmode=require&sslsni={int(sni)}"
        await _holds(driver, _url(tls_postgres, "scram_user", options, "localhost", port), "true")
    # ServerName of RFC 6066: type host_name, length 9.
    assert (b"\x00\x00\x09localhost" in said) == sni


async def test_without_names_asyncpg_tells_none(tls_postgres: TlsPostgres) -> None:
    await _holds("asyncpg", _url(tls_postgres, "scram_user", "sslmode=require&sslsni=0"), _SSL.format("ssl"))


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
async def test_a_newer_protocol_is_asked_for(tls_postgres: TlsPostgres, driver: DriverName) -> None:
    async with _overheard(tls_postgres.port) as (port, said):
        options = "sslmode=disable&max_protocol_version=3.2"
        await _holds(driver, _url(tls_postgres, "scram_user", options, port=port), "true")
    assert b"\x00\x03\x00\x02" in said[:8]


# What asyncpg cannot do, and for whom it is refused: the driver, and the pools that use it.
_REFUSED = {
    "sslmode=require&channel_binding=require": "channel_binding=require",
    "channel_binding=require": "channel_binding=require",
    "sslmode=require&sslsni=0": "sslsni=0",
    "max_protocol_version=3.2": "max_protocol_version=3.2",
}


@pytest.mark.parametrize("options", _REFUSED)
@pytest.mark.parametrize("who", ["asyncpg", "reference", "naive", "sqlalchemy"])
def test_what_a_driver_cannot_honour_is_refused_for_it(options: str, who: str) -> None:
    asked = target(f"postgresql://u:geheim@localhost:1/d?{options}")
    with pytest.raises(UsageError, match=f"asyncpg cannot honour {_REFUSED[options]}") as caught:
        check_settings(who, (asked,))
    assert "geheim" not in str(caught.value)
    for other in ("wire", "psycopg"):
        check_settings(other, (asked,))


@pytest.mark.parametrize(
    "arguments",
    [
        ("pg_connection_bench", "-c", "1", "--driver", "asyncpg"),
        ("pg_connection_bench", "-c", "1", "--interleave", "driver=asyncpg"),
        ("pg_connection_load", "-n", "1", "--driver", "asyncpg"),
        ("pool_bench.__main__", "run", "--pool", "reference", "--size", "1"),
        ("pool_bench.__main__", "size", "--sizes", "1,2,3,4,5,6"),
        ("pool_bench.__main__", "monitor", "--size", "1"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_it_is_refused_before_anything_is_sent(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command, *options = arguments
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.setblocking(False)
        url = f"postgresql://u:geheim@127.0.0.1:{nobody.getsockname()[1]}/d?channel_binding=require"
        outcome = run_here(*options, "--url", url, command=command, cwd=tmp_path)
        with pytest.raises(BlockingIOError):
            nobody.accept()
    assert outcome.code == 2
    assert "asyncpg cannot honour channel_binding=require; wire or psycopg can" in outcome.stderr
    assert "geheim" not in outcome.stderr + outcome.stdout


@pytest.mark.parametrize(
    "setting",
    [
        *("sslcrl=/tmp/crl", "sslcrldir=/tmp", "sslcertmode=require", "require_auth=scram-sha-256"),
        *("requirepeer=postgres", "requiressl=1", "gssencmode=require", "krbsrvname=x", "sslcompression=1"),
        *("min_protocol_version=3.2", "ssl_max_protocol_version=TLSv9", "sslkeylogfile=/tmp/keys"),
    ],
)
def test_a_setting_that_nothing_here_can_honour_is_refused_for_all(setting: str) -> None:
    with pytest.raises(UsageError):
        target(f"postgresql://u@localhost/d?{setting}")
