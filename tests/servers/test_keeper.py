"""The keeper, with shells in the place of servers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_bench.errors import ServerStartError
from pool_bench.servers import keeper as keeper_module
from pool_bench.servers.host import Account, fits_socket, free_port, is_reachable, server_account
from pool_bench.servers.kept import Keeper, Readiness, StopStep
from tests.support.leftovers import assert_nothing_left, is_running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the shells and signals of POSIX are used")

_STUBBORN = "trap '' INT TERM; echo up; while :; do sleep 0.05; done"
_POLITE = "trap 'echo bye; exit 7' INT; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def kept() -> Iterator[Keeper]:
    keeper = Keeper("Shell")
    yield keeper
    keeper.close()


def _start(keeper: Keeper, script: str, *, wait_s: float = 20.0, timeout_s: float = 30.0) -> int:
    return keeper.start(
        ["/bin/sh", "-c", script],
        ready=Readiness(file=keeper.log, pattern=r"(?m)^up$", failed=r"(?m)^broken$"),
        stop=[StopStep(wait_s, signal="SIGINT")],
        timeout_s=timeout_s,
    )


def test_closing_stops_the_server_and_removes_its_directory(kept: Keeper) -> None:
    directory, pid = kept.directory, _start(kept, _POLITE)
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "er" / "file").write_text("x")
    kept.close()
    assert not directory.exists()
    assert not is_running(pid)
    assert_nothing_left(directory, [pid, kept.pid])


def test_closing_twice_does_nothing_more(kept: Keeper) -> None:
    kept.close()
    kept.close()
    with pytest.raises(ServerStartError, match="it was closed"):
        kept.run(["/bin/true"], timeout_s=30)


def test_a_server_is_asked_to_stop_before_it_is_killed(kept: Keeper) -> None:
    _start(kept, _POLITE)
    kept.stop()
    assert "bye" in kept.log_text()


def test_a_server_that_ignores_the_request_is_killed(kept: Keeper) -> None:
    pid = _start(kept, _STUBBORN, wait_s=0.1)
    kept.stop()
    assert not is_running(pid)


def test_a_server_can_be_stopped_by_a_command(kept: Keeper) -> None:
    pid = _start(kept, _POLITE)
    kept.stop([StopStep(20.0, argv=("/bin/sh", "-c", "kill -INT {pid}"))])
    assert not is_running(pid)
    assert "bye" in kept.log_text()


def test_a_server_that_ends_at_once_is_reported_with_its_status_and_log(kept: Keeper) -> None:
    with pytest.raises(ServerStartError, match=r"exited with status 3\n  no such thing$"):
        _start(kept, "echo no such thing; exit 3")


def test_a_server_that_is_never_ready_is_ended_after_the_timeout(kept: Keeper) -> None:
    # A slow shell needs longer for its first word.
    for timeout_s in (0.2, 2, 20):
        with pytest.raises(ServerStartError, match=rf"not ready after {timeout_s:g} s") as late:
            _start(kept, "echo nearly; exec sleep 90", timeout_s=timeout_s, wait_s=0.1)
        if kept.log_text():
            break
    assert str(late.value).endswith(f"not ready after {timeout_s:g} s\n  nearly")
    assert "sleep" not in {process.name() for process in psutil.Process(kept.pid).children()}


def test_a_server_that_reports_a_failure_is_not_waited_for(kept: Keeper) -> None:
    with pytest.raises(ServerStartError, match=r"reported a failure and was stopped\n  broken$"):
        _start(kept, "echo broken; exec sleep 90", wait_s=0.1)


def test_a_log_is_read_from_the_latest_start_on(kept: Keeper) -> None:
    assert kept.run(["/bin/echo", "first"], timeout_s=30) == "first\n"
    assert kept.run(["/bin/echo", "second"], timeout_s=30) == "second\n"
    assert kept.log.read_text() == "first\nsecond\n"


def test_a_program_that_is_missing_is_a_start_error(kept: Keeper) -> None:
    with pytest.raises(ServerStartError, match=r"/nowhere/at/all"):
        kept.run(["/nowhere/at/all"], timeout_s=30)
    assert kept.run(["/bin/echo", "still here"], timeout_s=30) == "still here\n"


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(kept: Keeper) -> None:
    # A slow shell needs longer for its first words.
    for timeout_s in (0.2, 2, 20):
        with pytest.raises(ServerStartError, match=rf"sh had not ended after {timeout_s:g} s"):
            kept.run(["/bin/sh", "-c", "sleep 90 & echo $$ $!; sleep 90; true"], timeout_s=timeout_s)
        pids = [int(pid) for pid in kept.log_text().split()]
        if pids:
            break
    assert len(pids) == 2
    assert_nothing_left(kept.directory / "none", pids)


def test_a_servers_environment_has_no_secrets_of_ours(kept: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "pencil")
    monkeypatch.setenv("TZ", "Europe/Vienna")
    lines = kept.run(["/usr/bin/env"], timeout_s=30, env={"EXTRA": "1"}).splitlines()
    assert not any("pencil" in line for line in lines)
    assert {"LC_ALL=C", "TZ=Europe/Vienna", "EXTRA=1"} <= set(lines)


def test_a_server_does_not_inherit_ignored_signals(kept: Keeper) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    text = kept.run(["/bin/cat", str(status)], timeout_s=30)
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    ignored, blocked = int(fields["SigIgn"], 16), int(fields["SigBlk"], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        assert not (ignored | blocked) >> (number - 1) & 1


def test_a_servers_files_are_its_own_and_nobody_elses(kept: Keeper) -> None:
    secret = kept.write("secret", "pencil")
    status = secret.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == (os.geteuid() if kept.account is None else kept.account.uid)
    assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert kept.run(["/bin/cat", str(secret)], timeout_s=30) == "pencil"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root has another account to use")
def test_root_runs_servers_as_nobody_unless_told_otherwise(kept: Keeper) -> None:
    account = server_account()
    assert account is not None
    assert kept.run(["/usr/bin/id", "-u"], timeout_s=30) == f"{account.uid}\n"
    assert kept.run(["/usr/bin/id", "-G"], timeout_s=30) == f"{account.gid}\n"
    as_root = Keeper("Shell", drop_root=False)
    try:
        assert as_root.run(["/usr/bin/id", "-u"], timeout_s=30) == "0\n"
    finally:
        as_root.close()


def test_writing_does_not_follow_a_link(kept: Keeper, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    (kept.directory / "secret").symlink_to(elsewhere)
    kept.write("secret", "pencil")
    assert elsewhere.read_text() == "untouched"


def test_signals_of_a_terminal_do_not_end_the_keeper(kept: Keeper) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(kept.pid, number)
    assert kept.run(["/bin/echo", "still here"], timeout_s=30) == "still here\n"
    assert os.getsid(kept.pid) == kept.pid


def test_a_keeper_that_is_terminated_cleans_up(kept: Keeper) -> None:
    directory, pid = kept.directory, _start(kept, _POLITE)
    os.kill(kept.pid, signal.SIGTERM)
    assert_nothing_left(directory, [pid, kept.pid])
    with pytest.raises(ServerStartError, match="the keeper of Shell ended"):
        kept.run(["/bin/true"], timeout_s=30)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs handles of processes")
def test_a_parent_cleans_up_after_a_keeper_that_was_killed(kept: Keeper) -> None:
    directory, pid = kept.directory, _start(kept, "trap 'exit 0' QUIT; " + _STUBBORN)
    os.kill(kept.pid, signal.SIGKILL)
    kept.close()
    assert_nothing_left(directory, [pid, kept.pid])


def test_a_forked_child_neither_stops_the_server_nor_keeps_it_alive(kept: Keeper) -> None:
    pid = _start(kept, _POLITE)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # pytest must not go on in the child, whatever happens.
        try:
            kept.close()
            os.write(write_end, b"closed")
            signal.pause()
        finally:
            os._exit(0)
    try:
        assert os.read(read_end, 6) == b"closed"
        assert is_running(pid)
        directory = kept.directory
        kept.close()
        assert_nothing_left(directory, [pid, kept.pid])
        assert is_running(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)


def _bare_keeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(keeper_module.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def _ask(process: "subprocess.Popen[bytes]", request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    reply: dict[str, Any] = json.loads(process.stdout.readline())
    return reply


@pytest.mark.parametrize("last_words", [b"", b'{"do": "sto', b"nonsense\n", b'{"do": "run"}\n'])
def test_whatever_its_parent_said_last_the_keeper_cleans_up(tmp_path: Path, last_words: bytes) -> None:
    request = {"do": "directory", "parent": str(tmp_path), "prefix": "kept-", "owner": None}
    with _bare_keeper() as process:
        directory = Path(_ask(process, request)["directory"])
        assert directory.is_dir()
        assert process.stdin is not None
        process.stdin.write(last_words)
        process.stdin.close()
        process.wait(60)
    assert not directory.exists()


def test_a_keeper_whose_parent_goes_during_a_command_ends_the_command(tmp_path: Path) -> None:
    request = {"do": "directory", "parent": str(tmp_path), "prefix": "kept-", "owner": None}
    with _bare_keeper() as process:
        directory = Path(_ask(process, request)["directory"])
        command = {
            "do": "run",
            "argv": ["/bin/sh", "-c", f"mkfifo {directory}/fifo; sleep 300; true"],
            "env": {"PATH": os.environ["PATH"]},
            "cwd": str(directory),
            "user": None,
            "group": None,
            "log": str(directory / "log"),
            "timeout_s": 300,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        process.stdin.close()
        process.wait(60)
    assert_nothing_left(directory)


def test_stopping_where_nothing_runs_is_no_error() -> None:
    with _bare_keeper() as process:
        assert _ask(process, {"do": "stop", "stop": None}) == {"returncode": None}


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    request = {"do": "directory", "parent": str(tmp_path / "none"), "prefix": "kept-", "owner": None}
    with _bare_keeper() as process:
        assert "FileNotFoundError" in _ask(process, request)["error"]


def test_a_free_port_is_outside_the_range_of_outgoing_connections() -> None:
    range_file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not range_file.exists():
        pytest.skip("needs /proc")
    first, last = map(int, range_file.read_text().split())
    if first < 22_000 and last > 64_000:
        pytest.skip("this machine leaves no room outside the range")
    ports = {free_port() for _ in range(20)}
    assert not any(first <= port <= last for port in ports)
    assert len(ports) > 1


def test_a_path_is_reachable_only_where_every_directory_on_the_way_is_open() -> None:
    stranger = Account(54_321, 54_321)
    # Not tmp_path, which pytest closes to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        top = Path(name)
        file = top / "closed" / "open" / "file"
        file.parent.mkdir(parents=True)
        file.write_text("x")
        for path, mode in ((top, 0o711), (top / "closed", 0o755), (file.parent, 0o755), (file, 0o644)):
            path.chmod(mode)
        assert is_reachable(file, stranger)
        assert not is_reachable(top, stranger), "it may be entered, not listed"
        (top / "closed").chmod(0o700)
        assert not is_reachable(file, stranger)
        assert is_reachable(file, None)
        (top / "closed").chmod(0o755)
        file.chmod(0o600)
        assert not is_reachable(file, stranger)
        assert not is_reachable(top / "none", None)


def test_a_socket_path_that_the_kernel_refuses_does_not_fit() -> None:
    assert fits_socket(Path("/tmp/short"))
    assert not fits_socket(Path("/tmp") / ("x" * 120))
