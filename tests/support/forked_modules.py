"""Generators as forks: what `processes.start_module` starts, without a new Python's time to import it.

They are forks of a process that is itself forked before the command has any thread, as the locks of threads
would stay locked in a fork. They have what a new Python would: the environment without our passwords, the
directory, stdin, stdout, stderr, and the descriptors that were named.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn
from unittest.mock import patch

from pool_bench import processes

_MOST_BYTES: Final = 1 << 20
_MOST_DESCRIPTORS: Final = 8


class Forked:
    """As much of a `subprocess.Popen` as a run needs; its end is that of a pipe that it has open."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self._ended = ended

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for so many seconds.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self._ended >= 0:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            os.close(self._ended)
            self._ended = -1
        return 0

    def kill(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def forking_modules() -> Iterator[None]:
    """Runs of this process get their generators as forks meanwhile, on Linux."""
    if not sys.platform.startswith("linux"):
        yield
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        _serve(theirs)
    theirs.close()

    def start(module: str, *descriptors: int) -> Forked:
        ended, held = os.pipe()
        with processes.without_secrets():
            asked = json.dumps({"module": module, "env": dict(os.environ), "cwd": os.getcwd()})  # noqa: PTH109
        socket.send_fds(ours, [asked.encode()], [0, 1, 2, held, *descriptors])
        os.close(held)
        return Forked(int(ours.recv(_MOST_BYTES)), ended)

    with ours, patch("pool_bench.load.child.start_module", start):
        yield


def _serve(asking: socket.socket) -> NoReturn:
    """Fork for everyone who asks, until nobody can any more."""
    try:
        signal.signal(signal.SIGCHLD, _reap)
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        while True:
            asked, descriptors, *_ = socket.recv_fds(asking, _MOST_BYTES, _MOST_DESCRIPTORS)
            if not asked:
                break
            pid = os.fork()
            if not pid:
                asking.close()
                _become(asked, descriptors)
            for number in descriptors:
                os.close(number)
            asking.send(str(pid).encode())
    except OSError:
        traceback.print_exc()
    finally:
        os._exit(0)


def _reap(_number: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _become(asked: bytes, descriptors: list[int]) -> NoReturn:
    """Run what was asked for, and end."""
    code = 1
    try:
        for one in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_DFL)
        *streams, _held = descriptors[:4]
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        what = json.loads(asked)
        os.environ.clear()
        os.environ.update(what["env"])
        os.chdir(what["cwd"])
        import_module(what["module"]).main(*descriptors[4:])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
