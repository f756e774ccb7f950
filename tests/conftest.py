"""Fixtures for all tests, and a machine to themselves for those that measure time."""

import fcntl
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Small matrices on a busy machine: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A machine that others use, too, stands still for longer than any example takes.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

pytest_plugins = ["tests.support.servers", "tests.support.pool_fixtures"]


class _Room:
    """The machine, which tests share, and those that are marked `quiet` have alone.

    Whoever shares it shares a lock that a quiet test has alone. All pass through a gate first, which that one
    keeps closed, or the others would never leave it a gap.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = (directory / "gate.lock").open("w")
        self._room = (directory / "room.lock").open("w")
        self._is_quiet = False

    def enter(self, *, quiet: bool) -> None:
        """Wait for leave to run a test."""
        if self._is_quiet and quiet:
            return
        mode = fcntl.LOCK_EX if quiet else fcntl.LOCK_SH
        fcntl.flock(self._gate, mode)
        fcntl.flock(self._room, mode)
        if not quiet:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._is_quiet = quiet

    def leave(self, *, next_quiet: bool) -> None:
        """Let others in; between two quiet tests nobody comes, as it takes long until all have left."""
        if not (self._is_quiet and next_quiet):
            self._is_quiet = False
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give everything back."""
        self._room.close()
        self._gate.close()


_ROOM = pytest.StashKey[_Room]()


def pytest_configure(config: pytest.Config) -> None:
    """Let the hundreds of processes that tests start find their modules compiled.

    Where the user wants no bytecode in the checkout, it is kept with pytest's cache.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and config.pluginmanager.has_plugin("cacheprovider"):
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Share the machine with the other processes of this test run."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        # The processes' directories have one parent, which goes with them.
        session.stash[_ROOM] = _Room(factory.getbasetemp().parent)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the machine to the others."""
    room = session.stash.get(_ROOM, None)
    if room is not None:
        room.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Let a test that is marked `quiet` run while those of the other processes wait."""
    room = item.session.stash.get(_ROOM, None)
    if room is None:
        return (yield)
    room.enter(quiet=_is_quiet(item))
    try:
        return (yield)
    finally:
        room.leave(next_quiet=_is_quiet(nextitem))


def _is_quiet(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("quiet") is not None
