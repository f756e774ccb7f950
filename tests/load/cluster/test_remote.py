"""What arrives of a generator behind a worker, whatever becomes of it on its way; and clocks."""

import pickle
from itertools import count
from multiprocessing.connection import wait

import pytest

pytest.importorskip("distributed", reason="Dask is not installed: pip install pool-bench[cluster]")

from pool_bench.load.child import GeneratorError
from pool_bench.load.cluster.clocks import compare
from pool_bench.load.cluster.launcher import HANG_UP, Relayed, Sent
from pool_bench.load.cluster.preflight import Facts, differences
from pool_bench.load.cluster.remote import RemoteMember
from pool_bench.load.messages import Hello
from pool_bench.stats.hosts import Clock


def _relayed(sequence: int, *, end: bool = False) -> Relayed:
    return Relayed("run", "host", 0, sequence, b"" if end else _body(sequence))


def _body(sequence: int) -> bytes:
    return pickle.dumps(Hello(f"loop {sequence}"))


def _heard(member: RemoteMember) -> list[str]:
    """All that it can be heard to have said, up to its end."""
    heard = []
    while wait([member.source], 0):
        try:
            message = member.receive()
        except GeneratorError:
            heard.append("end")
            break
        assert isinstance(message, Hello)
        heard.append(message.event_loop)
    return heard


@pytest.mark.parametrize(
    ("arrived", "heard", "missing"),
    [
        ((0, 1, 2), ["loop 0", "loop 1", "loop 2", "end"], 0),
        ((0, 2), ["loop 0", "loop 2", "end"], 1),
        ((0, 0, 1, 0, 2), ["loop 0", "loop 1", "loop 2", "end"], 0),
        # The last one comes again with the task's result.
        ((0, 1), ["loop 0", "loop 1", "loop 2", "end"], 0),
        ((0,), ["loop 0", "loop 2", "end"], 1),
        ((), ["loop 2", "end"], 2),
    ],
)
def test_gaps_are_counted_and_nothing_counts_twice(
    arrived: tuple[int, ...], heard: list[str], missing: int
) -> None:
    member = RemoteMember(0, "host", lambda number, word: None)
    for sequence in arrived:
        member.arrived(_relayed(sequence))
    # Three were sent, and that it has ended, which may be lost as well.
    member.conclude(Sent(3, _body(2)))
    member.arrived(_relayed(3, end=True))
    assert (_heard(member), member.missing) == (heard, missing)
    member.close()


def test_moments_are_told_in_its_own_time_and_it_hangs_up_once() -> None:
    said: list[tuple[int, str]] = []
    member = RemoteMember(3, "host", lambda number, word: said.append((number, word)))
    member.offset_ns = -500
    member.tell("ready 2000")
    member.hang_up()
    member.hang_up()
    assert said == [(3, "ready 1500"), (3, HANG_UP)]
    member.close()


def test_of_many_pings_the_quickest_tells_the_clocks_offset() -> None:
    # Ours at sending and receiving, and theirs between: round trips of 40, 8 and 20.
    ours, theirs = iter((0, 40, 100, 108, 200, 220)), iter((1_035, 1_104, 1_218))
    assert compare(lambda: next(theirs), pings=3, now_ns=lambda: next(ours)) == Clock(
        offset_ns=1_000, uncertainty_ns=4
    )
    ticks = count()
    compare(lambda: next(ticks), now_ns=lambda: next(ticks))
    assert next(ticks) == 3 * 32


def test_what_differs_between_machines_is_listed_with_both_sides() -> None:
    def facts(host: str, python: str = "3.12.1", files: int = 4096) -> Facts:
        versions = {"Python": python, "pool_bench": "1 (code 12ab)"}
        clock, ports = "clock_gettime(CLOCK_MONOTONIC)", (32768, 60999)
        return Facts(
            host=host,
            machine=host,
            versions=versions,
            files=files,
            ports=ports,
            cores=2,
            cpus=(0, 1),
            clock=clock,
        )

    ours = facts("here", files=10)
    alike = {f"tcp://{name}:1": facts(name) for name in "abc"}
    assert differences(ours, alike) == []
    odd = {"tcp://d:1": facts("d", python="3.13.0"), "tcp://e:1": facts("e", files=1024)}
    assert differences(ours, alike | odd) == [
        "Python is 3.13.0 on d (tcp://d:1), 3.12.1 here",
        "open files: 1,024 on e (tcp://e:1), 4,096 on others",
    ]
