"""Known servers as forks of a process that has their modules, for imports were most of their time."""

from types import SimpleNamespace

import pytest

from pool_bench.servers.scripted import server as known
from tests.support.forkserver import context


@pytest.fixture(autouse=True)
def forked_known_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start them from multiprocessing's fork server; one that a test starts itself is a new process."""
    monkeypatch.setattr(known, "mp", SimpleNamespace(get_context=lambda _method: context))
