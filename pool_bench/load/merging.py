"""Makes one snapshot a second of those that several generators send: counts and histograms are added up.

Generators begin together, so snapshots that belong together have almost the same time. A merged one is given
out when all generators have sent theirs, or when somebody is two ticks behind the others: then these go on
without it, and what it sends later is counted in the next second that is given out. So nothing is lost,
nothing is counted twice, and nobody waits for one that has stopped.
"""

from collections import deque
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from math import inf
from typing import Final, TypeVar

import numpy as np

from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats, Fairness, Recovery
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.timeline import Timeline

_ORDER: Final = {stage: order for order, stage in enumerate(Stage)}
# For so many ticks the others wait for one that is behind.
_PATIENCE: Final = 2
# By so much, seconds, two entries of a timeline differ at least.
_LEAST_STEP_S: Final = 0.001

_Entry = TypeVar("_Entry", Interval, HoldInterval, CheckoutInterval)


class _Sender:
    """One generator, as far as its snapshots have come."""

    def __init__(self) -> None:
        self.queue: deque[Snapshot] = deque()
        self.last: Snapshot | None = None
        self.suspended_s = 0.0
        self.over = self.lost = False
        # What it took before its first connection, or its pool, and with all that it holds.
        self.base_bytes = self.held_bytes = 0
        # What it held at the end of its last entry, and what it did then.
        self.held = 0
        self.stage: Stage | None = None
        self.recovery: Recovery | None = None

    def at_s(self, snapshot: Snapshot) -> float:
        """When one of those in its queue was taken, seconds on a clock that no suspension stops."""
        return snapshot.elapsed_s + self.suspended_s

    @property
    def is_done(self) -> bool:
        """Whether all that it will ever send has been given out."""
        return self.over and not self.queue


