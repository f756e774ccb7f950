"""Fixtures for all tests, and a run of their own for those that need the machine to themselves."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

from pool_bench.servers.scripted import server as known
from pool_bench.servers.template import VARIABLE
from tests.support import forkserver

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# Small matrices on a busy machine: threads of the linear algebra would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A machine that others use, too, stands still for longer than any example takes.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

pytest_plugins = ["tests.support.servers", "tests.support.server_programs", "tests.support.pool_fixtures"]

_LEFT_OUT: Final = pytest.StashKey[list[str]]()

# What is made until all tests are known is kept: looking through it for garbage was a third of that time.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Let the hundreds of processes that tests start find their modules compiled.

    Where the user wants no bytecode in the checkout, it is kept with pytest's cache.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and config.pluginmanager.has_plugin("cacheprovider"):
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
    if VARIABLE not in os.environ:
        # Clusters are made once for all workers, and not in the home of whoever runs the tests.
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="pool-bench-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep thousands of tests out of every look for garbage that comes while they run."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def forked_known_servers() -> Iterator[None]:
    """Servers of known behaviour are forks, too: what a new Python imports was most of their time."""
    # It keeps a pipe from the first process on, which would look like something that a test has left behind.
    forkserver.ensure_running()
    with patch.object(known, "mp", SimpleNamespace(get_context=lambda _method: forkserver.context)):
        yield


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests that are marked `quiet` out where others run beside them."""
    if _is_worker(config):
        quiet = [item for item in items if item.get_closest_marker("quiet") is not None]
        config.workeroutput["quiet"] = [item.nodeid for item in quiet]  # type: ignore[attr-defined]
        items[:] = [item for item in items if item not in quiet]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: "WorkerController") -> None:
    """Remember which tests a worker has left out; each leaves out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("quiet", [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Run the tests that need the machine to themselves, now that nothing else runs."""
    if left_out := session.config.stash.get(_LEFT_OUT, []):
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *left_out]
        done = subprocess.run(command, cwd=session.config.rootpath, check=False)
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = done.returncode
