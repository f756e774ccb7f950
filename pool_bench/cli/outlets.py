"""stdout and stderr that can fail, or stop being read, without taking a measurement with them.

A full disk, a terminal held by Ctrl-S, a pager that shows its first page, an encoding without blocks: none
of them may raise in the middle of a run, or keep its result from being saved. So what is printed goes to a
thread that writes it, and printing waits for that thread only as long as the reader reads.
"""

import contextlib
import errno
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Final, TextIO

from pool_bench.cleaning import HIDDEN

# A reader that takes nothing for so long holds up nobody any more.
_PATIENCE_S: Final = 1.0
_LEAVING_S: Final = 0.5
# Bars in eighths, sparklines and the marks of our own texts, for encodings that have only letters.
_PLAIN: Final = str.maketrans(
    dict(zip("█▉▊▋▌▍▎▏▁▂▃▄▅▆▇", "######..__--==#", strict=True))
    | dict(zip("·—━─│╸╺", "----|--", strict=True))
    | {"…": "...", "→": "->", "≥": ">=", "≤": "<=", "±": "+-", "°": " deg"}
    | {"\N{MULTIPLICATION SIGN}": "x", "\N{MICRO SIGN}": "u", "\N{EN DASH}": "-"}
)
# Colours, cursor movements and line ends are ours; nothing else that steers a terminal is anybody's to send.
_STEERING: Final = re.compile(rf"(\x1b\[[0-9;?]*[A-Za-z]|[\t\n\r])|[{HIDDEN}]")


class Outlet(io.TextIOBase):
    """A text stream whose writes neither raise, but for a pipe's reader that has gone, nor block for long.

    Attributes:
        expendable: what goes here is kept elsewhere, too, so that losing it is no failure.
        failure: what became of a write, None as long as all went well; nothing is written after it.
        lost: whether anything was not written for that.
    """

    def __init__(self, stream: TextIO | None, *, tells_gone: bool) -> None:
        """Take the place of `stream`.

        Args:
            stream: the stream as Python opened it; None where its descriptor was closed.
            tells_gone: raise `BrokenPipeError`, once, when the reader of a pipe has gone.
        """
        self.expendable = False
        self.lost = False
        self.failure: OSError | None = None
        self._encoding = "utf-8" if stream is None else stream.encoding or "utf-8"
        self._descriptor = -1 if stream is None else stream.fileno()
        self._is_terminal = stream is not None and stream.isatty()
        self._tells_gone = tells_gone
        self._pending = bytearray()
        self._writing = False
        self._stalled = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if stream is None:
            self.failure = OSError(errno.EBADF, "it is closed")

    @property
    def encoding(self) -> str:  # type: ignore[override]  # io.TextIOBase has it as a plain attribute
        """The encoding of the stream it stands for."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters that the encoding lacks are written."""
        return "replace"

    @property
    def stalled(self) -> bool:
        """Whether the reader has stopped reading; what only shows progress is better left out then."""
        return self._stalled

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor it writes to.

        Raises:
            OSError: there is none.
        """
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "it is closed")
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """Take `text` to be written.

        Raises:
            BrokenPipeError: the reader has gone, said once.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._tell_gone()
        if self.failure is not None:
            self.lost = self.lost or bool(text)
            return len(text)
        data = self._encoded(text)
        with self._changed:
            self._pending += data
        return len(text)

    def flush(self) -> None:
        """Wait until all is written, or the reader has taken nothing for a second.

        Raises:
            BrokenPipeError: the reader has gone, said once.
        """
        self._begin_writing()
        if not self._stalled:
            self.drain(_PATIENCE_S)
        self._tell_gone()

    def drain(self, patience_s: float | None = None) -> bool:
        """Wait until all is written, or for `patience_s` seconds without any progress; None: for ever.

        Returns:
            Whether all that was ever written has arrived.
        """
        self._begin_writing()
        with self._changed:
            while (self._pending or self._writing) and self.failure is None:
                if not self._changed.wait(patience_s):
                    self._stalled = True
                    return False
        return not self.lost

    def _begin_writing(self) -> None:
        with self._changed:
            if self._pending and self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="outlet", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _tell_gone(self) -> None:
        if self._tells_gone and isinstance(self.failure, BrokenPipeError):
            self._tells_gone = False
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _encoded(self, text: str) -> bytes:
        if self._is_terminal:
            text = _STEERING.sub(lambda match: match[1] or "", text)
        try:
            return text.encode(self._encoding)
        except UnicodeEncodeError:
            return text.translate(_PLAIN).encode(self._encoding, "replace")

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    self._changed.wait()
                data, self._pending, self._writing = self._pending, bytearray(), True
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._descriptor, view[:65536]) :]
                except BlockingIOError:
                    # Somebody else who has this terminal or pipe made it non-blocking.
                    with contextlib.suppress(OSError):
                        _wait_writable(self._descriptor)
                except OSError as error:
                    with self._changed:
                        self.failure, self.lost = error, True
                        self._writing = False
                        self._pending.clear()
                        self._changed.notify_all()
                    return
                with self._changed:
                    self._stalled = False
                    self._changed.notify_all()
            with self._changed:
                self._writing = False
                self._changed.notify_all()


def stalled(stream: TextIO | Outlet) -> bool:
    """Whether nobody reads what `stream` shows."""
    return isinstance(stream, Outlet) and stream.stalled


def make_expendable(stream: TextIO | Outlet) -> None:
    """What `stream` shows is kept elsewhere, too: that it cannot be written is no failure."""
    if isinstance(stream, Outlet):
        stream.expendable = True


def deliver(stream: TextIO | Outlet, text: str) -> OSError | None:
    """Write `text`, which is kept nowhere else, and wait for its reader however long that takes.

    Returns:
        Why it did not arrive; None where it did.

    Raises:
        BrokenPipeError: the reader has gone.
    """
    stream.write(text)
    stream.flush()
    if not isinstance(stream, Outlet) or stream.drain():
        return None
    stream.flush()
    return stream.failure


@contextlib.contextmanager
def outlets() -> Iterator[tuple[Outlet, Outlet] | None]:
    """Put outlets in the place of `sys.stdout` and `sys.stderr` for as long as the context lasts.

    Yields:
        Both, or None where the streams are not the process's own (a test captures them), or not POSIX's.
    """
    if os.name != "posix" or not all(_is_real(stream) for stream in (sys.stdout, sys.stderr)):
        yield None
        return
    before = sys.stdout, sys.stderr
    for stream in before:
        if stream is not None:
            stream.flush()
    _occupy_closed()
    ours = Outlet(before[0], tells_gone=True), Outlet(before[1], tells_gone=False)
    sys.stdout, sys.stderr = ours
    finished = False
    try:
        yield ours
        finished = True
    finally:
        for outlet in ours:
            with contextlib.suppress(BrokenPipeError):
                outlet.flush()
            # Who leaves in a hurry, or with an error, waits for no reader.
            outlet.drain(None if finished else _LEAVING_S)
        sys.stdout, sys.stderr = before


def _is_real(stream: TextIO | None) -> bool:
    """Whether it is one of the process's own streams, or closed."""
    if stream is None:
        return True
    try:
        return stream.fileno() in (1, 2)
    except (OSError, ValueError):
        return False


def _occupy_closed() -> None:
    """Fill closed standard descriptors, so that no socket becomes what a library takes for stderr."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Also in the processes that we start, where Python would close it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _wait_writable(descriptor: int) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(1000)
