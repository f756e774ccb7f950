"""What the processes of a whole command have in their environment, where others of its user could read it."""

import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pool_bench.servers.postgres import PostgresConfig
from tests.support.commands import COMMAND, LOAD_COMMAND, Started
from tests.support.servers import StartPostgres

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

_PASSWORD = "pencil-in-PGPASSWORD"
_URL_PASSWORD = "pencil-in-the-URL"
_ARGUMENTS = {
    COMMAND: ("-c", "2", "--duration", "0", "--warmup", "0", "--query", "SELECT pg_sleep(0.05)", "--no-save"),
    LOAD_COMMAND: ("-n", "4", "--duration", "0", "--no-save"),
}
_RUNNING = {COMMAND: r"^ +\d.* measure ", LOAD_COMMAND: r"^ +\d.* hold "}


@pytest.fixture(scope="module")
def urls(start_postgres: StartPostgres) -> tuple[str, str]:
    """Two servers: one that is asked for a password gets the environment's, the other the URL's."""
    first = start_postgres(PostgresConfig(auth="scram-sha-256", password=_PASSWORD))
    second = start_postgres(PostgresConfig(auth="scram-sha-256", password=_URL_PASSWORD))
    return first.url, second.url.replace("//bench@", f"//bench:{_URL_PASSWORD}@")


@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
def test_no_process_that_a_command_starts_has_a_password_in_its_environment_or_arguments(
    urls: tuple[str, str], command: str, tmp_path: Path
) -> None:
    started = Started(
        tmp_path,
        *(part for url in urls for part in ("--url", url)),
        *_ARGUMENTS[command],
        command=command,
        env={"PGPASSWORD": _PASSWORD, "DATABASE_URL": f"postgresql://x:{_PASSWORD}@h/d"},
    )
    try:
        started.wait_for(_RUNNING[command])
        family = started.family()
        seen = {one.pid: _environment(one) for one in family}
        titles = [_title(one) for one in family]
    finally:
        started.process.terminate()
        outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    # The generator, which signs in with both, among them.
    assert any(b"PATH=" in environment for environment in seen.values())
    assert any("pool_bench.load.process" in title for title in titles)
    for secret in (_PASSWORD, _URL_PASSWORD):
        assert not any(secret.encode() in environment for environment in seen.values())
        assert not any(secret in title for title in titles)


def _environment(process: psutil.Process) -> bytes:
    with suppress(OSError):  # it has ended
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    return b""


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return subprocess.list2cmdline(process.cmdline())
    return ""
