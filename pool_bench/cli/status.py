"""What a command says on stderr: what it is busy with, gone when that is over, and what is no result."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final, TypeVar

_Value = TypeVar("_Value")
_ERASE: Final = "\r\x1b[K"

_shown = False


@contextmanager
def busy(what: str, *, only_terminals: bool = False) -> Iterator[None]:
    """Show `what` while the context lasts: in place on a terminal, elsewhere as a line that stays.

    Args:
        only_terminals: elsewhere, nothing.
    """
    global _shown
    stream = sys.stderr
    if not draws_in_place():
        if not only_terminals:
            print(f"{what} ...", file=stream, flush=True)
        yield
        return
    # Cut, because what wraps cannot be taken back.
    stream.write(f"{_ERASE}{what[: max(_columns() - 5, 8)]} ...")
    stream.flush()
    _shown = True
    try:
        yield
    finally:
        clear()


def clear() -> None:
    """Take away what is shown, because something else is to be said."""
    global _shown
    if _shown:
        _shown = False
        sys.stderr.write(_ERASE)
        sys.stderr.flush()


def notify(text: str) -> None:
    """Say something that is no result, on stderr."""
    clear()
    # Where stderr is a pipe without a reader there is nobody to tell, and no reason to stop.
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def draws_in_place() -> bool:
    """Whether what is shown on stderr can be taken back."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


@contextmanager
def entered(what: str, context: AbstractContextManager[_Value]) -> Iterator[_Value]:
    """`context`, with `what` shown while it is entered."""
    with ExitStack() as stack:
        with busy(what):
            value = stack.enter_context(context)
        yield value
