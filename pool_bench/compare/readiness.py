"""Whether what is about to be measured can be compared or ranked, said before the time is spent."""

from collections.abc import Sequence

from pool_bench.compare.bootstrap import FEWEST_ROUNDS
from pool_bench.compare.comparison import SHORTEST_S
from pool_bench.compare.ranking import rounds_needed
from pool_bench.compare.settings import CHANGING
from pool_bench.units import format_duration


def settings_too_short(rounds: int, duration_s: float) -> list[str]:
    """What settings measured in turn, for so many seconds in each round, are too short for; lines."""
    if not duration_s:
        return []
    lines = []
    if rounds * duration_s < SHORTEST_S * 0.98:
        longer = format_duration(-(-SHORTEST_S // rounds))
        lines.append(
            f"{_in_all(rounds, duration_s)} of each setting will be too short to compare, which takes "
            f"{SHORTEST_S:.0f}s in all: --duration {longer}, or more --rounds"
        )
    if rounds < FEWEST_ROUNDS:
        lines.append(
            f"with fewer than {FEWEST_ROUNDS} rounds a comparison knows the noise inside the runs only "
            f"(--rounds {FEWEST_ROUNDS} or more)"
        )
    return lines


def pools_too_few(
    pools: Sequence[str], scenarios: Sequence[str], rounds: int, duration_s: float
) -> list[str]:
    """What rounds of pools, of so many seconds each, are too few for; lines."""
    lines = []
    needed = rounds_needed(len(pools))
    if len(pools) > 1 and rounds < needed:
        lines.append(
            f"{_rounds(rounds)} will rank no pools: {len(pools)} of them take {needed} (--rounds {needed})"
        )
    changing = [name for name in scenarios if name in CHANGING]
    if changing and rounds < FEWEST_ROUNDS:
        lines.append(f"`pool-bench compare` takes {FEWEST_ROUNDS} rounds of {', '.join(changing)}")
    if len(changing) < len(scenarios) and rounds * duration_s < SHORTEST_S * 0.98:
        lines.append(
            f"`pool-bench compare` takes {SHORTEST_S:.0f}s of each pool in all, and this is "
            f"{_in_all(rounds, duration_s)}"
        )
    return lines


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _in_all(rounds: int, duration_s: float) -> str:
    return format_duration(duration_s) if rounds == 1 else f"{rounds} times {format_duration(duration_s)}"
