"""The server's own time for each connection, from PostgreSQL 18's log (`log_connections = setup_durations`).

The log is read on from where the last look ended, so much at a time that it takes a few milliseconds, and
straight into arrays. A line says when its connection became ready (`log_line_prefix = '%n '`, seconds since
1970 with milliseconds), so that what belongs to the warm-up can be told apart once it is known when measuring
began. https://www.postgresql.org/docs/18/runtime-config-logging.html#GUC-LOG-CONNECTIONS
"""

import os
import re
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pool_bench.stats.histogram import Histogram
from pool_bench.stats.server import SetupSecond, SetupTimes

# What a server must be started with, for its log to be read here.
SETTINGS: Final = {"log_connections": "setup_durations", "log_line_prefix": "%n "}

_LINE: Final = re.compile(
    rb"^(\d+\.\d+) LOG:  connection ready: "
    rb"setup total=(\d+\.\d+) ms, fork=(\d+\.\d+) ms, authentication=(\d+\.\d+) ms$",
    re.MULTILINE,
)
# 30,000 lines: some 30 ms, which is the most that a look may take from the run.
_MOST_BYTES: Final = 4 << 20
# The log of a long run is shortened where it has become this long; all in it has been read.
_LONGEST: Final = 64 << 20

_Rows = npt.NDArray[np.float64]


class SetupLog:
    """Reads a server's log as it grows. Used by one thread.

    Args:
        path: the log, which the server appends to.

    Attributes:
        times: everything read so far; what may belong to the warm-up is not in its histograms yet.
    """

    def __init__(self, path: Path) -> None:
        self.times: Final = SetupTimes()
        self._path = path
        self._at = _size(path)
        self._rest = b""
        self._began_at: float | None = None
        self._not_before = 0.0
        self._waiting: list[_Rows] = []

    def skip(self) -> None:
        """Leave out everything that is in the log now."""
        self._at, self._rest = _size(self._path), b""

    def begin(self, began_at: float, *, expected: bool = False) -> None:
        """Say when measuring began, seconds since 1970: what was ready earlier is not in the histograms.

        Args:
            began_at: the moment.
            expected: it will be then at the earliest, so that what is earlier need not be kept.
        """
        if expected:
            self._not_before = began_at
            self._waiting = [self._kept(rows) for rows in self._waiting]
            return
        self._began_at = began_at
        waiting, self._waiting = self._waiting, []
        for rows in waiting:
            self._record(rows)

    def read(self) -> SetupSecond | None:
        """Read what has been added since the last call; None where the log cannot be read."""
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                # Somebody has shortened it.
                self._at = min(self._at, size)
                if size - self._at > _MOST_BYTES:
                    self.times.missed += size - self._at - _MOST_BYTES
                    self._at, self._rest = size - _MOST_BYTES, b""
                file.seek(self._at)
                added = file.read(_MOST_BYTES)
        except OSError:
            return None
        self._at += len(added)
        # Only whole lines: the last one may still be being written.
        whole, newline, self._rest = (self._rest + added).rpartition(b"\n")
        if self._at > _LONGEST:
            self._shorten()
        return self._take(whole + newline)

    def finish(self) -> SetupTimes:
        """Everything read; where measuring never began, what is from when it was expected to."""
        if self._began_at is None:
            self.begin(self._not_before)
        return self.times

    def _take(self, lines: bytes) -> SetupSecond:
        # A float holds the milliseconds since 1970 exactly.
        rows = np.array(_LINE.findall(lines), dtype=np.bytes_).astype(np.float64).reshape(-1, 4)
        self.times.seen += len(rows)
        if self._began_at is None:
            self._waiting.append(self._kept(rows))
        else:
            self._record(rows)
        second = Histogram()
        second.record(_to_ns(rows[:, 1]))
        p50, p99 = second.percentiles_ms((50, 99))
        return SetupSecond(len(rows), p50, p99)

    def _kept(self, rows: _Rows) -> _Rows:
        return rows[rows[:, 0] >= self._not_before]

    def _record(self, rows: _Rows) -> None:
        rows = rows[rows[:, 0] >= (self._began_at or 0.0)]
        for histogram, column in ((self.times.total, 1), (self.times.fork, 2), (self.times.auth, 3)):
            histogram.record(_to_ns(rows[:, column]))

    def _shorten(self) -> None:
        try:
            os.truncate(self._path, 0)
        except OSError:
            return
        self._at, self._rest = 0, b""


def _to_ns(milliseconds: _Rows) -> npt.NDArray[np.int64]:
    return np.rint(milliseconds * 1e6).astype(np.int64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
