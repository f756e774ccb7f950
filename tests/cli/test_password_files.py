"""Several hosts with a password each, and services: each driver does what libpq would do, or refuses it."""

import json
from pathlib import Path

import pytest

from pool_bench.drivers.base import DRIVER_NAMES, DriverName
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support import hostile_postgres as h
from tests.support.commands import COMMAND, LOAD_COMMAND, load, run_tool
from tests.support.servers import StartPostgres

_PASSWORDS = ("first pencil", "second pencil")
_SHORT = ("--warmup", "0", "--duration", "100ms", "--grace", "60s", "-c", "4", "--quiet", "--no-save")


@pytest.fixture(scope="module")
def servers(start_postgres: StartPostgres) -> tuple[EmbeddedPostgres, EmbeddedPostgres]:
    """Two servers, each with a password of its own."""
    first, second = (
        start_postgres(PostgresConfig(auth="scram-sha-256", password=password)) for password in _PASSWORDS
    )
    return first, second


@pytest.fixture(scope="module")
def alike(
    start_postgres: StartPostgres, servers: tuple[EmbeddedPostgres, EmbeddedPostgres]
) -> tuple[EmbeddedPostgres, EmbeddedPostgres]:
    """Two servers that have the same password."""
    third = start_postgres(PostgresConfig(auth="scram-sha-256", password=_PASSWORDS[0]))
    return servers[0], third


def _passfile(place: Path, *lines: str) -> dict[str, str]:
    path = place / "pgpass"
    path.touch(mode=0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"PGPASSFILE": str(path)}


def _url(*servers: EmbeddedPostgres, options: str = "") -> str:
    places = ",".join(f"{server.host}:{server.port}" for server in servers)
    return f"postgresql://bench@{places}/postgres?sslmode=disable{options}"


def test_wire_signs_in_at_each_host_with_the_password_that_the_file_has_for_it(
    servers: tuple[EmbeddedPostgres, EmbeddedPostgres], tmp_path: Path
) -> None:
    lines = (f"*:{one.port}:*:bench:{word}" for one, word in zip(servers, _PASSWORDS, strict=True))
    path = tmp_path / "result.json"
    url = _url(*servers, options="&load_balance_hosts=random")
    outcome = run_tool("-u", url, *_SHORT, "--json", str(path), env=_passfile(tmp_path, *lines))
    assert outcome.code == 0, outcome.stderr
    run = load(path)["runs"][0]
    assert run["failed"] == 0
    # Both were used, and both let everybody in.
    assert {row["address"] for row in run["addresses"]} == {f"127.0.0.1:{one.port}" for one in servers}
    assert all(row["ok"] for row in run["addresses"])


@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_drivers_that_take_one_password_refuse_two_before_anything_is_sent(
    driver: DriverName, command: str, tmp_path: Path
) -> None:
    with h.HostileServer([]) as one, h.HostileServer([]) as two:
        environment = _passfile(
            tmp_path, f"*:{one.port}:*:*:{_PASSWORDS[0]}", f"*:{two.port}:*:*:{_PASSWORDS[1]}"
        )
        url = f"postgresql://bench@127.0.0.1:{one.port},127.0.0.1:{two.port}/postgres?sslmode=disable"
        outcome = run_tool("-u", url, "--driver", driver, "--no-save", env=environment, command=command)
        assert outcome.code == 2, outcome.stdout
        assert f"{driver} takes one, wire takes all" in outcome.error_lines[-1]
        assert not any(word in outcome.stdout + outcome.stderr for word in _PASSWORDS)
        assert one.accepted == two.accepted == 0


def test_asyncpg_refuses_to_shuffle_hosts_before_anything_is_sent() -> None:
    with h.HostileServer([]) as server:
        url = server.url("sslmode=disable&load_balance_hosts=random")
        outcome = run_tool("-u", url, "--driver", "asyncpg", "--no-save")
        assert outcome.code == 2
        assert "asyncpg cannot honour load_balance_hosts=random; wire or psycopg can" in outcome.stderr
        assert server.accepted == 0


@pytest.mark.parametrize("driver", DRIVER_NAMES)
def test_one_password_for_all_hosts_is_taken_from_the_file_by_every_driver(
    alike: tuple[EmbeddedPostgres, EmbeddedPostgres], driver: DriverName, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    environment = _passfile(tmp_path, f"*:*:postgres:bench:{_PASSWORDS[0]}")
    url = _url(*alike)
    outcome = run_tool("-u", url, "--driver", driver, *_SHORT, "--json", str(path), env=environment)
    assert outcome.code == 0, outcome.stderr
    assert load(path)["runs"][0]["failed"] == 0


@pytest.mark.parametrize(
    # What names the service is read before there is a driver.
    ("how", "driver"),
    [("PGSERVICE", "wire"), *(("service=", driver) for driver in DRIVER_NAMES)],
)
def test_a_service_names_hosts_user_and_database_for_every_driver(
    servers: tuple[EmbeddedPostgres, EmbeddedPostgres], driver: DriverName, how: str, tmp_path: Path
) -> None:
    services = tmp_path / "services.conf"
    hosts = f"host=127.0.0.1,127.0.0.1\nport=1,{servers[1].port}\n"
    services.write_text(f"[bench]\n{hosts}user=bench\ndbname=postgres\nsslmode=disable\n")
    environment = {"PGSERVICEFILE": str(services), **_passfile(tmp_path, f"*:*:*:bench:{_PASSWORDS[1]}")}
    arguments = ["-u", "postgresql:///?service=bench"]
    if how == "PGSERVICE":
        arguments, environment["PGSERVICE"] = [], "bench"
    path = tmp_path / "result.json"
    outcome = run_tool(*arguments, "--driver", driver, *_SHORT, "--json", str(path), env=environment)
    assert outcome.code == 0, outcome.stderr
    result = json.loads(path.read_text())
    assert f":{servers[1].port}" in result["target"]
    assert "embedded" not in result["server"].get("how", "")
    assert result["runs"][0]["failed"] == 0
    assert result["runs"][0]["ok"] > 0
