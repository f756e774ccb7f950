"""How late the moments of a schedule are met: the kernel's timer, the event loop's, and spinning.

Nothing is done at each moment, so this is the precision an open loop can have at best. The last contender is
a thread that does nothing but sleep until each moment: what the machine itself gives to anybody, the floor to
hold the others against. They take turns, round after round; medians over the rounds are printed.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

import click
import numpy as np

from pool_bench.load.process import loop_factory
from pool_bench.load.timer import LoopTimer, Timer, TimerFd

_LEAST_GAP_NS: Final = 100_000

MakeAlarm = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Timer]


class SpinAlarm:
    """Looks again in every turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at_ns = 0
        self._closed = False
        loop.call_soon(self._look)

    def set(self, at_ns: int) -> None:
        """Ring then."""
        self._at_ns = at_ns

    def _look(self) -> None:
        if self._closed:
            return
        self._loop.call_soon(self._look)
        if self._at_ns and perf_counter_ns() >= self._at_ns:
            self._at_ns = 0
            self._ring()

    def close(self) -> None:
        """Look no more."""
        self._closed = True


@dataclass(frozen=True, slots=True)
class Sample:
    """Lateness in milliseconds, and the share of a core that it took."""

    p50: float
    p99: float
    top: float
    cpu: float


def with_alarm(make: MakeAlarm, rate: float, seconds: float) -> list[int]:
    """Lateness of each moment, nanoseconds, in the event loop that generators run in."""
    late: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        count, gap_ns, begin_ns = int(rate * seconds), 1e9 / rate, perf_counter_ns() + 10_000_000

        def ring() -> None:
            now_ns = perf_counter_ns()
            while len(late) < count and begin_ns + len(late) * gap_ns <= now_ns:
                late.append(int(now_ns - begin_ns - len(late) * gap_ns))
            if len(late) >= count:
                done.set_result(None)
            else:
                alarm.set(max(int(begin_ns + len(late) * gap_ns), now_ns + _LEAST_GAP_NS))

        alarm = make(loop, ring)
        alarm.set(begin_ns)
        await done
        alarm.close()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    return late


def with_sleep(rate: float, seconds: float) -> list[int]:
    """Lateness of each moment, nanoseconds, in a thread that only sleeps."""
    late: list[int] = []

    def work() -> None:
        begin_ns = perf_counter_ns() + 10_000_000
        for index in range(int(rate * seconds)):
            due_ns = begin_ns + int(index * 1e9 / rate)
            time.sleep(max(due_ns - perf_counter_ns(), 0) / 1e9)
            late.append(perf_counter_ns() - due_ns)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return late


def measure(run: Callable[[], list[int]]) -> Sample:
    """Run one contender once."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    late = np.array(run()) / 1e6
    cpu = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
    p50, p99, top = (float(value) for value in np.percentile(late, (50, 99, 100)))
    return Sample(p50, p99, top, cpu)


@click.command()
@click.option("--rate", default=5000.0, show_default=True, help="Moments a second.")
@click.option("--rounds", default=5, show_default=True, help="How often each contender is measured.")
@click.option("--seconds", default=2.0, show_default=True, help="How long, each time.")
def main(rate: float, rounds: int, seconds: float) -> None:
    """Measure all contenders in turn and print the table."""
    contenders: dict[str, Callable[[], list[int]]] = {
        "timerfd": lambda: with_alarm(TimerFd, rate, seconds),
        "loop timer": lambda: with_alarm(LoopTimer, rate, seconds),
        "spinning": lambda: with_alarm(SpinAlarm, rate, seconds),
        "bare sleep": lambda: with_sleep(rate, seconds),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            samples[name].append(measure(contenders[name]))
    print(f"{rate:,.0f}/s, lateness in ms, medians of {rounds} rounds of {seconds:g} s")
    print(f"{'':12}{'p50':>8}{'p99':>8}{'best p99':>10}{'max':>8}{'CPU':>7}")
    for name, taken in samples.items():
        p50, p99, top, cpu = (
            statistics.median(getattr(one, key) for one in taken) for key in ("p50", "p99", "top", "cpu")
        )
        best = min(one.p99 for one in taken)
        print(f"{name:12}{p50:>8.3f}{p99:>8.3f}{best:>10.3f}{top:>8.3f}{cpu:>7.1%}")


if __name__ == "__main__":
    main()
