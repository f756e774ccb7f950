"""Waiting until a pool has come to rest."""

import asyncio
from collections.abc import Callable


class Quiescence:
    """Those who wait until something holds; true while there is anybody."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Future[None], Callable[[], bool]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, timeout_s: float | None, condition: Callable[[], bool]) -> bool:
        """Wait until `condition` holds, at most `timeout_s` seconds; returns whether it does."""
        if condition():
            return True
        entry = (asyncio.get_running_loop().create_future(), condition)
        self._waiting.append(entry)
        try:
            await asyncio.wait([entry[0]], timeout=timeout_s)
        finally:
            self._waiting.remove(entry)
        return condition()

    def note(self) -> None:
        """Something has changed."""
        for future, condition in self._waiting:
            if not future.done() and condition():
                future.set_result(None)
