"""Reading the server's own set-up times from a log that grows and is shortened."""

from pathlib import Path

import psycopg
import pytest

from pool_bench.servers.postgres import PostgresConfig
from pool_bench.watch.postgres import setup_log
from pool_bench.watch.postgres.setup_log import SETTINGS, SetupLog
from tests.support.held_sessions import await_true, clients
from tests.support.servers import StartPostgres


def line(at: float, total: float = 2.0, fork: float = 0.5, auth: float = 0.25) -> bytes:
    """What PostgreSQL 18 writes for a connection."""
    return (
        f"{at:.3f} LOG:  connection ready: setup total={total:.3f} ms, fork={fork:.3f} ms, "
        f"authentication={auth:.3f} ms\n"
    ).encode()


NOISE = (
    b"1763707876.455 LOG:  database system is ready to accept connections\n"
    b"1763707876.455 ERROR:  connection ready: setup total=1.000 ms, fork=1.000 ms, authentication=1 ms\n"
    b'1763707876.455 STATEMENT:  SELECT "connection ready: setup total=9.000 ms"\n'
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with two connections of before."""
    log = tmp_path / "server.log"
    log.write_bytes(NOISE + line(1.0) * 2)
    return log


def append(path: Path, content: bytes) -> None:
    """Write as the server does."""
    with path.open("ab") as file:
        file.write(content)


def test_every_line_counts_once_however_the_log_was_cut_when_it_was_read(path: Path) -> None:
    content = line(5.0, 2.0) + NOISE + line(5.0, 4.0) + line(5.0, 6.0)
    for cut in range(0, len(content) + 1, 7):
        log = SetupLog(path)
        log.begin(0.0)
        append(path, content[:cut])
        first = log.read()
        append(path, content[cut:])
        second = log.read()
        assert first is not None
        assert second is not None
        times = log.finish()
        assert (first.count + second.count, times.seen, times.missed) == (3, 3, 0)
        assert times.total.summary_ms()["mean"] == pytest.approx(4.0)
        assert times.fork.summary_ms()["max"] == pytest.approx(0.5)
        assert times.auth.summary_ms()["max"] == pytest.approx(0.25)


def test_what_was_ready_before_measuring_began_is_seen_but_not_in_the_figures(path: Path) -> None:
    log = SetupLog(path)
    append(path, line(10.0, 90.0) + line(11.999, 90.0) + line(12.0, 3.0))
    log.read()
    # The run tells its clock later than it began.
    log.begin(12.0)
    append(path, line(11.5, 90.0) + line(13.0, 3.0))
    log.read()
    times = log.finish()
    assert times.seen == 5
    assert times.total.count == times.fork.count == times.auth.count == 2
    assert times.total.summary_ms()["max"] == pytest.approx(3.0)


def test_what_was_ready_before_measuring_was_to_begin_is_not_kept(path: Path) -> None:
    log = SetupLog(path)
    append(path, line(10.0, 90.0) * 1000)
    log.read()
    log.begin(12.0, expected=True)
    append(path, line(11.0, 90.0) * 1000 + line(12.1, 3.0) + line(12.3, 3.0))
    log.read()
    assert sum(len(rows) for rows in log._waiting) == 2
    # Its warm-up ended a little later.
    log.begin(12.2)
    times = log.finish()
    assert (times.seen, times.total.count) == (2002, 1)


def test_of_a_run_that_ended_in_its_warm_up_nothing_is_in_the_figures(path: Path) -> None:
    log = SetupLog(path)
    log.begin(12.0, expected=True)
    append(path, line(11.0, 90.0) * 1000)
    log.read()
    times = log.finish()
    assert (times.seen, times.total.count) == (1000, 0)


def test_where_nobody_says_when_measuring_began_all_counts(path: Path) -> None:
    log = SetupLog(path)
    append(path, line(10.0) * 4)
    log.read()
    assert log.finish().total.count == 4


def test_what_is_skipped_is_never_seen(path: Path) -> None:
    log = SetupLog(path)
    append(path, line(10.0) * 4)
    log.skip()
    append(path, line(11.0))
    log.read()
    assert log.finish().seen == 1


def test_a_log_that_grows_too_fast_is_read_in_part_and_says_how_much_was_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len(line(5.0))
    monkeypatch.setattr(setup_log, "_MOST_BYTES", one * 10)
    log = SetupLog(path)
    append(path, line(5.0) * 25)
    second = log.read()
    assert second is not None
    assert second.count == 10
    assert log.finish().missed == 15 * one


def test_a_log_that_has_become_long_is_shortened_and_read_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_log, "_LONGEST", 1000)
    log = SetupLog(path)
    for _ in range(30):
        append(path, line(5.0) * 3)
        log.read()
        assert path.stat().st_size < 1000 + 4 * len(line(5.0))
    assert log.finish().seen == 90


def test_a_log_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    log = SetupLog(tmp_path / "none.log")
    assert log.read() is None
    assert log.finish().seen == 0


def test_the_embedded_server_logs_each_connection_in_the_form_that_is_read(
    start_postgres: StartPostgres,
) -> None:
    server = start_postgres(PostgresConfig(settings=SETTINGS | {"autovacuum": "off"}))
    log = SetupLog(server.kept.log)
    for _ in range(7):
        psycopg.connect(server.url).close()
    await_true(lambda: not clients(server))
    second = log.read()
    times = log.finish()
    assert second is not None
    assert (second.count, times.seen) == (7, 7)
    for part in (times.fork, times.auth):
        assert part.count == 7
        assert 0 < part.total_s < times.total.total_s
