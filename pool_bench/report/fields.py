"""JSON of unknown origin, read field by field: each error names the file, the field and the fault."""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime

from pool_bench.errors import UsageError
from pool_bench.stats import Histogram


class Fields:
    """A JSON object whose fields are read by name and type; a wrong one is a `UsageError`."""

    __slots__ = ("_place", "_source", "_values")

    def __init__(self, values: Mapping[str, object], source: str, place: str) -> None:
        self._values = values
        self._source = source
        self._place = place

    def wrong(self, key: str, what: str) -> UsageError:
        """The error that says what is wrong with `key`."""
        return UsageError(f"{self._source} is damaged: {self._place}{key} {what}")

    def get(self, key: str) -> object:
        """Any field that must be there."""
        if key not in self._values:
            raise self.wrong(key, "is missing")
        return self._values[key]

    def has(self, key: str) -> bool:
        """Whether an addition is there."""
        return self._values.get(key) is not None

    def text(self, key: str) -> str:
        """A string."""
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "is not text")
        return value

    def count(self, key: str) -> int:
        """A whole number of zero or more."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, "is not a count")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.optional_number(key)
        if value is None:
            raise self.wrong(key, "is not a number")
        return value

    def optional_number(self, key: str) -> float | None:
        """A finite number or null."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "is not a number")
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
        return Fields(value, self._source, f"{self._place}{key}.")

    def __iter__(self) -> Iterator[str]:
        """Names of all fields."""
        return iter(self._values)

    def items(self, key: str) -> "list[Fields]":
        """A list of objects."""
        found = []
        for index, value in enumerate(self._list(key)):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{index}]", "is not an object")
            found.append(Fields(value, self._source, f"{self._place}{key}[{index}]."))
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(str(value) for value in self._list(key))

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
        data = encoded.text("data")
        try:
            return Histogram.decode(data)
        # hdrh raises whatever its C code and struct unpacking meet in damaged bytes.
        except Exception as error:
            raise encoded.wrong("data", "is not a readable histogram") from error
