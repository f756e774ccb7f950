"""The keeper: a small process that owns one server and its directory, and outlives whoever asked for them.

Run by path (`python -I -S keeper.py`), never imported by what it serves; standard library only, because it
runs without site-packages. `kept.py` is the other end. The strategy:

* The parent holds the write end of our stdin. However the parent ends, SIGKILL included, the kernel closes
  that pipe; end of file is the one signal to clean up, and it cannot be missed.
* We live in a session of our own, so a terminal's Ctrl-C reaches neither us nor the server.
* We create the directory ourselves: there is no moment at which it exists and nobody would remove it.
* It has a marker whose lock we hold. Where SIGKILL ends us, the next keeper finds the lock free and does what
  we could not (`leftovers.py`).
* One queue brings everything (requests, end of file, signals) to one thread, so nothing needs a lock.

One JSON object a line, each request answered by exactly one line:

    {"do": "directory", parent, prefix, owner: [uid, gid] | null}   -> {"directory": path}
    {"do": "run", COMMAND, timeout_s}                               -> {"returncode": n} | {"timed_out": true}
    {"do": "start", COMMAND, ready: {file, pattern, failed}, stop, timeout_s}
                         -> {"pid": n} | {"returncode": n} | {"timed_out": true} | {"failed": true}
    {"do": "stop", stop | null}                                     -> {"returncode": n | null}

COMMAND is argv, env, cwd, user, group (numbers or null), log (stdout and stderr are appended to it) and input
(a file that becomes its stdin, or null).
`pattern` is a regular expression searched for in `file`, and so is `failed` (or null), for servers that carry
on when they cannot do what they were started for; `stop` is a list of steps {signal | argv, wait_s}, taken in
turn until the server has gone, with SIGKILL after the last. `{pid}` in a pattern or in the argv of a step
stands for the server's process. Stopping where nothing runs is no error; a request that the system refuses is
answered by {"error": message}.
"""

import contextlib
import importlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any, Final

Request = dict[str, Any]
Reply = dict[str, Any]

# How often a starting server's readiness is looked at; its death is noticed at once, through SIGCHLD.
_READY_POLL_S: Final = 0.004
# Only where there is no SIGCHLD (Windows) does the end of a child have to be polled for.
_EXIT_POLL_S: Final = 0.5 if hasattr(signal, "SIGCHLD") else 0.02
_KILL_WAIT_S: Final = 10.0
_REMOVE_WAIT_S: Final = 10.0
# More would only slow down programs that walk all descriptors.
_MAX_DESCRIPTORS: Final = 1 << 20


class _LeaveError(Exception):
    """The parent has gone, or somebody told us to stop."""


_Events = queue.SimpleQueue[Request | None]


def _read_requests(events: _Events) -> None:
    """Turn stdin into events: a request each, then None for its end."""
    # os.read, not sys.stdin: a thread blocked in a buffered reader makes the interpreter's exit fail.
    buffered = b""
    try:
        while chunk := os.read(0, 65536):
            *lines, buffered = (buffered + chunk).split(b"\n")
            for line in lines:
                events.put(json.loads(line))
    finally:
        events.put(None)


