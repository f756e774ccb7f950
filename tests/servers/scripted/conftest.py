"""The servers' own tests start them as users do: as new processes."""

import multiprocessing

import pytest

from pool_bench.servers.scripted import server


@pytest.fixture(autouse=True)
def new_known_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo `forked_known_servers`."""
    monkeypatch.setattr(server, "mp", multiprocessing)
