"""How much memory this process takes."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

# proc(5): sizes in pages, the second one is what is resident.
_STATM: Final = Path("/proc/self/statm")


def make_resident_bytes() -> Callable[[], int]:
    """A function that gives this process's resident size in bytes, or the last one that could be read.

    Reading it takes a file descriptor, of which the load may have left none.
    """
    read = _from_statm if sys.platform == "linux" else _by_psutil()
    known = read()

    def resident_bytes() -> int:
        nonlocal known
        with suppress(OSError):
            known = read()
        return known

    return resident_bytes


def _from_statm() -> int:
    # As psutil does, whose import would be a good part of what the process of a short run costs.
    return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _by_psutil() -> Callable[[], int]:
    import psutil

    process = psutil.Process()
    return lambda: int(process.memory_info().rss)
