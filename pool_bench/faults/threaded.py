"""A fault proxy in a thread and event loop of its own, for clients that block theirs."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self, TypeVar

from pool_bench.faults.proxy import FaultProxy

T = TypeVar("T")


class ThreadedProxy:
    """Runs a `FaultProxy`, which is not started yet, between `__enter__` and `__exit__`.

    Everything it can do goes through `call`: `proxy.call(lambda p: p.set(Conditions(mode=Mode.HOLE)))`.
    """

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.call(lambda proxy: proxy.start())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._proxy.close(), self._loop).result()
        finally:
            self._stop()

    @property
    def port(self) -> int:
        """The port that it listens on, or refuses on."""
        return self.call(lambda proxy: proxy.port)

    def url(self, dbname: str = "postgres", *, user: str = "postgres", **parameters: str) -> str:
        """A PostgreSQL URL that leads through the proxy."""
        return self.call(lambda proxy: proxy.url(dbname, user=user, **parameters))

    def call(self, function: Callable[[FaultProxy], T]) -> T:
        """Run `function` on the proxy in its own thread, and wait for it.

        Raises:
            Exception: what `function` raised.
        """

        async def run() -> T:
            return function(self._proxy)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
