"""What is asked of a server takes no longer than it may, whatever the resolver does."""

import asyncio
import socket
import threading
from contextlib import closing

import pytest

from pool_bench.cli.places.postgres import PostgresSite
from pool_bench.cli.preflight import run_briefly
from pool_bench.load.run import StopSwitch
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support import hostile_postgres as h
from tests.support.generators import target


def site(hosts: str) -> PostgresSite:
    there = target(f"postgresql://bench@{hosts}/postgres?sslmode=disable")
    return PostgresSite(targets=(there,), origin="--url")


async def look_up(host: str) -> object:
    return await asyncio.get_running_loop().getaddrinfo(host, 1)


def test_a_name_lookup_without_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    lookups: list[threading.Thread] = []

    def hang(*_arguments: object, **_keywords: object) -> list[object]:
        lookups.append(threading.current_thread())
        asked.set()
        answer.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def give_up() -> None:
        question = asyncio.ensure_future(look_up("db.example"))
        await asyncio.to_thread(asked.wait, 30)
        question.cancel()
        await question

    with pytest.raises(asyncio.CancelledError):
        run_briefly(give_up())
    (lookup,) = lookups
    try:
        assert lookup.is_alive()
        # The interpreter waits for those that are not.
        assert lookup.daemon
    finally:
        answer.set()
        lookup.join(30)


def test_what_was_looked_up_is_returned() -> None:
    assert run_briefly(look_up("127.0.0.1"))


def test_what_went_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_keywords: object) -> list[object]:
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="no such name"):
        run_briefly(look_up("db.example"))


def test_a_silent_first_host_does_not_keep_the_next_one_from_being_asked(
    embedded: EmbeddedPostgres, capfd: pytest.CaptureFixture[str]
) -> None:
    with h.HostileServer((h.read_startup, h.stall)) as silent, closing(StopSwitch()) as stop:
        hosts = f"127.0.0.1:{silent.port},127.0.0.1:{embedded.port}"
        # All of it is spent on the first host; the second one must stand a machine that stands still.
        server = site(hosts).greet(stop, timeout_s=3.0)
        alone = site(f"127.0.0.1:{silent.port}").greet(stop, timeout_s=0.1)
    assert server["product"] == "PostgreSQL"
    assert alone == {}
    assert "failed: timeout during auth: no answer after 0.1 s" in capfd.readouterr().err
