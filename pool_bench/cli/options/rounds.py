"""Rounds of several settings, measured in turn, so that drift of the machine hits all of them alike.

The order is reversed from round to round (A B, B A, ...): what grows steadily over a session then
cancels out between the settings.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

import click

from pool_bench.drivers.base import DRIVER_NAMES, SURREAL_DRIVER_NAMES, DriverName
from pool_bench.errors import UsageError
from pool_bench.targets.surreal import AUTH_MODES, AuthMode

if TYPE_CHECKING:
    from pool_bench.load.spec import ConnectSpec
    from pool_bench.targets import Target

_Name = TypeVar("_Name", bound=str)

OPTION: Final = "--interleave"
_SWITCH: Final = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """What can differ between the settings that `--interleave` measures in turn.

    Attributes:
        drivers: the drivers that a setting may name.
        keys: the options that it may name.
        examples: settings, for the help.
    """

    drivers: tuple[DriverName, ...]
    keys: tuple[str, ...]
    examples: str

    @property
    def key(self) -> str:
        """A regular expression for the beginning of a pair."""
        return rf"({'|'.join(self.keys)})\s*="


POSTGRES: Final = Settings(
    drivers=DRIVER_NAMES,
    keys=("driver", "url", "query", "concurrency", "processes", "scram-cache", "resolve"),
    examples='"driver=asyncpg" or "query=SELECT 1,concurrency=20"',
)
SURREAL: Final = Settings(
    drivers=SURREAL_DRIVER_NAMES,
    keys=("driver", "url", "query", "concurrency", "processes", "auth", "resolve"),
    examples='"auth=token" or "driver=surrealdb,concurrency=20"',
)


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


def rounds_options(settings: Settings = POSTGRES) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--rounds` and `--interleave`; the command gets `rounds` and `interleave`, texts."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        keys = ", ".join(settings.keys[:-1])
        command = click.option(
            "--interleave",
            multiple=True,
            metavar="CONFIG",
            help="Measure another setting in turn with this one, and compare: options that differ, as "
            f"key=value pairs with commas between, of {keys} and {settings.keys[-1]}: "
            f"{settings.examples}. Repeatable; the order is reversed from round to round.",
        )(command)
        return click.option(
            "--rounds",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Measure each setting this many times; from 3 on, comparisons know the noise between runs.",
        )(command)

    return add


def check_rounds(rounds: int, interleave: Sequence[str], *, find_max: bool, is_open: bool) -> None:
    """Make sure that `rounds_options` go together with what the loop is.

    Args:
        find_max: whether a maximum is searched for.
        is_open: whether operations come at a rate.

    Raises:
        UsageError: Click's own; they do not.
    """
    if find_max and (rounds > 1 or interleave):
        raise click.UsageError("--find-max and --rounds or --interleave exclude each other")
    if is_open and any(text.lower().lstrip().startswith("concurrency") for text in interleave):
        raise click.UsageError("--interleave: concurrency means nothing in an open loop")


def read_variants(
    texts: Sequence[str], read_url: "Callable[[str], Target]", settings: Settings = POSTGRES
) -> tuple[Variant, ...]:
    """Read the settings of `--interleave`.

    Args:
        read_url: parses a URL and completes it from the environment.
        settings: what they may say.

    Raises:
        UsageError: one is malformed, or given twice.
    """
    variants = tuple(_read(text, read_url, settings) for text in texts)
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{OPTION}: {name} is given twice")
    return variants


def _read(text: str, read_url: "Callable[[str], Target]", settings: Settings) -> Variant:
    names, changes, seen = [], [], set()
    for part in _parts(text, settings):
        match = re.match(settings.key, part, re.IGNORECASE)
        if match is None:
            raise UsageError(
                f"{OPTION}: {_shown(part)!r} is not a setting (write key=value, of "
                f"{', '.join(settings.keys)}, with commas between)"
            )
        key, value = match[1].lower(), part[match.end() :].strip()
        if key in seen:
            raise UsageError(f"{OPTION}: {key} is given twice in one setting")
        seen.add(key)
        name, change = _change(key, value, read_url, settings)
        names.append(f"{key}={name}")
        changes.append(change)
    return Variant(",".join(names), tuple(changes))


def _parts(text: str, settings: Settings) -> list[str]:
    # A comma only separates where a key follows: queries and URLs have commas of their own.
    separators = re.finditer(rf",(?=\s*{settings.key})", text, re.IGNORECASE)
    starts = [0, *(match.start() + 1 for match in separators), len(text) + 1]
    return [text[start : end - 1].strip() for start, end in pairwise(starts)]


def _shown(text: str) -> str:
    from pool_bench.targets.postgres import redact

    return redact(text)


def _change(
    key: str, value: str, read_url: "Callable[[str], Target]", settings: Settings
) -> "tuple[str, Callable[[ConnectSpec], ConnectSpec]]":
    if key == "driver":
        driver = _one_of(settings.drivers, key, value)
        return value, lambda spec: replace(spec, driver=driver)
    if key == "auth":
        auth: AuthMode = _one_of(AUTH_MODES, key, value)
        return value, lambda spec: replace(spec, auth=auth)
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
    if key == "processes":
        if not re.fullmatch(r"[1-9][0-9]{0,2}", value, re.ASCII):
            raise UsageError(f"{OPTION}: processes={value} is not a number of processes")
        return value, lambda spec: replace(spec, processes=int(value))
    if key == "resolve":
        if value not in ("each", "once"):
            raise UsageError(f"{OPTION}: unknown resolve={value} (choose from each, once)")
        return value, lambda spec: replace(spec, resolve_once=value == "once")
    switch = _SWITCH.get(value.lower())
    if switch is None:
        raise UsageError(f"{OPTION}: unknown scram-cache={value} (choose from yes, no)")
    return value.lower(), lambda spec: replace(spec, scram_cache=switch)


def _one_of(names: Iterable[_Name], key: str, value: str) -> _Name:
    known = {str(name): name for name in names}
    if value not in known:
        raise UsageError(f"{OPTION}: unknown {key}={value} (choose from {', '.join(known)})")
    return known[value]


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
    settings_in_turn = (Variant(), *variants)
    steps = []
    for level in levels:
        for number in range(1, rounds + 1):
            for variant in settings_in_turn if number % 2 else reversed(settings_in_turn):
                own = variant.apply(replace(spec, concurrency=level))
                named = f"{label or f'c{own.concurrency}'} {variant.name}".strip()
                several = rounds > 1 or len(settings_in_turn) > 1
                steps.append(Step(own, named, variant.name, number if several else None))
    return tuple(steps)
