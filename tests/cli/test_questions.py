"""What is asked of a server takes no longer than it may, whatever the resolver does."""

import asyncio
import socket
import threading

import pytest

from pool_bench.cli.questions import put


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
        put(give_up())
    (lookup,) = lookups
    try:
        assert lookup.is_alive()
        # The interpreter waits for those that are not.
        assert lookup.daemon
    finally:
        answer.set()
        lookup.join(30)


def test_what_was_looked_up_is_returned() -> None:
    assert put(look_up("127.0.0.1"))


def test_what_went_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_keywords: object) -> list[object]:
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="no such name"):
        put(look_up("db.example"))
