"""How much memory this process takes."""

from collections.abc import Callable
from contextlib import suppress


def make_resident_bytes() -> Callable[[], int]:
    """A function that gives this process's resident size in bytes, or the last one that could be read.

    Reading it takes a file descriptor, of which the load may have left none.
    """
    import psutil

    process = psutil.Process()
    known = int(process.memory_info().rss)

    def resident_bytes() -> int:
        nonlocal known
        with suppress(OSError):
            known = int(process.memory_info().rss)
        return known

    return resident_bytes
