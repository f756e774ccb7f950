"""Known servers as forks of a process that has their modules, for imports were most of their time."""

import multiprocessing as mp
from types import SimpleNamespace

import pytest

from pool_bench.faults import known

_MODULES = ["pool_bench.faults.known_postgres", "pool_bench.faults.known_surreal"]


@pytest.fixture(autouse=True)
def forked_known_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start them from multiprocessing's fork server; one that a test starts itself is a new process."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    monkeypatch.setattr(known, "mp", SimpleNamespace(get_context=lambda _method: context))
