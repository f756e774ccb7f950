"""Starts processes that Ctrl-C does not reach: it is for the parent to decide what it means.

A terminal sends SIGINT to every process of its foreground group, and a Python that is still importing dies of
it with a traceback. So it is blocked from before such a process starts until that ignores it, for good.

Nor does such a process import the module that Python was started with, as `multiprocessing` would have it:
what it is to do is in a module of its own, and a command line is of no use there.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess


def start_deaf(process: BaseProcess) -> None:
    """Start `process`, whose target is to call `ignore_interrupts` first of all, and is not of `__main__`."""
    with _unnamed_main():
        _start_deaf(process)


def _start_deaf(process: BaseProcess) -> None:
    if not hasattr(signal, "pthread_sigmask"):
        process.start()  # Windows: what is sent too early ends it
        return
    # Where it does not run yet, starting it along with a process would unblock the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _unnamed_main() -> Iterator[None]:
    """Let `__main__` look as in an interactive session, which cannot be imported again."""
    main = vars(sys.modules["__main__"])
    before: dict[str, object] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(before)


def ignore_interrupts() -> None:
    """Ignore SIGINT in this process, also the one that came while it was starting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
