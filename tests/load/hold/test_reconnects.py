"""When dropped connections are replaced: pauses that grow, room that is limited, an end that is one."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from pool_bench.load.hold import reconnects
from pool_bench.load.hold.reconnects import Reconnects

_YOUNG_NS, _OLD_NS = 1_000_000, 2_000_000_000


@dataclass
class _Connects:
    """What was begun, and how many may be under way."""

    room: int = 100
    begun: list[int] = field(default_factory=list)

    def begin(self, slot: int) -> None:
        self.begun.append(slot)

    def has_room(self) -> bool:
        return len(self.begun) < self.room


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many failures in a row each pause was for; all pauses are over at once."""
    failures: list[int] = []

    def no_pause(count: int, rng: random.Random) -> float:
        failures.append(count)
        return 0.0

    monkeypatch.setattr(reconnects, "backoff_s", no_pause)
    return failures


def _made(connects: _Connects) -> Reconnects:
    return Reconnects(random.Random(1), connects.begin, connects.has_room)


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_pause_grows_with_every_failure_until_a_connection_has_lived(asked: list[int]) -> None:
    async def main() -> None:
        connects = _Connects()
        made = _made(connects)
        for age_ns in (_YOUNG_NS, _YOUNG_NS, _OLD_NS, _YOUNG_NS):
            made.dropped(7, age_ns)
            assert made.waiting == 1
            await _turns()
        made.failed(7)
        await _turns()
        made.dropped(8, _YOUNG_NS)
        await _turns()
        assert connects.begun == [7, 7, 7, 7, 7, 8]
        assert made.waiting == 0

    asyncio.run(main())
    assert asked == [1, 2, 1, 2, 3, 1]


def test_those_that_are_due_wait_for_room_in_order(asked: list[int]) -> None:
    async def main() -> None:
        connects = _Connects(room=1)
        made = _made(connects)
        for slot in (3, 1, 2):
            made.failed(slot)
            await _turns()
        assert (connects.begun, made.waiting) == ([3], 2)
        connects.room = 3
        made.begin_due()
        assert (connects.begun, made.waiting) == ([3, 1, 2], 0)

    asyncio.run(main())


def test_after_the_end_nothing_is_begun(asked: list[int]) -> None:
    async def main() -> None:
        connects = _Connects(room=0)
        made = _made(connects)
        made.failed(1)
        await _turns()
        made.failed(2)
        assert made.waiting == 2
        made.stop()
        connects.room = 100
        made.failed(3)
        made.dropped(4, _OLD_NS)
        made.begin_due()
        await _turns()
        assert (connects.begun, made.waiting) == ([], 0)

    asyncio.run(main())
