"""Sentences as summaries of pools have them: for a terminal of the usual width."""

from pool_bench.report.summary import wrap

_TERMINAL = 80


def sentences(text: str, indent: str) -> list[str]:
    """`text` in lines of at most 80 columns, all but the first behind `indent`."""
    return wrap(text, indent, _TERMINAL)
