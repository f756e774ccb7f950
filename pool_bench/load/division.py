"""Divides a run between generator processes, so that together they do exactly what one would do.

Workers, connections, those of them that never rest, and bounds on what is under way are dealt out one by one,
remainders too. Of an open loop each process has every n-th arrival, or a Poisson process of an n-th of the
rate (`arrivals.py`). Pools are not divided: each process has one of its own, as applications do.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from pool_bench.errors import UsageError
from pool_bench.load.hold.opening import active_count, spread_targets
from pool_bench.load.share import Share, begin_of, part_of, seed_of
from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec, Spec


def divided(spec: Spec, ports: tuple[int, int] | None = None) -> tuple[Spec, ...]:
    """What each of `spec.processes` generators is to do; the spec itself where that is one.

    Args:
        ports: the lowest and the highest local port of this machine, which they share out where connections
            do not come from addresses of their own; None leaves the choice to the system.

    Raises:
        UsageError: there is not something to do for each.
    """
    count = spec.processes
    if count == 1:
        return (spec,)
    if short := too_few(spec):
        raise UsageError(short)
    return tuple(
        settled(
            _part(spec, index, count), index, count, source_ips=spec.source_ips, ports=ports, cpus=spec.cpus
        )
        for index in range(count)
    )


def settled(
    part: Spec,
    index: int,
    count: int,
    *,
    source_ips: Sequence[str],
    ports: tuple[int, int] | None,
    cpus: Sequence[int],
) -> Spec:
    """A process's part with what it has of its machine, where it is number `index` (from 0) of `count`.

    Args:
        source_ips: the machine's addresses to connect from; empty leaves the choice to the system.
        ports: its lowest and its highest local port.
        cpus: cores that processes stay on, in turn; empty for any.
    """
    own_ips = len(source_ips) >= count
    share = replace(
        part.share or Share(),
        ports=None if own_ips or ports is None else _slice(ports, index, count),
        cpu=cpus[index % len(cpus)] if cpus else None,
    )
    sources = tuple(source_ips[index::count] if own_ips else source_ips)
    match part:
        case PoolSpec():
            return replace(part, share=share)
        case ConnectSpec() | HoldSpec():
            return replace(part, share=share, source_ips=sources)
        case _:
            assert_never(part)


def too_few(spec: Spec) -> str:
    """Which setting has less than one for each process, in words; "" where none."""
    for words, number in _dealt_out(spec):
        if number < spec.processes:
            return f"--processes {spec.processes} is more than {words} {number}: each needs one at least"
    return ""


def most_processes(spec: Spec) -> int | None:
    """With how many processes each has something to do, at most; None without a limit."""
    return min((number for _, number in _dealt_out(spec)), default=None)


def _dealt_out(spec: Spec) -> tuple[tuple[str, int], ...]:
    match spec:
        case ConnectSpec():
            option = "--concurrency" if spec.open_loop is None else "--max-in-flight"
            return ((option, spec.concurrency),)
        case HoldSpec():
            batches = () if spec.rate else (("--batch-size", spec.batch_size),)
            opening = ("--open-concurrency", spec.open_concurrency)
            return (("--connections", spec.concurrency), *batches, opening)
        case PoolSpec():
            return ()
        case _:
            assert_never(spec)


def _part(spec: Spec, index: int, count: int) -> Spec:
    share = Share(index, count, first=begin_of(spec.concurrency, index, count))
    seed = seed_of(spec.seed, index)
    match spec:
        case ConnectSpec():
            concurrency = part_of(spec.concurrency, index, count)
            return replace(spec, concurrency=concurrency, seed=seed, share=share)
        case HoldSpec():
            held = part_of(spec.concurrency, index, count)
            active = part_of(active_count(spec.concurrency, spec.active), index, count)
            # In a row and not every n-th, so that each process has some of each target.
            targets = spread_targets(spec.connections)[share.first : share.first + held]
            return replace(
                spec,
                connections=tuple(targets.count(target) for target in range(len(spec.connections))),
                batch_size=max(part_of(spec.batch_size, index, count), 1),
                open_concurrency=part_of(spec.open_concurrency, index, count),
                active=active / held,
                seed=seed,
                share=share,
            )
        case PoolSpec():
            return replace(spec, seed=seed, share=share)
        case _:
            assert_never(spec)


def _slice(ports: tuple[int, int], index: int, count: int) -> tuple[int, int]:
    low, high = ports
    whole = high - low + 1
    begin = low + begin_of(whole, index, count)
    return begin, begin + part_of(whole, index, count) - 1
