"""What `start_module` starts in a test: tells of itself, ignores interrupts, and waits for its end."""

import json
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from pool_bench.processes import ignore_interrupts


def main(fd: int) -> None:
    """Send what was there before anything was done, then again once told to, then end.

    Args:
        fd: one end of a duplex pipe.
    """
    control: Connection[str, str] = Connection(fd)
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ignore_interrupts()
    environment = Path("/proc/self/environ").read_text(encoding="utf-8", errors="replace")
    control.send(
        json.dumps(
            {
                "blocked": blocked,
                "environment": environment,
                "main": getattr(sys.modules["__main__"], "__file__", None),
                "path": sys.path,
            }
        )
    )
    control.recv()
    control.send(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())))
