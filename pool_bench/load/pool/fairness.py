"""Who asked when and who was served when, put together in bulk.

A grant costs one `array.extend`; once a stretch of the timeline the rows, which are in the order of the
grants, are looked at as arrays. A caller was overtaken if, 1 ms before it was served, somebody had been
served already who had asked later.
"""

from array import array

import numpy as np

from pool_bench.stats.checkouts import OVERTAKING_NS, Fairness
from pool_bench.stats.histogram import Histogram, Int64Array

_COLUMNS = 3


class GrantLog:
    """Collects grants and timeouts of `clients` clients."""

    __slots__ = ("_clients", "_grants", "_latest_ns", "_tail", "_timeouts", "_waits_ns", "granted")

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._timeouts = array("q")
        self._grants = np.zeros(clients, dtype=np.int64)
        self._waits_ns = np.zeros(clients, dtype=np.int64)
        # The grants of the last millisecond, which the next ones are still to be compared with, and the
        # latest arrival among all those before.
        self._tail: Int64Array = np.zeros((0, _COLUMNS), dtype=np.int64)
        self._latest_ns = 0
        self.granted = array("q")
        """Rows of three: asked at, granted at (nanoseconds), number of the client."""

    def timed_out(self, began_ns: int, ended_ns: int) -> None:
        """A caller gave up."""
        self._timeouts.extend((began_ns, ended_ns))

    def take(self) -> tuple[Fairness, Histogram]:
        """What is new since the last call, but for the sums by client, and how long the new grants waited."""
        fresh = np.array(self.granted, dtype=np.int64).reshape(-1, _COLUMNS)
        timeouts = np.array(self._timeouts, dtype=np.int64).reshape(-1, 2)
        self.granted = array("q")
        self._timeouts = array("q")
        fairness = Fairness(granted=len(fresh))
        waits = Histogram()
        rows = np.concatenate((self._tail, fresh))
        latest = np.maximum.accumulate(np.concatenate(([self._latest_ns], rows[:, 0])))
        granted_ns = rows[:, 1]
        if len(timeouts):
            before = latest[np.searchsorted(granted_ns, timeouts[:, 1] - OVERTAKING_NS, side="right")]
            fairness.starved = int((before > timeouts[:, 0]).sum())
        if len(fresh):
            before = latest[np.searchsorted(granted_ns, fresh[:, 1] - OVERTAKING_NS, side="right")]
            fairness.overtaken = int((before > fresh[:, 0]).sum())
            waited_ns = fresh[:, 1] - fresh[:, 0]
            waits.record(waited_ns)
            in_order = waited_ns[np.argsort(fresh[:, 0], kind="stable")]
            fairness.neighbours.record(np.abs(np.diff(in_order)))
            clients = fresh[:, 2]
            self._grants += np.bincount(clients, minlength=self._clients)
            np.add.at(self._waits_ns, clients, waited_ns)
            cut = int(np.searchsorted(granted_ns, granted_ns[-1] - OVERTAKING_NS, side="right"))
            self._latest_ns = int(latest[cut])
            self._tail = rows[cut:]
        return fairness, waits

    def by_client(self) -> Fairness:
        """The sums by client since the beginning; to be added once."""
        return Fairness(grants=self._grants.copy(), waits_ns=self._waits_ns.copy())
