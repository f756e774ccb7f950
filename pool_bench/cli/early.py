"""Ctrl-C while Python still imports: one line instead of a traceback through some library's inside.

Imported before everything else by the modules that are commands, and of no effect in any other process.
"""

import os
import signal
import sys
from types import FrameType
from typing import Final

_COMMANDS: Final = ("pg-connection-bench", "pg-connection-load", "surreal-bench", "pool-bench")
_MODULES: Final = (*(f"{name.replace('-', '_')}.py" for name in _COMMANDS), "__main__.py")
_EXIT_LEFT: Final = 130


def _leave(number: int, frame: FrameType | None) -> None:
    # Nothing is open yet that would have to be closed, and an import may be in any state.
    try:
        os.write(2, b"left before anything was measured\n")
    finally:
        os._exit(_EXIT_LEFT)


def arm() -> None:
    """Leave in one line at Ctrl-C, until `disarm`, if this process is one of the commands."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")  # noqa: PTH119  # pathlib takes 10 ms to import
    if (
        name.removesuffix(".exe") in (*_COMMANDS, *_MODULES)
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _leave)


def disarm() -> None:
    """Make Ctrl-C an exception again, as everything expects that is to be cleaned up."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


arm()
