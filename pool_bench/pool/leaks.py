"""Leases that are held for too long, and where they were taken.

Nothing is timed for each lease: a lease carries the time of its acquire, and a sweep looks at all.
A stack is kept as code objects and line numbers, which is cheap, and becomes text only in a report.
"""

import linecache
import sys
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Final, TypeAlias

Stack: TypeAlias = tuple[tuple[CodeType, int], ...]

_DEEPEST: Final = 32
_OWN: Final = f"{__name__.rpartition('.')[0]}."
# Below a task's first frame is the loop, and below that whatever started it: no news to anybody.
_LOOP: Final = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners"})


def capture_stack() -> Stack:
    """The frames of the calling task, innermost first, without the pool's own."""
    frames: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(frames) < _DEEPEST:
        module = str(frame.f_globals.get("__name__", ""))
        if module in _LOOP:
            break
        if not module.startswith(_OWN):
            frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)


def format_stack(stack: Iterable[tuple[CodeType, int]]) -> str:
    """A stack as in a traceback, outermost call first."""
    lines: list[str] = []
    for code, number in stack:
        source = linecache.getline(code.co_filename, number).strip()
        entry = f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
        lines.append(entry + (f"    {source}\n" if source else ""))
    return "".join(reversed(lines))
