"""What `acquire()` returns: awaited it gives a connection, entered it also takes it back."""

from collections.abc import Generator
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from pool_bench.pool.connections import C, PooledConnection
from pool_bench.pool.errors import PoolError
from pool_bench.pool.leaks import Stack
from pool_bench.pool.slots import Slot

_C = TypeVar("_C", bound=PooledConnection)


class Lender(Protocol[_C]):
    """The pool, as a lease sees it."""

    def lend_now(self, stack: Stack | None) -> Slot[_C] | None:
        """A slot that can be had without waiting, None where there is none."""

    async def lend(self, timeout: float | None, stack: Stack | None) -> Slot[_C]:
        """Wait for a slot."""

    def take_back(self, slot: Slot[_C], number: int, *, suspect: bool) -> None:
        """End the slot's lease of that number."""


class Lease(Generic[C]):
    """One acquire; good for one `await`, or for one `async with` at a time."""

    __slots__ = ("_lender", "_number", "_slot", "_stack", "_timeout")

    def __init__(self, lender: Lender[C], timeout: float | None, stack: Stack | None) -> None:
        self._lender = lender
        self._timeout = timeout
        self._stack = stack
        self._slot: Slot[C] | None = None
        self._number = 0

    async def __aenter__(self) -> C:
        if self._slot is not None:
            raise PoolError("this acquire() has been entered already; call acquire() for each lease")
        slot = self._lender.lend_now(self._stack)
        if slot is None:
            slot = await self._lender.lend(self._timeout, self._stack)
        self._slot = slot
        self._number = slot.uses
        return slot.conn

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        slot = self._slot
        if slot is not None:
            self._slot = None
            self._lender.take_back(slot, self._number, suspect=exc_type is not None)

    def __await__(self) -> Generator[object, None, C]:
        return self.__aenter__().__await__()
