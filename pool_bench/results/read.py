"""A result file read back: typed, checked, its histograms decoded.

`msgspec` builds the records: it takes their types as they stand there, stops at the first fault and names its
place (cattrs, the other candidate, goes on after a fault, so a hostile file would fill the memory with them).
What it does not do is here: numbers that no figure may be, text that steers a terminal, what histograms may
unpack to, what older versions left out, the names of a mapping's entries in messages, and figures that
contradict each other.

Whatever is wrong with a file ends in one line that names the file and the field. Fields that a file has
beyond those of the records are ignored, so a newer tool's additions can be read by an older one.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, cast, get_args, get_type_hints

import msgspec

from pool_bench.cleaning import clean
from pool_bench.errors import UsageError, reason_of
from pool_bench.results.model import SCHEMA, ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram

# Hundreds of runs of an hour each.
_MAX_BYTES: Final = 64 << 20
# A file of 135 runs of pools has some 1,400; each may be 0.2 MB.
_MAX_HISTOGRAMS: Final = 4_000
# Python itself refuses integers of more than 4,300 digits, and then names no field.
_MAX_DIGITS: Final = 20
_LONGEST_NAME: Final = 200
_HISTOGRAM: Final = ("hdr-v2-base64", "us")

Json = dict[str, object]


def load_result(path: Path) -> ResultRecord:
    """Read a result file.

    Raises:
        UsageError: it is missing, no JSON, of another schema, incomplete or damaged; one line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        if len(data) > _MAX_BYTES:
            raise _too_large(path) from error
        raise UsageError(f"{path} is not a result file: not UTF-8 text") from error
    if len(data) > _MAX_BYTES:
        raise _too_large(path)
    return parse_result(text, source=str(path))


def _too_large(path: Path) -> UsageError:
    return UsageError(f"{path} is not a result file: it is larger than {_MAX_BYTES >> 20} MB")


def parse_result(text: str, *, source: str) -> ResultRecord:
    """Read the text of a result file; `source` names it in messages.

    Raises:
        UsageError: it is no JSON, of another schema, incomplete or damaged; one line.
    """
    try:
        content = _cleaned(json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=str))
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{source} is not a result file: not JSON{place}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise UsageError(f"{source} is not a result file: it names no schema")
    if content["schema"] != SCHEMA:
        schema = clean(str(content["schema"])[:_LONGEST_NAME], 40)
        raise UsageError(f"{source} has schema {schema!r}, this program reads {SCHEMA!r}")
    _complete(content)
    content.pop("source", None)
    try:
        result = msgspec.convert(content, ResultRecord, dec_hook=_decoder())
    except msgspec.ValidationError as error:
        raise UsageError(f"{source} is damaged: {_fault(str(error), content)}") from error
    for fault in _contradictions(result):
        raise UsageError(f"{source} is damaged: {fault}")
    return replace(result, source=source)


def _integer(digits: str) -> int | float | str:
    """An integer; one of more digits than any count has is no number, or one that no count may be."""
    return int(digits) if len(digits) <= _MAX_DIGITS else _number(digits)


def _number(digits: str) -> float | str:
    """A finite number; others become text, which no number may be."""
    value = float(digits)
    return value if math.isfinite(value) else digits[:_LONGEST_NAME]


