"""JSON of unknown origin, read field by field: each error names the file, the field and the fault.

What a file can make a reader keep is bounded: by its size, by what a histogram may unpack to, and by how
many of them there may be. Text comes out clean, so that it can be shown.
"""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from pool_bench.cleaning import clean
from pool_bench.errors import UsageError
from pool_bench.stats.histogram import Histogram

_MAX_NAME: Final = 200
_MAX_TEXT: Final = 10_000
_MAX_COUNT: Final = 2**63 - 1
# A file of 135 runs of pools has some 1,400; each may be 0.2 MB.
_MAX_HISTOGRAMS: Final = 4_000
# Python itself refuses integers of more than 4,300 digits, and then names no field.
_MAX_DIGITS: Final = 20


def read_json(text: str) -> object:
    """`text` as JSON; integers of more digits than any count has become floats, which no count may be.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested without end.
    """
    return json.loads(text, parse_int=lambda digits: (int if len(digits) <= _MAX_DIGITS else float)(digits))


class Fields:
    """A JSON object whose fields are read by name and type; a wrong one is a `UsageError`."""

    __slots__ = ("_histograms", "_place", "_source", "_values")

    def __init__(self, values: Mapping[str, object], source: str, place: str) -> None:
        self._values = values
        self._source = source
        self._place = place
        # Shared by all parts of one file.
        self._histograms = [0]

    def _part(self, values: Mapping[str, object], place: str) -> "Fields":
        part = Fields(values, self._source, place)
        part._histograms = self._histograms
        return part

    def wrong(self, key: str, what: str) -> UsageError:
        """The error that says what is wrong with `key`."""
        return UsageError(f"{self._source} is damaged: {self._place}{clean(key, _MAX_NAME)} {what}")

    def get(self, key: str) -> object:
        """Any field that must be there."""
        if key not in self._values:
            raise self.wrong(key, "is missing")
        return self._values[key]

    def has(self, key: str) -> bool:
        """Whether an addition is there."""
        return self._values.get(key) is not None

    def text(self, key: str) -> str:
        """A string, clean and on one line."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "is not text")
        if len(value) > _MAX_TEXT:
            raise self.wrong(key, f"is longer than {_MAX_TEXT:,} characters")
        return clean(value)

    def word(self, key: str) -> str:
        """Any value as text, clean and not endless."""
        value = self.get(key)
        return clean(value[:_MAX_TEXT] if isinstance(value, str) else str(value), _MAX_NAME)

    def count(self, key: str) -> int:
        """A whole number of zero or more."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
            raise self.wrong(key, "is not a count")
        return value

    def number(self, key: str, *, signed: bool = False) -> float:
        """A finite number, of zero or more unless `signed`."""
        value = self.optional_number(key, signed=signed)
        if value is None:
            raise self.wrong(key, "is not a number")
        return value

    def optional_number(self, key: str, *, signed: bool = False) -> float | None:
        """A finite number, of zero or more unless `signed`, or null."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "is not a number")
        if value < 0 and not signed:
            raise self.wrong(key, "is negative")
        return float(value)

    def flag(self, key: str) -> bool:
        """A boolean."""
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "is not true or false")
        return value

    def moment(self, key: str) -> datetime:
        """An ISO 8601 time."""
        try:
            return datetime.fromisoformat(self.text(key))
        except ValueError as error:
            raise self.wrong(key, "is not a time") from error

    def fields(self, key: str) -> "Fields":
        """An object."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "is not an object")
        return self._part(value, f"{self._place}{key}.")

    def __iter__(self) -> Iterator[str]:
        """Names of all fields."""
        for key in self._values:
            if len(key) > _MAX_NAME:
                raise self.wrong(key, f"is a name of more than {_MAX_NAME} characters")
        return iter(self._values)

    def items(self, key: str) -> "list[Fields]":
        """A list of objects."""
        found = []
        for index, value in enumerate(self._list(key)):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{index}]", "is not an object")
            found.append(self._part(value, f"{self._place}{key}[{index}]."))
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        listed = self._list(key)
        if not all(isinstance(value, str) and len(value) <= _MAX_TEXT for value in listed):
            raise self.wrong(key, f"is not a list of texts of at most {_MAX_TEXT:,} characters")
        return tuple(clean(str(value)) for value in listed)

    def _list(self, key: str) -> list[object]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "is not a list")
        return value

    def histogram(self, key: str) -> Histogram:
        """An encoded histogram."""
        encoded = self.fields(key)
        encoding, unit = encoded.text("encoding"), encoded.text("unit")
        if (encoding, unit) != ("hdr-v2-base64", "us"):
            raise self.wrong(key, f"has encoding {encoding!r} in {unit!r}, not 'hdr-v2-base64' in 'us'")
        self._histograms[0] += 1
        if self._histograms[0] > _MAX_HISTOGRAMS:
            raise self.wrong(key, f"is one histogram more than the {_MAX_HISTOGRAMS:,} that a file may have")
        data = encoded.get("data")
        if not isinstance(data, str):
            raise encoded.wrong("data", "is not text")
        try:
            return Histogram.decode(data)
        # hdrh raises whatever its C code and struct unpacking meet in damaged bytes.
        except Exception as error:
            raise encoded.wrong("data", "is not a readable histogram") from error
