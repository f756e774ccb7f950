"""Rounds of several settings, measured in turn, so that drift of the machine hits all of them alike.

The order is reversed from round to round (A B, B A, ...): what grows steadily over a session then
cancels out between the settings.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import click

from pool_bench.drivers.base import DRIVER_NAMES, DriverName
from pool_bench.errors import UsageError

if TYPE_CHECKING:
    from pool_bench.load.spec import ConnectSpec
    from pool_bench.targets import Target

OPTION: Final = "--interleave"
KEYS: Final = ("driver", "url", "query", "concurrency", "scram-cache", "resolve")
_KEY: Final = re.compile(rf"({'|'.join(KEYS)})\s*=", re.IGNORECASE)
# A comma only separates where a key follows: queries and URLs have commas of their own.
_SEPARATOR: Final = re.compile(rf",(?=\s*{_KEY.pattern})", re.IGNORECASE)
_SWITCH: Final = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Variant:
    """How a setting differs from the base.

    Attributes:
        name: the differences in words, without passwords; "" for the base itself.
        changes: applied to the base's settings one after another.
    """

    name: str = ""
    changes: "tuple[Callable[[ConnectSpec], ConnectSpec], ...]" = ()

    def apply(self, spec: "ConnectSpec") -> "ConnectSpec":
        """The base's settings with the differences."""
        for change in self.changes:
            spec = change(spec)
        return spec


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a session: its settings, label, and what tells it from the others."""

    spec: "ConnectSpec"
    label: str
    setting: str
    round: int | None


def rounds_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--rounds` and `--interleave`; `command` gets `rounds` and `interleave`, texts."""
    command = click.option(
        "--interleave",
        multiple=True,
        metavar="CONFIG",
        help="Measure another setting in turn with this one, and compare: options that differ, as "
        "key=value pairs with commas between, of driver, url, query, concurrency, scram-cache (yes, no) and "
        'resolve: "driver=asyncpg" or "query=SELECT 1,concurrency=20". Repeatable; the order is reversed '
        "from round to round.",
    )(command)
    return click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Measure each setting so many times; from 3 on, comparisons know the noise between runs.",
    )(command)


def read_variants(texts: Sequence[str], read_url: "Callable[[str], Target]") -> tuple[Variant, ...]:
    """Read the settings of `--interleave`.

    Args:
        read_url: parses a URL and completes it from the environment.

    Raises:
        UsageError: one is malformed, or given twice.
    """
    variants = tuple(_read(text, read_url) for text in texts)
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{OPTION}: {name} is there twice")
    return variants


def _read(text: str, read_url: "Callable[[str], Target]") -> Variant:
    names, changes, seen = [], [], set()
    for part in _parts(text):
        match = _KEY.match(part)
        if match is None:
            raise UsageError(
                f"{OPTION}: {_shown(part)!r} is no setting (write key=value, of {', '.join(KEYS)}, "
                "with commas between)"
            )
        key, value = match[1].lower(), part[match.end() :].strip()
        if key in seen:
            raise UsageError(f"{OPTION}: {key} is there twice in one setting")
        seen.add(key)
        name, change = _change(key, value, read_url)
        names.append(f"{key}={name}")
        changes.append(change)
    return Variant(",".join(names), tuple(changes))


def _parts(text: str) -> list[str]:
    starts = [0, *(match.start() + 1 for match in _SEPARATOR.finditer(text)), len(text) + 1]
    return [text[start : end - 1].strip() for start, end in pairwise(starts)]


def _shown(text: str) -> str:
    from pool_bench.targets import redact

    return redact(text)


def _change(
    key: str, value: str, read_url: "Callable[[str], Target]"
) -> "tuple[str, Callable[[ConnectSpec], ConnectSpec]]":
    if key == "driver":
        drivers: dict[str, DriverName] = {name: name for name in DRIVER_NAMES}
        driver = drivers.get(value)
        if driver is None:
            raise UsageError(f"{OPTION}: driver={value} is not one of {', '.join(drivers)}")
        return value, lambda spec: replace(spec, driver=driver)
    if key == "url":
        try:
            target = read_url(value)
        except UsageError as error:
            raise UsageError(f"{OPTION}: {error}") from None
        return str(target), lambda spec: replace(spec, targets=(target,))
    if key == "query":
        return value or "none", lambda spec: replace(spec, query=value or None)
    if key == "concurrency":
        if not re.fullmatch(r"[1-9][0-9]{0,8}", value, re.ASCII):
            raise UsageError(f"{OPTION}: concurrency={value} is not a number of workers")
        return value, lambda spec: replace(spec, concurrency=int(value))
    if key == "resolve":
        if value not in ("each", "once"):
            raise UsageError(f"{OPTION}: resolve={value} is neither each nor once")
        return value, lambda spec: replace(spec, resolve_once=value == "once")
    switch = _SWITCH.get(value.lower())
    if switch is None:
        raise UsageError(f"{OPTION}: scram-cache={value} is neither yes nor no")
    return value.lower(), lambda spec: replace(spec, scram_cache=switch)


def plan(
    spec: "ConnectSpec",
    levels: Sequence[int],
    variants: Sequence[Variant],
    rounds: int,
    label: str = "",
) -> tuple[Step, ...]:
    """All runs of a session in their order: each level with all its rounds before the next level.

    `label` names the runs of an open loop, where the level is only a bound.
    """
    everything = (Variant(), *variants)
    steps = []
    for level in levels:
        for number in range(1, rounds + 1):
            for variant in everything if number % 2 else reversed(everything):
                own = variant.apply(replace(spec, concurrency=level))
                named = f"{label or f'c{own.concurrency}'} {variant.name}".strip()
                several = rounds > 1 or len(everything) > 1
                steps.append(Step(own, named, variant.name, number if several else None))
    return tuple(steps)
