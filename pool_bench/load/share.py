"""Which part of a run one of several generator processes has: plain values."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """One process of several that do a run together.

    Attributes:
        index: which one, from 0.
        processes: how many there are.
        first: the number of its first worker or connection among those of all.
        ports: the lowest and the highest local port it is to connect from, None for all of them.
        cpu: the core it is to run on, None for any.
    """

    index: int = 0
    processes: int = 1
    first: int = 0
    ports: tuple[int, int] | None = None
    cpu: int | None = None


def part_of(whole: int, index: int, parts: int) -> int:
    """How much of `whole` the part `index` (from 0) of `parts` has: all parts together are `whole`."""
    return whole // parts + (index < whole % parts)


def begin_of(whole: int, index: int, parts: int) -> int:
    """How much of `whole` the parts before `index` have, as `part_of` deals it out."""
    return whole // parts * index + min(index, whole % parts)


def seed_of(seed: int | None, index: int) -> int | None:
    """A seed for the part `index`, independent of those of other parts and the same each time."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8])