class Merger:
    """Adds up what several generators send.

    Args:
        senders: how many they are.
        tick_s: seconds between two snapshots of one.
        interval_s: the length of one entry of their timelines, seconds.
    """

    def __init__(self, senders: int, *, tick_s: float, interval_s: float) -> None:
        self._senders = [_Sender() for _ in range(senders)]
        self._tick_s = tick_s
        self._interval_s = interval_s
        # Ends of the entries that were given out, and of those that the next merged snapshot has, seconds.
        self._given_out_s = -inf
        self._ends: list[float] = []
        self._until_s = -inf
        self._elapsed_s = -inf

    def add(self, number: int, snapshot: Snapshot) -> None:
        """A generator, numbered from 0, has sent `snapshot`."""
        sender = self._senders[number]
        sender.queue.append(snapshot)
        sender.over = sender.over or snapshot.final

    def lose(self, number: int) -> None:
        """A generator will send no more."""
        sender = self._senders[number]
        sender.over = sender.lost = True

    def take(self) -> Iterator[Snapshot]:
        """What is complete by now, in order; the last one is final, once all generators are over."""
        while (until_s := self._due_s()) is not None:
            yield self._merge(until_s)

    def _due_s(self) -> float | None:
        """Up to which second snapshots belong to the next merged one; None where it is not complete."""
        heads = [sender.at_s(sender.queue[0]) for sender in self._senders if sender.queue]
        awaited = any(not sender.queue and not sender.over for sender in self._senders)
        # What is behind goes along with the next ones that are not.
        on_time = [at_s for at_s in heads if at_s >= self._until_s]
        if on_time or awaited:
            heads = on_time
        if not heads:
            return None
        first_s = min(heads)
        if awaited:
            newest_s = max(sender.at_s(sender.queue[-1]) for sender in self._senders if sender.queue)
            if newest_s - first_s < _PATIENCE * self._tick_s:
                return None
        return first_s + self._tick_s / 2

    def _merge(self, until_s: float) -> Snapshot:
        behind_s, self._until_s = self._until_s, max(self._until_s, until_s)
        parts = []
        for sender in self._senders:
            taken: list[Snapshot] = []
            # All that is behind, and one that is not.
            while sender.queue and sender.at_s(sender.queue[0]) < behind_s:
                taken.append(sender.queue.popleft())
            if sender.queue and sender.at_s(sender.queue[0]) < until_s:
                taken.append(sender.queue.popleft())
            if taken:
                sender.last = taken[-1]
                parts.append((sender, taken[0] if len(taken) == 1 else _in_a_row(taken)))
        # Those that are on time say when entries end.
        parts.sort(key=lambda part: part[1].elapsed_s, reverse=True)
        parts = [(sender, self._aligned(sender, snapshot)) for sender, snapshot in parts]
        self._given_out_s = max([self._given_out_s, *self._ends])
        self._ends.clear()
        snapshots = [snapshot for _, snapshot in parts]
        now = [sender.last for sender in self._senders if sender.last is not None]
        going_on = [sender.last for sender in self._senders if sender.last is not None and not sender.is_done]
        stage = min((each.stage for each in going_on or snapshots), key=_ORDER.__getitem__)
        final = all(sender.is_done for sender in self._senders)
        waiting = [each.waiting for each in now if each.waiting is not None]
        self._elapsed_s = max(self._elapsed_s, *(each.elapsed_s for each in snapshots))
        return Snapshot(
            stage=Stage.DONE if final else stage,
            elapsed_s=self._elapsed_s,
            seconds=max(each.seconds for each in snapshots),
            targets=tuple(
                BenchStats.merged(each) for each in zip(*(part.targets for part in snapshots), strict=True)
            ),
            warmup=BenchStats.merged(each.warmup for each in snapshots),
            in_flight=sum(each.in_flight for each in now),
            backing_off=sum(each.backing_off for each in now),
            client=ClientUsage.together(each.client for each in snapshots),
            final=final,
            hold=self._hold(parts),
            waiting=sum(waiting) if waiting else None,
            checkout=self._checkout(parts),
            began_ns=min(each.began_ns for each in snapshots),
        )

    def _aligned(self, sender: _Sender, snapshot: Snapshot) -> Snapshot:
        """The same with timelines whose entries end when those of the other generators do."""
        # A suspended generator's clock stood still, those of the others did not.
        shift_s = sender.suspended_s
        sender.suspended_s += snapshot.client.time.suspended_s
        hold, checkout = snapshot.hold, snapshot.checkout
        return replace(
            snapshot,
            targets=tuple(
                replace(stats, intervals=self._entries(stats.intervals, shift_s))
                for stats in snapshot.targets
            ),
            hold=hold and replace(hold, intervals=self._entries(hold.intervals, shift_s)),
            checkout=checkout and replace(checkout, intervals=self._entries(checkout.intervals, shift_s)),
        )

    def _entries(self, intervals: "Timeline[_Entry]", shift_s: float) -> "Timeline[_Entry]":
        """Copies of `intervals` with the ends that these have for all; what is behind joins the next one."""
        placed: Timeline[_Entry] = Timeline()
        behind: _Entry | None = None
        after_s = self._given_out_s
        for interval in intervals:
            entry = copy(interval) if behind is None else behind.joined(interval)
            behind = None
            t = interval.t + shift_s
            if t <= self._given_out_s and interval is not intervals[-1]:
                behind = entry
                continue
            entry.t = after_s = self._end_of(t, after_s)
            placed.append(entry)
        return placed

    def _end_of(self, t: float, after_s: float) -> float:
        """The end of the entry that one of a generator belongs to, seconds; later than `after_s`."""
        half_s = self._interval_s / 2
        known = [end for end in self._ends if end > after_s]
        met = min(known, key=lambda end: abs(end - t), default=None)
        if met is not None and (abs(met - t) <= half_s or t <= self._given_out_s):
            return met
        end = max(t, round(after_s + _LEAST_STEP_S, 3)) if after_s > -inf else t
        if end not in self._ends:
            self._ends.append(end)
        return end

    def _hold(self, parts: list[tuple[_Sender, Snapshot]]) -> HoldStats | None:
        whole: HoldStats | None = None
        for sender, snapshot in parts:
            if snapshot.hold is not None:
                whole = whole or HoldStats()
                whole.merge(snapshot.hold)
                sender.base_bytes = max(sender.base_bytes, snapshot.hold.base_rss_bytes)
                sender.held_bytes = max(sender.held_bytes, snapshot.hold.held_rss_bytes)
        if whole is not None:
            whole.base_rss_bytes = sum(sender.base_bytes for sender in self._senders)
            whole.held_rss_bytes = sum(sender.held_bytes for sender in self._senders)
            self._complete(whole, parts)
        return whole

    def _complete(self, whole: HoldStats, parts: list[tuple[_Sender, Snapshot]]) -> None:
        """Let each entry say what all generators hold and do, also those that have none with the same end."""
        entries = {
            id(sender): {
                interval.t: (interval.held, Stage(interval.stage)) for interval in snapshot.hold.intervals
            }
            for sender, snapshot in parts
            if snapshot.hold is not None
        }
        for interval in whole.intervals:
            for sender in self._senders:
                entry = entries.get(id(sender), {}).get(interval.t)
                if entry is None:
                    interval.held += sender.held
                    interval.held_peak += sender.held
                else:
                    sender.held, sender.stage = entry
            interval.stage = str(self._hold_stage())
        for sender in self._senders:
            if sender.lost and sender.is_done:
                sender.held, sender.stage = 0, None

    def _hold_stage(self) -> Stage:
        """All hold from when the last one has opened its last to when the first one begins to close."""
        stages = {sender.stage for sender in self._senders}
        return next((stage for stage in (Stage.OPEN, Stage.CLOSE) if stage in stages), Stage.HOLD)

    def _checkout(self, parts: list[tuple[_Sender, Snapshot]]) -> CheckoutStats | None:
        whole: CheckoutStats | None = None
        for sender, snapshot in parts:
            if snapshot.checkout is not None:
                whole = whole or CheckoutStats()
                sender.base_bytes = max(sender.base_bytes, snapshot.checkout.base_rss_bytes)
                sender.recovery = snapshot.checkout.recovery or sender.recovery
                whole.merge(
                    replace(snapshot.checkout, fairness=self._apart(sender, snapshot.checkout.fairness))
                )
        if whole is not None:
            whole.base_rss_bytes = sum(sender.base_bytes for sender in self._senders)
            whole.recovery = Recovery.together(
                sender.recovery for sender in self._senders if sender.recovery is not None
            )
        return whole

    def _apart(self, sender: _Sender, fairness: Fairness) -> Fairness:
        """The same with the numbers that its clients have among those of all generators."""
        before = np.zeros(self._senders.index(sender) * len(fairness.grants), dtype=np.int64)
        return replace(
            fairness,
            grants=np.concatenate((before, fairness.grants)),
            waits_ns=np.concatenate((before, fairness.waits_ns)),
        )


def _in_a_row(snapshots: list[Snapshot]) -> Snapshot:
    """Several of one generator as one."""
    first, last = snapshots[0], snapshots[-1]
    client = ClientUsage(processes=first.client.processes)
    hold = None if last.hold is None else HoldStats()
    checkout = None if last.checkout is None else CheckoutStats()
    for each in snapshots:
        client.merge(each.client)
        if hold is not None and each.hold is not None:
            hold.merge(each.hold)
        if checkout is not None and each.checkout is not None:
            checkout.merge(each.checkout)
    return replace(
        last,
        seconds=sum(each.seconds for each in snapshots),
        targets=tuple(
            BenchStats.merged(each) for each in zip(*(part.targets for part in snapshots), strict=True)
        ),
        warmup=BenchStats.merged(each.warmup for each in snapshots),
        client=client,
        hold=hold,
        checkout=checkout,
    )
