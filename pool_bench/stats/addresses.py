"""What came of connecting to each of the addresses behind one name or URL: plain data that merges exactly.

One bad replica behind a name hides in figures of all of them. An operation belongs to the address at which it
ended; addresses that were tried before it, in vain, count it as passed over.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pool_bench.errors import FailureKind
from pool_bench.stats.histogram import Histogram

# Of operations whose address nobody knows: the driver did not say, or a name had none.
UNKNOWN: Final = ""
# A name may have any number of addresses, and another few each minute; from here on they share a row.
MOST_ADDRESSES: Final = 64
OTHERS: Final = "others"


@dataclass(slots=True)
class AddressStats:
    """One address.

    Attributes:
        ok, failed, unfinished: operations that ended there.
        passed_over: attempts there that failed and were followed by one at another address.
        dropped: connections there that ended without our asking, of those that were held.
        latency: how long those that are ok took, without what addresses before it took.
        errors: failures by kind; passed_over_errors, dropped_errors: those of `passed_over` and `dropped`.
    """

    ok: int = 0
    failed: int = 0
    unfinished: int = 0
    passed_over: int = 0
    dropped: int = 0
    latency: Histogram = field(default_factory=Histogram)
    errors: dict[FailureKind, int] = field(default_factory=dict)
    passed_over_errors: dict[FailureKind, int] = field(default_factory=dict)
    dropped_errors: dict[FailureKind, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened there."""
        return not (self.ok or self.failed or self.unfinished or self.passed_over or self.dropped)

    @property
    def trouble_share(self) -> float:
        """The share of what was tried there that came to nothing, 0 to 1."""
        bad = self.failed + self.passed_over + self.unfinished + self.dropped
        tried = self.ok + self.failed + self.passed_over + self.unfinished
        return min(bad / tried, 1.0) if tried else 0.0

    def merge(self, other: "AddressStats") -> None:
        """Add all of `other`."""
        self.ok += other.ok
        self.failed += other.failed
        self.unfinished += other.unfinished
        self.passed_over += other.passed_over
        self.dropped += other.dropped
        self.latency.merge(other.latency)
        _add(self.errors, other.errors)
        _add(self.passed_over_errors, other.passed_over_errors)
        _add(self.dropped_errors, other.dropped_errors)


def merge_addresses(mine: dict[str, AddressStats], others: Mapping[str, AddressStats]) -> None:
    """Add `others` to `mine`; beyond 64 addresses those that are new share a row."""
    for address, stats in others.items():
        _row(mine, address).merge(stats)


def _row(rows: dict[str, AddressStats], address: str) -> AddressStats:
    if address not in rows and len(rows) >= MOST_ADDRESSES:
        address = OTHERS
    return rows.setdefault(address, AddressStats())


def _add(counts: dict[FailureKind, int], more: Mapping[FailureKind, int]) -> None:
    for kind, count in more.items():
        counts[kind] = counts.get(kind, 0) + count


class AddressRecorder:
    """Takes operations one by one, as a `Recorder` does."""

    __slots__ = ("_latencies_ns", "_rows")

    def __init__(self) -> None:
        self._rows: dict[str, AddressStats] = {}
        self._latencies_ns: dict[str, array[int]] = {}

    def ok(self, address: str, spent_ns: int) -> None:
        """Record a success, and how long it took at this address."""
        values = self._latencies_ns.get(address)
        if values is None:
            if len(self._latencies_ns) >= MOST_ADDRESSES:
                address = OTHERS
            values = self._latencies_ns.setdefault(address, array("q"))
        values.append(spent_ns)

    def failed(self, address: str, kind: FailureKind) -> None:
        """Record a failure."""
        row = _row(self._rows, address)
        row.failed += 1
        _add(row.errors, {kind: 1})

    def passed_over(self, address: str, kind: FailureKind) -> None:
        """Record an attempt that was followed by one at another address."""
        row = _row(self._rows, address)
        row.passed_over += 1
        _add(row.passed_over_errors, {kind: 1})

    def dropped(self, address: str, kind: FailureKind) -> None:
        """Record the end of a connection that was held."""
        row = _row(self._rows, address)
        row.dropped += 1
        _add(row.dropped_errors, {kind: 1})

    def unfinished(self, address: str, count: int) -> None:
        """Record operations that were given up."""
        _row(self._rows, address).unfinished += count

    def take(self) -> dict[str, AddressStats]:
        """Everything recorded since the last call."""
        taken, self._rows = self._rows, {}
        latencies, self._latencies_ns = self._latencies_ns, {}
        for address, values in latencies.items():
            row = _row(taken, address)
            row.ok += len(values)
            row.latency.record(np.frombuffer(values, dtype=np.int64))
        return taken
