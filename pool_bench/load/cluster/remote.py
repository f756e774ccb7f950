"""A generator behind a worker of a cluster: what it sends, in order, gaps counted; and words to it."""

import os
import pickle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Final, assert_never

from pool_bench.load.child import GeneratorError
from pool_bench.load.cluster.launcher import HANG_UP, Relayed, Sent
from pool_bench.load.messages import Failure, Hello, Message, Point, Reached, Started
from pool_bench.stats.runs import Snapshot

ENDED: Final = "the generator process ended without a result"


class Inbox:
    """Hands on what another thread puts into it; can be waited for like a pipe."""

    def __init__(self) -> None:
        self._items: deque[bytes | GeneratorError] = deque()
        self._lock = Lock()
        self._read, self._write = os.pipe()
        self._closed = False

    def fileno(self) -> int:
        """Readable while there is something in it."""
        return self._read

    def put(self, item: bytes | GeneratorError) -> None:
        """Add something, from any thread; nothing once it is closed."""
        with self._lock:
            if self._closed:
                return
            if not self._items:
                os.write(self._write, b"!")
            self._items.append(item)

    def take(self) -> bytes | GeneratorError:
        """What was put first; only where there is something."""
        with self._lock:
            item = self._items.popleft()
            if not self._items:
                os.read(self._read, 1)
            return item

    def close(self) -> None:
        """Free the pipe; again is nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)


class RemoteMember:
    """One generator behind a worker.

    Args:
        number: which one of its run it is, from 0.
        host: the machine.
        say: sends a word to it, with its number.

    Attributes:
        offset_ns: what is added to a moment of ours to get what its clock says then.
        host, reached, over, silent_s, missing: as of every member.
    """

    def __init__(self, number: int, host: str, say: Callable[[int, str], None]) -> None:
        self.number = number
        self.host = host
        self.reached: set[Point] = set()
        self.over = False
        self.silent_s = 0.0
        self.missing = 0
        self.offset_ns = 0
        self._say = say
        self._inbox = Inbox()
        self._expected = 0
        self._at_end = False
        self._hung_up = False

    @property
    def pid(self) -> int | None:
        """None: it is no process of this machine's, or none of ours."""
        return None

    @property
    def source(self) -> int:
        """Becomes readable when there is something to receive."""
        return self._inbox.fileno()

    def arrived(self, relayed: Relayed) -> None:
        """Take in an event, in the thread in which events come."""
        if relayed.sequence < self._expected or self._at_end:
            return  # it has come already
        self.missing += relayed.sequence - self._expected
        self._expected = relayed.sequence + 1
        self._at_end = not relayed.body
        self._inbox.put(relayed.body or GeneratorError(ENDED))

    def conclude(self, sent: Sent) -> None:
        """Compare with what it has sent in all by its own account: count what is missing, add the last."""
        if self._at_end:
            return
        missing = sent.messages - self._expected
        self._at_end = True
        if missing > 0:
            # The last one came along.
            self._inbox.put(sent.last)
            self.missing += missing - 1
        self._inbox.put(GeneratorError(ENDED))

    def lose(self, error: GeneratorError) -> None:
        """It will not be heard any more."""
        if not self._at_end:
            self._at_end = True
            self._inbox.put(error)

    def receive(self) -> Message:
        """What it has sent next, moments in our time.

        Raises:
            GeneratorError: it has ended, or cannot be heard any more.
        """
        item = self._inbox.take()
        if isinstance(item, GeneratorError):
            raise item
        message: Message = pickle.loads(item)  # noqa: S301 - of a worker that our own package runs in
        match message:
            case Snapshot():
                return replace(message, began_ns=message.began_ns - self.offset_ns)
            case Failure(text, usage):
                return Failure(f"{self.host}: {text}", usage)
            case Hello() | Reached() | Started():
                return message
            case _:
                assert_never(message)

    def tell(self, word: str) -> None:
        """Say something, now; moments in it are told in its time."""
        event, _, at_ns = word.partition(" ")
        self._say(self.number, f"{event} {int(at_ns) + self.offset_ns}" if at_ns else event)

    def pass_silence(self, seconds: float) -> None:
        """Nothing was heard of it for `seconds` more."""
        self.silent_s += seconds

    def hang_up(self) -> None:
        """Tell it to end itself."""
        if not self._hung_up:
            self._hung_up = True
            with suppress(RuntimeError):
                self._say(self.number, HANG_UP)

    def close(self) -> None:
        """Free the pipe; what comes later is not kept."""
        self._inbox.close()
