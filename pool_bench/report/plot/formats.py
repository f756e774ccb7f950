"""The formats of pictures, for whoever only wants to know whether a path may have one."""

from pathlib import Path
from typing import Final, Literal

from pool_bench.errors import UsageError

Format = Literal["png", "svg"]
_FORMATS: Final[dict[str, Format]] = {".png": "png", ".svg": "svg"}


def plot_format(path: Path, *, option: str = "") -> Format:
    """The format that `path` asks for by its suffix.

    Raises:
        UsageError: the suffix is neither `.png` nor `.svg`; names `option` and the path.
    """
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"{f'{option}: ' if option else ''}{path} must end in .png or .svg")
    return found
