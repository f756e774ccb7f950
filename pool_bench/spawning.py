"""Starts processes that Ctrl-C does not reach: it is for the parent to decide what it means.

A terminal sends SIGINT to every process of its foreground group, and a Python that is still importing dies of
it with a traceback. So it is blocked from before such a process starts until that ignores it, for good.
"""

import signal
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess


def start_deaf(process: BaseProcess) -> None:
    """Start `process`, whose target is to call `ignore_interrupts` first of all."""
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


def ignore_interrupts() -> None:
    """Ignore SIGINT in this process, also the one that came while it was starting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
