"""Durations, counts and latencies between numbers and the way people write them."""

import math
import re
from typing import Final

_SECONDS_PER_UNIT: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|[µμ]s|ms|s|m|h|d)?")

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m|h))?")
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(%)?")


def parse_duration(text: str) -> float:
    """Read `500ms`, `30s`, `5m`, `1h30m` or a bare number of seconds.

    Returns:
        Seconds, zero or more.

    Raises:
        ValueError: the text is not a duration.
    """
    stripped = text.strip().lower()
    total, position, bare = 0.0, 0, False
    while position < len(stripped):
        match = _PART.match(stripped, position)
        if match is None or bare:
            break
        unit = match[2]
        bare = unit is None
        total += float(match[1]) * (
            1.0 if unit is None else _SECONDS_PER_UNIT[unit.replace("µ", "u").replace("μ", "u")]
        )
        position = match.end()
    if position == 0 or position < len(stripped) or not math.isfinite(total):
        raise ValueError(f"{text!r} is not a duration (write 500ms, 30s, 5m or 1h30m)")
    return total


def parse_rate(text: str) -> float:
    """Read `200/s`, `90/m`, `5/h` or a bare number of operations a second.

    Returns:
        Operations a second, more than zero.

    Raises:
        ValueError: the text is not a rate.
    """
    match = _RATE.fullmatch(text.strip().lower())
    rate = float(match[1]) / _SECONDS_PER_UNIT[match[2] or "s"] if match else 0.0
    if not 0 < rate < math.inf:
        raise ValueError(f"{text!r} is not a rate (write 200/s, 90/m or a number greater than 0)")
    return rate


def parse_share(text: str) -> float:
    """Read `5%`, `0.5 %` or a bare fraction such as `0.05`.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: the text is not a share.
    """
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a share (write 5% or 0.05, at most 100%)")
    return share


def format_duration(seconds: float) -> str:
    """Write seconds the way `parse_duration` reads them, to three significant digits below a minute."""
    # From these limits on three digits would round up to `1e+03us`, `1e+03ms`.
    if 0 < seconds < 0.0009995:
        return f"{seconds * 1e6:.3g}us"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = round(seconds)
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def format_ms(milliseconds: float | None) -> str:
    """Write a latency in milliseconds with three significant digits; `-` where there is none."""
    if milliseconds is None:
        return "-"
    if milliseconds >= 100:
        return f"{milliseconds:,.0f}"
    if milliseconds >= 10:
        return f"{milliseconds:.1f}"
    if milliseconds >= 1:
        return f"{milliseconds:.2f}"
    return f"{milliseconds:.3f}"
