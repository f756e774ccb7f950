"""The parent's end of the keeper, and what every kept server has: a log, a port it keeps, an end.

A server lives exactly as long as its `KeptServer` is started and this process is alive: whatever ends this
process closes the pipe to the keeper (`keeper.py`), and the keeper stops the server and removes its
directory.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pool_bench.errors import ServerStartError
from pool_bench.servers.host import (
    LOOPBACK,
    directory_parent,
    free_port,
    server_account,
    server_environment,
)

_KEEPER_SCRIPT: Final = Path(__file__).with_name("keeper.py")
# Longer than all the waits inside the keeper together.
_KEEPER_EXIT_WAIT_S: Final = 60.0
_LOG_TAIL_LINES: Final = 12
_PORT_TRIES: Final = 8
_ADDRESS_IN_USE: Final = re.compile(r"address already in use|could not bind", re.IGNORECASE)
# What PostgreSQL says while backends of a predecessor that was killed have yet to notice.
_MEMORY_IN_USE: Final = "pre-existing shared memory block"


@dataclass(frozen=True, slots=True)
class StopStep:
    """One attempt to end a server: send a signal, or run a command, then wait.

    Attributes:
        signal: a signal's name, for example `SIGINT`.
        argv: a command instead of a signal; `{pid}` stands for the server's process.
        wait_s: seconds to wait for the server's end before the next step.
    """

    wait_s: float
    signal: str | None = None
    argv: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """The form in which the keeper reads it."""
        if self.argv is not None:
            return {"argv": list(self.argv), "wait_s": self.wait_s}
        return {"signal": self.signal, "wait_s": self.wait_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """When a server is ready: once `pattern` is found in `file`; `{pid}` stands for its process.

    Attributes:
        failed: a pattern that says that it never will be, for a server that carries on nevertheless.
    """

    file: Path
    pattern: str
    failed: str | None = None


class Keeper:
    """One keeper process with one directory and at most one server.

    Args:
        product: what is kept, for messages: `PostgreSQL`.
        longest_name: the longest path of a Unix socket below the directory, so that a place can be chosen
            where it fits; empty if there is none.
        drop_root: run everything as `nobody` when we are root; False for what has to reach files of ours.

    Attributes:
        account: the account of the server and its directory; None is our own.

    Raises:
        ServerStartError: the keeper could not be started, or its directory not be created.
    """

    def __init__(self, product: str, *, longest_name: str = "", drop_root: bool = True) -> None:
        self._product = product
        self.account: Final = server_account() if drop_root else None
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._directory_lock: int | None = None
        self._log_start = 0
        if not sys.executable:
            raise ServerStartError(f"{product} cannot be kept: this Python does not know its own executable")
        # -I hides the variable that says whether compiled modules may be written.
        options = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own script
                [sys.executable, *options, str(_KEEPER_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=server_environment(),
                # A terminal's Ctrl-C goes to the group or session in the foreground: be in neither.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise ServerStartError(f"{product} cannot be kept: {error}") from error
        _live_keepers.add(self)
        self._directory: Path | None = None
        prefix = f"pool-bench-{product.lower()}-"
        # 12 is the length of the random part that the keeper adds; 2 are the slashes.
        parent = directory_parent(self.account, len(prefix) + 12 + 2 + len(longest_name))
        try:
            owner = None if self.account is None else [self.account.uid, self.account.gid]
            reply = self._request(
                {"do": "directory", "parent": str(parent), "prefix": prefix, "owner": owner}
            )
            self._directory = Path(reply["directory"])
            self._hold_directory()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The keeper's own process."""
        return self._process.pid

    @property
    def directory(self) -> Path:
        """The server's directory; it belongs to the server's account and is removed by `close`."""
        assert self._directory is not None  # noqa: S101 - set before the constructor returns
        return self._directory

    @property
    def log(self) -> Path:
        """The file with everything that the commands and the server printed."""
        return self.directory / "server.log"

    def log_text(self) -> str:
        """What the latest command or server has printed so far."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file below the directory, readable by the server's account only.

        Raises:
            ServerStartError: it cannot be written.
        """
        path = self.directory / name
        data = content.encode() if isinstance(content, str) else content
        try:
            # Made anew, so that as root we can never be led elsewhere by a link of the server's account.
            path.unlink(missing_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                if self.account is not None:
                    os.fchown(handle, self.account.uid, self.account.gid)
                file.write(data)
        except OSError as error:
            raise ServerStartError(f"{self._product} did not start: cannot write {name}: {error}") from error
        return path

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        source: Path | None = None,
    ) -> str:
        """Run a command to its end, as the server's account.

        Args:
            argv: the program and its arguments.
            timeout_s: seconds until it is ended.
            env: variables in addition to `server_environment`.
            source: a file that it reads as its standard input; None is an empty one.

        Returns:
            What it printed.

        Raises:
            ServerStartError: it failed or took longer than `timeout_s`; with the end of what it printed.
        """
        command = self._command(argv, env) | {"input": None if source is None else str(source)}
        reply = self._request({"do": "run", **command, "timeout_s": timeout_s})
        name = Path(argv[0]).name
        if reply.get("timed_out"):
            raise self._start_error(f"{name} had not ended after {timeout_s:g} s")
        if reply["returncode"] != 0:
            raise self._start_error(f"{name} {_describe_end(reply['returncode'])}")
        return self.log_text()

    def start(
        self,
        argv: Sequence[str],
        *,
        ready: Readiness,
        stop: Sequence[StopStep],
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start the server, as its account, and wait until it is ready.

        Args:
            argv: the program and its arguments.
            ready: how to tell that it is ready.
            stop: how to stop it, one step after the other; SIGKILL follows the last.
            timeout_s: seconds until it has to be ready.
            env: variables in addition to `server_environment`.

        Returns:
            Its process.

        Raises:
            ServerStartError: it ended, or reported a failure or was not ready after `timeout_s` and was
                stopped; with the end of its log.
        """
        reply = self._request(
            {
                "do": "start",
                **self._command(argv, env),
                "ready": {"file": str(ready.file), "pattern": ready.pattern, "failed": ready.failed},
                "stop": [step.as_json() for step in stop],
                "timeout_s": timeout_s,
            }
        )
        if reply.get("timed_out"):
            raise self._start_error(f"it was not ready after {timeout_s:g} s")
        if reply.get("failed"):
            raise self._start_error("it reported a failure and was stopped")
        if "pid" not in reply:
            raise self._start_error(f"it {_describe_end(reply['returncode'])}")
        return int(reply["pid"])

    def stop(self, steps: Sequence[StopStep] | None = None) -> None:
        """Stop the server, in the way given to `start` unless `steps` say another; keeps the directory."""
        chosen = None if steps is None else [step.as_json() for step in steps]
        self._request({"do": "stop", "stop": chosen})

    def close(self) -> None:
        """Stop the server, remove the directory, end the keeper. Does nothing in a forked child."""
        process = self._process
        if os.getpid() != self._owner_pid or process.stdin is None or process.stdin.closed:
            return
        process.stdin.close()
        try:
            try:
                process.wait(_KEEPER_EXIT_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode != 0:
                self._clean_up_after_keeper()
        finally:
            self._let_go_of_directory()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def _command(self, argv: Sequence[str], env: Mapping[str, str] | None) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            self._log_start = self.log.stat().st_size
        return {
            "argv": list(argv),
            "env": server_environment() | dict(env or {}),
            "cwd": str(self.directory),
            "user": None if self.account is None else self.account.uid,
            "group": None if self.account is None else self.account.gid,
            "log": str(self.log),
            "input": None,
        }

    def _request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        line = b""
        with self._lock:
            try:
                # Closed when an earlier request was interrupted: its answer could be taken for this one's.
                if not process.stdin.closed:
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    while not line.endswith(b"\n") and (part := process.stdout.read(65536)):
                        line += part
            except OSError:
                # It has gone; below its last words are asked for.
                line = b""
            except BaseException:
                self.close()
                raise
        if not line.endswith(b"\n"):
            raise ServerStartError(f"the keeper of {self._product} ended: {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise self._start_error(str(reply["error"]))
        return reply

    def _last_words(self) -> str:
        process = self._process
        if process.stderr is None or process.stderr.closed:
            return "it was closed"
        lines = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _start_error(self, reason: str) -> ServerStartError:
        lines = [line for line in self.log_text().splitlines() if line.strip()] if self._directory else []
        tail = "".join(f"\n  {line}" for line in lines[-_LOG_TAIL_LINES:])
        return ServerStartError(f"{self._product} did not start: {reason}{tail}")

    def _hold_directory(self) -> None:
        """See that no later start takes the directory for an abandoned one, should the keeper be killed."""
        if os.name == "posix":
            from pool_bench.servers import leftovers as remains

            with contextlib.suppress(OSError):
                self._directory_lock = remains.hold(self.directory)

    def _let_go_of_directory(self) -> None:
        handle, self._directory_lock = self._directory_lock, None
        if handle is not None:
            os.close(handle)

    def _clean_up_after_keeper(self) -> None:
        """Do the keeper's last job for it: something ended it (the kernel, out of memory, for example)."""
        if self._directory is None:
            return
        import shutil

        if os.name == "posix":
            from pool_bench.servers import leftovers as remains

            remains.end(self._directory, quit_first=True)
        shutil.rmtree(self._directory, ignore_errors=True)


def _describe_end(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"


_live_keepers: "weakref.WeakSet[Keeper]" = weakref.WeakSet()


def _let_go_in_child() -> None:
    """Close a forked child's copies: it would keep servers and directories after the real parent's end."""
    for keeper in _live_keepers:
        keeper._let_go_of_directory()
        stdin = keeper._process.stdin
        if stdin is not None:
            # Unbuffered, so there is no lock that another thread may have held at the fork.
            stdin.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


class KeptServer(ABC):
    """A server that is started on a free loopback port, in a directory of its own, and removed after use.

    `start` and `stop`, or a `with` block. Not safe for use from several threads at once. Attributes are
    meaningful while it is started.

    Attributes:
        host: always 127.0.0.1.
        port: its TCP port.
        pid: its (main) process.
        version: as the product writes it: `18.6`.
        socket_dir: the directory of its Unix socket, or None where a socket's path would be too long.
    """

    product: str = "server"
    host: Final = LOOPBACK

    def __init__(self) -> None:
        self.port = 0
        self.pid = 0
        self.version = ""
        self.socket_dir: Path | None = None
        self._keeper: Keeper | None = None

    @property
    def kept(self) -> Keeper:
        """The keeper of the running server.

        Raises:
            RuntimeError: the server is not started.
        """
        if self._keeper is None:
            raise RuntimeError(f"{self.product} is not started")
        return self._keeper

    @property
    def directory(self) -> Path:
        """The server's own temporary directory, gone after `stop`."""
        return self.kept.directory

    def log(self) -> str:
        """What the server has written to its log since it was last started."""
        return self.kept.log_text()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServerStartError: it did not start; the message ends with the last lines of its log.
            RuntimeError: it is started already.
        """
        if self._keeper is not None:
            raise RuntimeError(f"{self.product} is started already")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and remove its directory. Does nothing if it is not started."""
        keeper, self._keeper = self._keeper, None
        self.pid = 0
        if keeper is not None:
            keeper.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @abstractmethod
    def _start(self) -> None:
        """Create `self._keeper` and start the server with it; `start` cleans up if this raises."""

    @abstractmethod
    def _launch(self, port: int) -> int:
        """Start the server's process on a port and return it."""

    def _launch_on_free_port(self) -> None:
        """Launch, on another port again where somebody took the first between our look and the server's."""
        for left in reversed(range(_PORT_TRIES)):
            port = free_port()
            try:
                self.pid = self._launch(port)
            except ServerStartError:
                if left == 0 or not _ADDRESS_IN_USE.search(self.kept.log_text()):
                    raise
            else:
                self.port = port
                return

    def _relaunch_on_same_port(self) -> None:
        """Launch again where it was; waits for a passing user of the port, and for a crash to be over."""
        import time

        for left in reversed(range(_PORT_TRIES)):
            try:
                self.pid = self._launch(self.port)
            except ServerStartError:
                log = self.kept.log_text()
                if left == 0 or not (_ADDRESS_IN_USE.search(log) or _MEMORY_IN_USE in log):
                    raise
                time.sleep(0.25)
            else:
                return
