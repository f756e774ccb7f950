"""What a server may leave behind: looked for here, so that a test can say that there is nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

# Longer than a keeper waits for what it has asked to end.
_PATIENCE_S = 60.0


def processes_of(directory: Path) -> list[psutil.Process]:
    """The processes that work in a directory or were started with its name, zombies excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [process.cwd(), *process.cmdline()]
            # Where nobody collects the orphans of a container, the dead stay listed.
            if process.status() != psutil.STATUS_ZOMBIE and any(str(directory) in place for place in places):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nothing_left(directory: Path, pids: Iterable[int] = ()) -> None:
    """Wait (bounded) until a server's directory and processes have gone."""
    known = list(pids)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        left = [f"process {pid}" for pid in known if is_running(pid)]
        left += [str(directory)] if directory.exists() else []
        # A look at all processes takes long, and ends nothing sooner.
        left = left or [f"process {process.pid}" for process in processes_of(directory)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {', '.join(left)}")
        time.sleep(0.02)


def nothing_is_left_of_a_start(
    code: str, environment: Mapping[str, str], number: signal.Signals, has_begun: Callable[[Path], bool]
) -> bool:
    """Signal a Python once its server's start has begun; assert that this ends it and that nothing is left.

    Args:
        code: starts a server, and when that has returned makes the file that its argument names.
        has_begun: looks into the directory for temporary files.

    Returns:
        Whether the signal came before the start was over.
    """
    # Open to the server's account; below /tmp, so that a socket's path fits.
    with tempfile.TemporaryDirectory(dir="/tmp") as outer:
        started, place = Path(outer, "started"), Path(outer, "tmp")
        place.mkdir()
        for path in (place.parent, place):
            path.chmod(0o755)
        child = subprocess.Popen(
            [sys.executable, "-c", code, os.fspath(started)],
            env={**environment, "TMPDIR": os.fspath(place)},
            stderr=subprocess.DEVNULL,
        )
        try:
            while not has_begun(place):
                assert child.poll() is None
                time.sleep(0.002)
            child.send_signal(number)
            assert child.wait(60) == -number
        finally:
            child.kill()
            child.wait()
        assert_nothing_left(next(place.glob("pool-bench-*"), place / "gone"))
        assert list(place.iterdir()) == []
        return not started.exists()