class _Keeper:
    def __init__(self, events: _Events) -> None:
        self._events = events
        self._directory: str | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stop_steps: list[dict[str, Any]] = []
        self._leaving = False

    def serve(self) -> None:
        """Answer requests until the parent has gone, then clean up."""
        try:
            while True:
                request = self._next_event(None)
                if request:
                    self._reply(self._answer(request))
        except _LeaveError:
            pass
        finally:
            self._clean_up()

    def _next_event(self, timeout_s: float | None) -> Request | None:
        """Wait for a request; None when the time is up, an empty request when a child may have ended."""
        if self._leaving:
            raise _LeaveError
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is None:
            self._leaving = True
            raise _LeaveError
        return event

    def _reply(self, reply: Reply) -> None:
        # A parent that cannot read any more has gone; the end of stdin says so as well.
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(reply).encode() + b"\n")

    def _answer(self, request: Request) -> Reply:
        do = request["do"]
        try:
            if do == "directory":
                return self._make_directory(request)
            if do == "run":
                return self._run(request)
            if do == "start":
                return self._start(request)
            return self._stop(request)
        except (OSError, subprocess.SubprocessError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _make_directory(self, request: Request) -> Reply:
        remains = _remains()
        if remains is not None:
            remains.tidy(remains.Path(request["parent"]))
        # Not tempfile.mkdtemp: that import alone costs more than the rest of our start.
        path = os.path.join(request["parent"], request["prefix"] + os.urandom(6).hex())  # noqa: PTH118
        os.mkdir(path, 0o700)  # noqa: PTH102 - pathlib is not imported here, for the same reason
        self._directory = path
        if remains is not None:
            owner = os.geteuid() if request["owner"] is None else request["owner"][0]
            # Held until we end.
            remains.mark(remains.Path(path), owner)
        if request["owner"] is not None:
            os.chown(path, *request["owner"])
        return {"directory": path}

    def _run(self, request: Request) -> Reply:
        child = _spawn(request)
        try:
            ended = self._wait(child, request["timeout_s"])
        finally:
            self._kill(child)
        return {"returncode": child.returncode} if ended else {"timed_out": True}

    def _start(self, request: Request) -> Reply:
        self._stop_steps = request["stop"]
        child = self._child = _spawn(request)
        ready = request["ready"]
        pattern = _compile(ready["pattern"], child.pid)
        failed = None if ready["failed"] is None else _compile(ready["failed"], child.pid)
        deadline = time.monotonic() + request["timeout_s"]
        while child.poll() is None:
            text = _read_text(ready["file"])
            if pattern.search(text):
                return {"pid": child.pid}
            if failed is not None and failed.search(text):
                self._end_child(self._stop_steps)
                return {"failed": True}
            if time.monotonic() > deadline:
                self._end_child(self._stop_steps)
                return {"timed_out": True}
            self._next_event(_READY_POLL_S)
        self._child = None
        return {"returncode": child.returncode}

    def _stop(self, request: Request) -> Reply:
        return {"returncode": self._end_child(request["stop"] or self._stop_steps)}

    def _wait(self, child: subprocess.Popen[bytes], timeout_s: float) -> bool:
        """Wait for a child's end; False if it did not come in time."""
        deadline = time.monotonic() + timeout_s
        while child.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._next_event(min(left, _EXIT_POLL_S))
        return True

    def _wait_even_when_leaving(self, child: subprocess.Popen[bytes], timeout_s: float) -> None:
        """Wait for a child that was told to stop; news that the parent has gone does not cut this short."""
        deadline = time.monotonic() + timeout_s
        while child.poll() is None and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                if self._events.get(timeout=min(left, _EXIT_POLL_S)) is None:
                    self._leaving = True

    def _end_child(self, steps: list[dict[str, Any]]) -> int | None:
        child = self._child
        if child is None:
            return None
        for step in steps:
            if child.poll() is not None:
                break
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                if "signal" in step:
                    child.send_signal(getattr(signal, step["signal"]))
                else:
                    argv = [part.replace("{pid}", str(child.pid)) for part in step["argv"]]
                    quiet = subprocess.DEVNULL
                    subprocess.run(  # noqa: S603 - argv comes from our own parent
                        argv, stdin=quiet, stdout=quiet, stderr=quiet, timeout=step["wait_s"], check=False
                    )
            self._wait_even_when_leaving(child, step["wait_s"])
        self._kill(child)
        self._child = None
        return child.returncode

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        if child.poll() is None:
            self._end_remains()
        _kill_group(child)

    def _end_remains(self) -> None:
        """End what still works in our directory, with the shared memory that killing it would leave."""
        remains = _remains()
        if remains is not None and self._directory is not None:
            remains.end(remains.Path(self._directory), quit_first=False)

    def _clean_up(self) -> None:
        self._end_child(self._stop_steps)
        if self._directory is None:
            return
        # A PostgreSQL that ended properly removes it.
        if os.path.lexists(os.path.join(self._directory, "data", "postmaster.pid")):  # noqa: PTH118
            self._end_remains()
        # A process that was just killed may still be creating files: try again until nothing is left.
        deadline = time.monotonic() + _REMOVE_WAIT_S
        while os.path.lexists(self._directory) and time.monotonic() < deadline:
            shutil.rmtree(self._directory, ignore_errors=True)
            if os.path.lexists(self._directory):
                time.sleep(0.02)


def _remains() -> ModuleType | None:
    """The module beside this file; None where there is no POSIX."""
    if os.name != "posix":
        return None
    place = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    # Last, so that none of our other modules is taken for one of the standard library.
    if place not in sys.path:
        sys.path.append(place)
    return importlib.import_module("leftovers")


def _compile(pattern: str, pid: int) -> re.Pattern[str]:
    return re.compile(pattern.replace("{pid}", str(pid)))


def _read_text(path: str) -> str:
    """What a file contains now; nothing where there is none yet."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def _spawn(request: Request) -> subprocess.Popen[bytes]:
    user = request["user"]
    account = {} if user is None else {"user": user, "group": request["group"], "extra_groups": []}
    # O_NOFOLLOW: the directory belongs to the server's account while we may be root.
    no_follow = getattr(os, "O_NOFOLLOW", 0)
    source = None if request["input"] is None else os.open(request["input"], os.O_RDONLY | no_follow)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | no_follow, 0o600)
    try:
        # A session each, so that killing the group takes what a command started along with it.
        return subprocess.Popen(  # noqa: S603 - argv comes from our own parent
            request["argv"],
            env=request["env"],
            cwd=request["cwd"],
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **account,
        )
    finally:
        os.close(log)
        if source is not None:
            os.close(source)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, and its process group, at once; waits until the child has gone."""
    if child.poll() is not None:
        # Its number is free for others by now.
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_KILL_WAIT_S)


def _raise_descriptor_limit() -> None:
    """Let servers open as many descriptors as the administrator allows, not as many as a shell's default."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Serve one parent, then leave without a trace."""
    events: _Events = queue.SimpleQueue()
    # Handlers that do nothing, not SIG_IGN: an ignored signal would stay ignored in the server.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: events.put(None))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: None)
    if hasattr(signal, "SIGCHLD"):
        # SimpleQueue.put may be called from a handler; an empty request wakes whoever waits for a child.
        signal.signal(signal.SIGCHLD, lambda *_: events.put({}))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _raise_descriptor_limit()
    threading.Thread(target=_read_requests, args=(events,), daemon=True).start()
    _Keeper(events).serve()
    sys.stdout.flush()
    # The reader thread may still sit in os.read; nothing of ours is left to finalise.
    os._exit(0)


if __name__ == "__main__":
    main()
