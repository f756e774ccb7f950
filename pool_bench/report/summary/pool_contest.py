"""Settings of a pool that were compared, in words: who won, or why nobody did."""

from pool_bench.compare.change import SMALLEST
from pool_bench.report.text import Paint, clean, format_rate, table
from pool_bench.results.session import Contest, Rival


def statement_of(contest: Contest) -> list[str]:
    """What the rounds allow to be said, in sentences."""
    best = clean(contest.best)
    did = f"{best}, {format_rate(contest.throughput)} op/s"
    sure = f"{contest.confidence:.0%}"
    close = [rival for rival in contest.rivals if not rival.behind]
    behind = [rival for rival in contest.rivals if rival.behind]
    if contest.won:
        sentences = [f"Winner: {did}. Each other setting is behind it, {sure} sure for all together."]
    elif contest.why_not:
        sentences = [f"No winner: {clean(contest.why_not)}."]
        if best and contest.rivals:
            sentences.append(f"Most operations had {did}.")
    else:
        names = ", ".join(clean(rival.name) for rival in close)
        sentences = [f"No winner: {did}, did most, but is not told apart from {names} ({sure} intervals)."]
        if behind:
            sentences.append(f"Behind it: {', '.join(clean(rival.name) for rival in behind)}.")
    return [*sentences, *map(clean, contest.left_out)]


def rivals_table(contest: Contest, paint: Paint) -> list[str]:
    """How far each setting is from the best one; nothing where nothing can be said."""
    if not contest.rivals or contest.why_not:
        return []
    heads = ["against the best", "op/s in all", "change", f"{contest.confidence:.0%} together", ""]
    rows = [[clean(rival.name), *_cells(rival)] for rival in contest.rivals]
    best = [clean(contest.best), format_rate(contest.throughput), "-", "-", "best"]
    drawn = table([heads, best, *rows], left=(0, 4))
    note = f"behind: the whole interval is below -{SMALLEST:.0%}"
    return [paint(drawn[0], "bold"), *drawn[1:], paint(note, "dim")]


def _cells(rival: Rival) -> list[str]:
    rate = format_rate(rival.throughput)
    if rival.change is None or rival.low is None or rival.high is None:
        return [rate, "-", "-", "too little data"]
    span = f"{rival.low:+.1%} to {rival.high:+.1%}"
    return [rate, f"{rival.change:+.1%}", span, "behind" if rival.behind else "not told apart"]
