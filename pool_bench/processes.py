"""Starts processes that Ctrl-C does not reach: it is for the parent to decide what it means.

A terminal sends SIGINT to every process of its foreground group, and a Python that is still importing dies of
it with a traceback. So it is blocked from before such a process starts until that ignores it, for good.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# What may hold a password. Targets are read by then and carry their own.
_SECRETS: Final = ("PGPASSWORD", "DATABASE_URL", "SURREAL_PASS", "SURREAL_URL")


@contextmanager
def without_secrets() -> Iterator[None]:
    """An environment that gives away no password to whoever may look at a child's (`/proc/PID/environ`)."""
    kept = {name: os.environ.pop(name) for name in _SECRETS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def start_ignoring_interrupts(process: "BaseProcess") -> None:
    """Start `process`, whose target is to call `ignore_interrupts` first of all; without our passwords."""
    from multiprocessing import resource_tracker

    if hasattr(signal, "pthread_sigmask"):
        # Where it does not run yet, starting it along with a process would unblock the signal again.
        resource_tracker.ensure_running()
    with without_secrets(), without_interrupts():
        process.start()


def start_module(module: str, *descriptors: int) -> "subprocess.Popen[bytes]":
    """Start a Python that calls `main` of `module` with `descriptors`, which it inherits.

    Without our passwords; and unlike a process of `multiprocessing` without our main module, which for a
    command is everything that the command needs. It is to call `ignore_interrupts` first of all.
    """
    # Ours, as multiprocessing has it: where this program was found, that one is as well.
    # What is imported stays: without the collector that takes less, and no collection of a run looks at it.
    code = (
        f"import gc, sys; gc.disable(); sys.path[:] = {sys.path!r}; from {module} import main; "
        f"gc.freeze(); gc.enable(); main{descriptors!r}"
    )
    options = ["-I"] if sys.flags.isolated else []
    with without_secrets(), without_interrupts():
        return subprocess.Popen([sys.executable, *options, "-c", code], pass_fds=descriptors)  # noqa: S603 - ours


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Block SIGINT, also in what is started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows: what is sent too early ends the new process
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore SIGINT in this process, also the one that came while it was starting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped by a signal (state T of proc(5)); False where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # A process may be called anything, so its name ends at the last bracket.
    return text[text.rindex(b")") + 2 : text.rindex(b")") + 3] in (b"T", b"t")
