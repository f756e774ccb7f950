"""Waiters take one thing and no other, and deadlines are kept however many there are."""

import asyncio
import random

import pytest

from pool_bench.pool.slots import Slot
from pool_bench.pool.waiters import Deadlines, Waiter
from tests.support.simulation import FakeConnection, FakeServer, now_ns, simulate


def _waiter(limit_s: float) -> Waiter[FakeConnection]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    now = now_ns()
    return Waiter(future, None, now, limit_s, now + round(limit_s * 1e9), None)


def test_a_waiter_takes_the_first_thing_it_is_offered_and_nothing_after_it() -> None:
    async def main() -> None:
        first, second = (Slot(FakeConnection(FakeServer(), number), number, 0) for number in (1, 2))
        served = _waiter(1)
        assert served.offer(first)
        assert not served.offer(second)
        served.fail(TimeoutError())
        assert (served.slot, served.error) == (first, None)

        failed = _waiter(1)
        failed.fail(TimeoutError("the first"))
        failed.fail(TimeoutError("the second"))
        assert not failed.offer(first)
        assert str(failed.error) == "the first"
        assert failed.slot is None

        cancelled = _waiter(1)
        cancelled.future.cancel()
        assert not cancelled.offer(first)
        cancelled.fail(TimeoutError())
        assert (cancelled.slot, cancelled.error) == (None, None)

    simulate(main())


@pytest.mark.parametrize("seed", range(5))
def test_each_deadline_is_kept_however_many_others_are_served_before_theirs(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        expired: dict[Waiter[FakeConnection], int] = {}
        waiting: dict[Waiter[FakeConnection], None] = {}

        def expire(late: list[Waiter[FakeConnection]]) -> None:
            for waiter in late:
                expired[waiter] = now_ns()
                del waiting[waiter]
                waiter.fail(TimeoutError())

        deadlines = Deadlines(asyncio.get_running_loop(), now_ns, expire, lambda: len(waiting))
        begun: list[Waiter[FakeConnection]] = []
        longest = most = 0
        for _ in range(3000):
            waiter = _waiter(rng.uniform(0.5, 60))
            begun.append(waiter)
            waiting[waiter] = None
            deadlines.add(waiter, now_ns())
            most = max(most, len(waiting))
            longest = max(longest, len(deadlines._heap))
            for other in rng.sample(list(waiting), min(len(waiting), rng.choice((0, 0, 1, 2, 1)))):
                # Served by others than us.
                del waiting[other]
                other.future.set_result(None)
            if rng.random() < 0.05:
                await asyncio.sleep(0.02)
        served = {waiter for waiter in begun if waiter.future.done()} - expired.keys()
        await asyncio.sleep(61)
        assert expired.keys() == set(begun) - served
        assert len(expired) > 100
        for waiter, at_ns in expired.items():
            assert waiter.deadline_ns - 1_000_000 <= at_ns <= waiter.deadline_ns + 1_000_000
        # Those who were served leave no trace for long: of 3000 that came, this many still waited at most.
        assert longest <= 2 * most + 1 < 2000

    simulate(main())
