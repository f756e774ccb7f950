"""Runs what is asked of a server before or instead of a run, and waits no longer than it was told to."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class _UnjoinedThreads(ThreadPoolExecutor):
    """A thread for each call, which nobody waits for at the end.

    A name lookup cannot be interrupted, and a resolver without an answer takes half a minute; the threads of
    asyncio's own executor would be waited for, by the loop and by the interpreter.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in a thread of its own."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # it is told to whoever asked
                future.set_exception(error)
            else:
                future.set_result(result)

        Thread(target=work, daemon=True).start()
        return future


def run_briefly(question: Coroutine[object, object, T]) -> T:
    """Run `question` in an event loop of its own, as `asyncio.run` does.

    Its end is the end: lookups of names, and whatever else it had left to a thread, are not waited for.
    """

    async def ask() -> T:
        asyncio.get_running_loop().set_default_executor(_UnjoinedThreads())
        return await question

    return asyncio.run(ask())
