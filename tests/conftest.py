"""Fixtures for all tests, and a machine to themselves for those that measure time."""

import fcntl
import os
from collections.abc import Generator

import pytest

# Small matrices on a busy machine: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

pytest_plugins = ["tests.fix_servers", "tests.pool.fix_rig"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked `quiet` run while those of the other processes wait.

    The others share a lock that such a test has alone. All pass through a gate first, which it keeps
    closed, or the others would never leave it a gap.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
    # The processes' directories have one parent, which goes with them.
    directory = factory.getbasetemp().parent
    is_quiet = item.get_closest_marker("quiet") is not None
    mode = fcntl.LOCK_EX if is_quiet else fcntl.LOCK_SH
    with (directory / "gate.lock").open("w") as gate, (directory / "room.lock").open("w") as room:
        fcntl.flock(gate, mode)
        fcntl.flock(room, mode)
        if not is_quiet:
            fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)
