"""Runs divided between processes: together they do exactly what one would, remainders too."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.errors import UsageError
from pool_bench.load.arrivals import Arrivals, Leg, Profile
from pool_bench.load.division import divided, most_processes
from pool_bench.load.hold.opening import active_count, active_slots, spread_targets
from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec, Spec
from tests.support.generators import target

TARGETS = tuple(target(f"postgresql://u@127.0.0.{host}:5432/d") for host in (1, 2, 3))
counts = st.integers(1, 32)
sources = st.lists(st.integers(1, 250), unique=True, max_size=40).map(
    lambda numbers: tuple(f"127.0.1.{number}" for number in numbers)
)


def _share_indices(parts: tuple[Spec, ...]) -> list[int]:
    return [part.share.index for part in parts if part.share is not None]


@given(counts, st.integers(0, 300), sources)
def test_workers_ports_and_addresses_are_dealt_out_exactly(
    processes: int, more: int, source_ips: tuple[str, ...]
) -> None:
    spec = ConnectSpec(
        targets=TARGETS, concurrency=processes + more, processes=processes, source_ips=source_ips, seed=7
    )
    parts = divided(spec, (32768, 60999))
    if processes == 1:
        assert parts == (spec,)
        return
    assert _share_indices(parts) == list(range(processes))
    held = [part.concurrency for part in parts]
    assert sum(held) == spec.concurrency
    assert max(held) - min(held) <= 1
    firsts = [part.share.first for part in parts if part.share is not None]
    assert firsts == [sum(held[:index]) for index in range(processes)]
    assert len({part.seed for part in parts}) == processes
    ranges = [part.share.ports for part in parts if part.share is not None]
    if len(source_ips) >= processes:
        assert sorted(ip for part in parts for ip in part.source_ips) == sorted(source_ips)
        assert not any(ranges)
    else:
        assert all(part.source_ips == source_ips for part in parts)
        ports = [port for low, high in filter(None, ranges) for port in range(low, high + 1)]
        assert ports == list(range(32768, 61000))


@given(counts, st.lists(st.integers(0, 200), min_size=3, max_size=3), st.floats(0, 1))
def test_held_connections_are_dealt_out_exactly_by_target_and_those_that_never_rest_too(
    processes: int, connections: list[int], active: float
) -> None:
    whole = sum(connections)
    spec = HoldSpec(
        targets=TARGETS,
        connections=tuple(connections),
        rate=100.0,
        open_concurrency=64,
        active=active,
        processes=processes,
    )
    if processes > 1 and whole < processes:
        with pytest.raises(UsageError, match=f"more than --connections {whole}: each needs one"):
            divided(spec)
        return
    parts = [part for part in divided(spec) if isinstance(part, HoldSpec)]
    assert [sum(part.connections[index] for part in parts) for index in range(3)] == connections
    held = [part.concurrency for part in parts]
    assert max(held) - min(held) <= 1
    assert sum(part.open_concurrency for part in parts) == 64
    restless = sum(sum(active_slots(part.concurrency, part.active)) for part in parts)
    assert restless == active_count(whole, active)
    # Each process has some of each target, as far as there are.
    for part in parts:
        order = spread_targets(part.connections)
        assert len(order) == part.concurrency


@given(counts, st.integers(1, 60), st.floats(0.5, 5000), st.floats(0.5, 5000), st.floats(0.1, 20))
def test_even_arrivals_of_all_parts_are_those_of_the_whole(
    parts: int, count: int, first: float, last: float, seconds: float
) -> None:
    profile = Profile((Leg(seconds, first, last),))
    whole = Arrivals(profile)
    expected = [whole.advance() for _ in range(parts * count)]
    found = []
    for index in range(parts):
        part = Arrivals(profile, index=index, parts=parts)
        found += [part.advance() for _ in range(count)]
    assert sorted(found) == expected


def test_random_arrivals_of_all_parts_are_a_poisson_process_of_the_whole_rate() -> None:
    spec = ConnectSpec(targets=TARGETS, concurrency=8, processes=8, seed=11)
    profile, due = Profile((Leg(100.0, 200.0, 200.0),)), []
    for part in divided(spec):
        share = part.share
        assert share is not None
        arrivals = Arrivals(profile, "poisson", part.seed, index=share.index, parts=share.processes)
        while arrivals.next_ns < 100e9:
            due.append(arrivals.advance())
    assert len(due) == pytest.approx(20_000, abs=4 * 20_000**0.5)
    due.sort()
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    # Of exponential gaps both are the same; of eight even streams the deviation would be far smaller.
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_pool_is_not_divided_but_each_process_has_one() -> None:
    spec = PoolSpec(targets=TARGETS[:1], pool="reference", scenario="query", clients=3, size=2, processes=5)
    parts = divided(spec)
    assert [(part.concurrency, part.processes) for part in parts] == [(3, 5)] * 5
    assert most_processes(spec) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 3}, "--batch-size 3"),
        ({"open_concurrency": 2, "rate": 5.0}, "--open-concurrency 2"),
        ({"batch_size": 1, "rate": 5.0}, None),
    ],
)
def test_there_is_something_to_do_for_each_process(change: dict[str, object], words: str | None) -> None:
    spec = replace(HoldSpec(targets=TARGETS[:1], connections=(9,), processes=4), **change)  # type: ignore[arg-type]
    if words is None:
        assert len(divided(spec)) == 4
        return
    with pytest.raises(UsageError, match=f"--processes 4 is more than {words}: each needs one at least"):
        divided(spec)