def _cleaned(value: object) -> object:
    """JSON whose text, names included, is on one line and steers no terminal."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(item) for name, item in value.items()}
    return value


def _complete(content: Json) -> None:
    """Put in what older versions left out and nothing but the file itself can tell."""
    content.setdefault("targets", [content["target"]] if "target" in content else None)
    for run in _objects(content, "runs"):
        if "pool" in run:
            run.setdefault("driver", run["pool"])
        hold = run.get("hold")
        if isinstance(hold, dict) and "connections" in hold:
            hold.setdefault("asked", hold["connections"])


def _objects(holder: Json, key: str) -> Iterator[Json]:
    listed = holder.get(key)
    yield from (item for item in listed if isinstance(item, dict)) if isinstance(listed, list) else ()


def _decoder() -> Callable[[type, object], object]:
    """What reads the histograms of one file; a fault begins with the rest of its place."""
    seen = 0

    def decode(kind: type, encoded: object) -> object:
        nonlocal seen
        if kind is not Histogram:
            return encoded  # settings, which may be anything
        if not isinstance(encoded, dict):
            raise TypeError(" is not an object")
        for name in ("encoding", "unit", "data"):
            if name not in encoded:
                raise ValueError(f".{name} is missing")
            if not isinstance(encoded[name], str):
                raise TypeError(f".{name} is not text")
        encoding, unit = encoded["encoding"][:40], encoded["unit"][:40]
        if (encoding, unit) != _HISTOGRAM:
            raise ValueError(f" has encoding {encoding!r} in {unit!r}, not 'hdr-v2-base64' in 'us'")
        seen += 1
        if seen > _MAX_HISTOGRAMS:
            raise ValueError(f" is one histogram more than the {_MAX_HISTOGRAMS:,} that a file may have")
        try:
            return Histogram.decode(encoded["data"])
        # hdrh raises whatever its C code and struct unpacking meet in damaged bytes.
        except Exception as error:
            raise ValueError(".data is not a readable histogram") from error

    return decode


_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$\.?(?P<place>[^`]*)`$")
_STEP: Final = re.compile(r"\[(\d+|\.\.\.)\]|([^.\[]+)")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
# What msgspec says it expected, and what that is called here.
_EXPECTED: Final = (
    ("int", "is not a count"),
    ("float", "is not a number"),
    ("bool", "is not true or false"),
    ("str", "is not text"),
    ("object", "is not an object"),
    ("array", "is not a list"),
)


def _fault(message: str, content: Json) -> str:
    """A fault that msgspec found, as `runs[0].ok is not a count`."""
    match = _PLACE.search(message)
    what = message[: match.start()] if match else message
    place = _place(match["place"], content) if match else ""
    if match and "`key` in " in match[0]:
        return f"{place} has a name of more than {_LONGEST_NAME} characters"
    missing = _MISSING.match(what)
    if missing is not None:
        return f"{place}.{missing[1]} is missing".lstrip(".")
    if what[:1] in (".", " "):
        return f"{place}{what}"
    if "of length" in what:
        return f"{place} is longer than 10,000 characters"
    if "datetime" in what:
        return f"{place} is not a time"
    if what.startswith("Expected `float` >= 0"):
        return f"{place} is negative"
    if what.startswith("Expected `float`") and ("` >= " in what or "` <= " in what):
        return f"{place} is not between 0 and 1"
    expected = next((words for name, words in _EXPECTED if what.startswith(f"Expected `{name}")), None)
    return f"{place} {expected or 'cannot be read'}"


def _place(path: str, content: Json) -> str:
    """The path with the names that msgspec leaves out: those of a mapping's entries."""
    holder: object = content
    kind: object = ResultRecord
    place = ""
    for step in _STEP.finditer(path):
        index, name = step.groups()
        kind = _plain_type(kind)
        if name is not None:
            kind, key = get_type_hints(cast(type, kind), include_extras=True)[name], name
        elif index == "...":
            kind = get_args(kind)[1]
            key = _wrong_key(cast(Json, holder), kind)
        else:
            kind, position = get_args(kind)[0], int(index)
            holder, place = cast(list[object], holder)[position], f"{place}[{position}]"
            continue
        holder = cast(Json, holder).get(key)
        place = f"{place}.{key[:_LONGEST_NAME]}" if place else key
    return place


def _plain_type(kind: object) -> object:
    """A record or a container without `| None`."""
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    return choices[0] if len(choices) == 1 and type(None) in get_args(kind) else kind


def _wrong_key(mapping: Json, kind: object) -> str:
    """The first entry of `mapping` that is no `kind`."""
    for key, value in mapping.items():
        try:
            msgspec.convert(value, kind, dec_hook=_decoder())
        except msgspec.ValidationError:
            return key
    return "..."


def _contradictions(result: ResultRecord) -> Iterator[str]:
    """Figures that cannot be together."""
    for index, run in enumerate(result.runs):
        for fault in _run_contradictions(run):
            yield f"runs[{index}].{fault}"
    if result.find_max is not None:
        for index, step in enumerate(result.find_max.steps):
            if step.run >= len(result.runs):
                yield (f"find_max.steps[{index}].run names run {step.run}, but there are {len(result.runs)}")


def _run_contradictions(run: RunRecord) -> Iterator[str]:
    if run.histogram.count != run.ok:
        yield f"histogram.data holds {run.histogram.count:,} operations, but ok is {run.ok:,}"
    if run.offered is not None:
        yield from _missing(run, "dropped", "service_ms", "schedule_error_ms", "service_histogram")
    checkout, hold = run.checkout, run.hold
    if checkout is not None:
        yield from _missing(run, "pool", "clients", "size", "reset", "hold_s", "timeout_s", "round")
        fairness = checkout.fairness
        if fairness.overtaken > fairness.granted:
            yield (
                f"checkout.fairness.overtaken is {fairness.overtaken:,}, "
                f"but only {fairness.granted:,} were granted"
            )
    if hold is not None:
        counted = sum(drop.count for drop in hold.drops)
        if counted != hold.dropped:
            yield f"hold.dropped is {hold.dropped:,}, but drops hold {counted:,}"
        if hold.opened + hold.reopened < hold.dropped + hold.closed:
            yield "hold.closed and dropped are more than were opened"


def _missing(run: RunRecord, *names: str) -> Iterator[str]:
    yield from (f"{name} is missing" for name in names if getattr(run, name) is None)
