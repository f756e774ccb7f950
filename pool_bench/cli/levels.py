"""The concurrency of each run of a command that may sweep."""

import click


def levels_of(concurrency: int | None, low: int | None, high: int | None) -> tuple[int, ...]:
    """One level, ten where none was said, or doubling from `low` to `high`, both included.

    Raises:
        UsageError: Click's own; the options do not go together.
    """
    if low is None and high is None:
        return (10 if concurrency is None else concurrency,)
    if concurrency is not None:
        raise click.UsageError("--concurrency and --concurrency-min/--concurrency-max exclude each other")
    if low is None or high is None:
        raise click.UsageError("--concurrency-min and --concurrency-max belong together")
    if low > high:
        raise click.UsageError(f"--concurrency-min {low} is above --concurrency-max {high}")
    levels = []
    while low < high:
        levels.append(low)
        low *= 2
    return (*levels, high)
