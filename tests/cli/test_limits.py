"""What this machine allows: local ports, against what a run would need."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import surreal_bench
from pool_bench import __main__ as pool_bench_command
from pool_bench.cli import limits
from pool_bench.cli.limits import local_ports_note, time_wait_note, time_wait_s
from pool_bench.drivers.base import DriverName
from pool_bench.targets.postgres import PostgresTarget, parse_target
from pool_bench.targets.surreal import surreal_target

LOCAL = "postgresql://u@127.0.0.1:6432/d"
REMOTE = "postgresql://u@192.0.2.7:6432/d"
SOCKET = "postgresql://u@/d?host=/var/run/postgresql"


def target(url: str) -> PostgresTarget:
    return parse_target(url, env={}, default_user="nobody")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's settings, for a test to change: 10,000 ports, no reuse."""
    monkeypatch.setattr(limits, "_SETTINGS", tmp_path)
    (tmp_path / "ip_local_port_range").write_text("40000\t49999\n")
    (tmp_path / "tcp_tw_reuse").write_text("0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("reuse", "driver", "url", "seconds"),
    [
        ("0", "psycopg", LOCAL, 60.0),
        ("0", "psycopg", REMOTE, 60.0),
        ("1", "psycopg", REMOTE, 1.0),
        ("2", "psycopg", LOCAL, 1.0),
        ("2", "psycopg", "postgresql://u@localhost/d", 1.0),
        ("2", "psycopg", REMOTE, 60.0),
        ("0", "wire", REMOTE, 0.0),
        ("0", "asyncpg", REMOTE, 0.0),
    ],
)
@pytest.mark.usefixtures("settings")
def test_time_wait_is_ours_where_we_close_first_and_reuse_is_respected(
    settings: Path, reuse: str, driver: DriverName, url: str, seconds: float
) -> None:
    (settings / "tcp_tw_reuse").write_text(f"{reuse}\n")
    assert time_wait_s(target(url), driver) == seconds


def note(url: str = REMOTE, driver: DriverName = "psycopg", **changes: float | None) -> str | None:
    given = {"concurrency": 10, "rate": None, "seconds": 0.0} | changes
    return time_wait_note((target(url),), driver, **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("settings")
def test_l2_a_rate_that_uses_up_the_ports_in_a_minute_is_seen_before_the_start() -> None:
    assert note(rate=150.0) is None
    told = note(rate=200.0)
    assert told is not None
    for words in (
        "200/s",
        "12,010 local ports",
        "10,000",
        "60 s (TIME_WAIT)",
        "tcp_tw_reuse",
        "--driver wire",
    ):
        assert words in told


@pytest.mark.usefixtures("settings")
def test_a_run_shorter_than_a_minute_leaves_fewer_ports_behind() -> None:
    assert note(rate=200.0, seconds=30.0) is None
    assert note(rate=200.0, seconds=55.0) is not None


@pytest.mark.usefixtures("settings")
def test_a_server_that_closes_first_and_a_unix_socket_need_no_port_for_it() -> None:
    assert note(rate=5000.0, driver="wire") is None
    assert note(SOCKET, rate=5000.0) is None


@pytest.mark.usefixtures("settings")
def test_over_http_this_side_closes_first_and_over_a_websocket_surrealdb_does() -> None:
    web, http = (surreal_target(f"{scheme}://192.0.2.7:8000", environ={}) for scheme in ("ws", "http"))
    assert time_wait_s(web, "surreal") == 0
    assert time_wait_s(http, "surreal") == 60
    assert time_wait_note((web,), "surreal", concurrency=10, rate=200.0, seconds=0.0) is None
    told = time_wait_note((http,), "surreal", concurrency=10, rate=200.0, seconds=0.0)
    assert told is not None
    assert "12,010 local ports" in told
    assert "ws://" in told
    assert "wire" not in told
    # The official client opens one connection to sign in, one to select, and one to query.
    told = time_wait_note((http,), "surrealdb", concurrency=10, rate=200.0, seconds=0.0)
    assert told is not None
    assert "36,010 local ports" in told


@pytest.mark.usefixtures("settings")
def test_a_closed_loop_is_held_to_what_it_has_in_flight() -> None:
    assert note(concurrency=10_000) is None
    told = note(concurrency=10_001, driver="wire")
    assert told is not None
    assert "10,001 connections in flight" in told


@pytest.mark.usefixtures("settings")
def test_several_servers_have_the_ports_each_and_two_names_of_one_share_them() -> None:
    other = target("postgresql://u@192.0.2.8:6432/d")
    same = target("postgresql://v@192.0.2.7:6432/other")
    common = {"driver": "psycopg", "concurrency": 10, "rate": 200.0, "seconds": 0.0}
    assert time_wait_note((target(REMOTE), other), **common) is None  # type: ignore[arg-type]
    assert time_wait_note((target(REMOTE), same), **common) is not None  # type: ignore[arg-type]


def test_a_system_that_says_nothing_of_its_ports_is_not_warned_about(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_SETTINGS", settings / "nowhere")
    assert note(rate=100_000.0) is None


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (surreal_bench.cli, ("pool", "--clients")),
        (surreal_bench.cli, ("pool", "--stress")),
        (surreal_bench.cli, ("pool", "--stress", "10", "--stress")),
        (pool_bench_command.cli, ("run", "--clients")),
        (pool_bench_command.cli, ("run", "--rate", "5/s", "--max-in-flight")),
        (pool_bench_command.cli, ("size", "--clients")),
        (pool_bench_command.cli, ("monitor", "--clients")),
        (pool_bench_command.cli, ("monitor", "--size")),
    ],
)
def test_numbers_of_clients_that_no_memory_has_room_for_are_refused_before_anything_starts(
    command: click.Command, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr("pool_bench.servers.kept.KeptServer.start", start)
    outcome = CliRunner().invoke(command, [*arguments, "99999999999"])
    assert outcome.exit_code == 2
    assert arguments[-1] in outcome.output


@pytest.mark.usefixtures("settings")
def test_ports_that_are_in_use_already_are_no_longer_there_for_held_connections() -> None:
    def held(connections: int, taken: int, *source_ips: str) -> str | None:
        return local_ports_note((target(REMOTE),), (connections,), source_ips, taken=taken)

    assert held(9_000, 1_000) is None
    words = held(9_000, 1_001)
    assert words is not None
    assert (
        "9,000 connections to one server need as many local ports, but there are 10,000, 1,001 of them"
        in words
    )
    assert held(9_000, 1_001, "192.0.2.1", "192.0.2.2") is None
