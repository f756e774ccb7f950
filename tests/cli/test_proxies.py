"""What `HTTP_PROXY` and its kin say does not send connections elsewhere."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pool_bench.servers.surreal.server import EmbeddedSurreal
from tests.support.commands import run_tool

_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY")


class _Proxy:
    """Counts who comes, and lets nobody through."""

    def __init__(self, listener: socket.socket) -> None:
        self.visits = 0
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                visitor, _ = self._listener.accept()
                self.visits += 1
                visitor.close()

    @property
    def environment(self) -> dict[str, str]:
        return {form: self.url for name in _NAMES for form in (name, name.lower())}


@pytest.fixture
def proxy() -> Iterator[_Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = _Proxy(listener)
        thread = threading.Thread(target=proxy.serve)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "arguments",
    [
        ("connect", "--driver", "surreal", "-c", "1"),
        ("connect", "--driver", "surrealdb", "-c", "1"),
        ("load", "--driver", "surrealdb", "--connections", "1"),
        ("pool", "--pool", "naive,shared,reference", "-s", "query", "--clients", "1", "--rounds", "1"),
        ("check",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_no_command_goes_through_a_proxy_of_the_environment(
    tmp_path: Path, surreal: EmbeddedSurreal, proxy: _Proxy, arguments: tuple[str, ...], scheme: str
) -> None:
    if arguments[0] == "load" and scheme == "http":
        pytest.skip("connections over HTTP cannot be held")
    env = {
        **proxy.environment,
        "SURREAL_URL": surreal.url.replace("ws://", f"{scheme}://"),
        "SURREAL_USER": surreal.user,
        "SURREAL_PASS": surreal.password,
    }
    short: tuple[str, ...] = (
        () if arguments[0] == "check" else ("--duration", "100ms", "--no-save", "--quiet", "--json", "-")
    )
    if short and arguments[0] != "load":
        # What begins first is measured, however slow the machine.
        short += ("--warmup", "0", "--grace", "60s")
    done = run_tool(*arguments, *short, cwd=tmp_path, env=env, command="surreal_bench")
    assert proxy.visits == 0
    assert done.code == 0, done.stderr
    if short:
        assert all(run["ok"] and not run["failed"] for run in json.loads(done.stdout)["runs"])
