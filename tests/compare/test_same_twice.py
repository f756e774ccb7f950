"""Real result files of the same thing, measured again and again: what is called different would be wrong.

`same_twice.tar.xz` holds three or four files of each command, and of settings in turn that were the same,
made minutes apart on two cores that others kept busy; of histograms and looks only what comparisons read.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import Obstacle, Pair, compare
from pool_bench.compare.rounds import compare_within
from pool_bench.results.model import ResultRecord
from pool_bench.results.read import parse_result

COMMANDS = {
    "bench": "pg-connection-bench",
    "open": "pg-connection-bench",
    "load": "pg-connection-load",
    "pool": "pool-bench",
    "sconnect": "surreal-bench",
    "sload": "surreal-bench",
    "spool": "surreal-bench",
    "same": "pg-connection-bench",
}
DECIDED = (Change.BETTER, Change.WORSE)


@cache
def files() -> dict[str, list[ResultRecord]]:
    found: dict[str, list[ResultRecord]] = {}
    with tarfile.open(Path(__file__).with_name("same_twice.tar.xz")) as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            content = archive.extractfile(member)
            assert content is not None
            result = parse_result(content.read().decode(), source=member.name)
            found.setdefault(member.name.partition("-")[0], []).append(result)
    return found


def pairs(name: str, *allow: str) -> Iterator[Pair]:
    if name == "same":
        for result in files()[name]:
            yield from compare_within(result, allow=allow).pairs
        return
    for base, new in combinations(files()[name], 2):
        yield from compare(base, new, allow=allow).pairs


def test_there_are_files_of_every_command() -> None:
    assert {name: {one.tool for one in results} for name, results in files().items()} == {
        name: {tool} for name, tool in COMMANDS.items()
    }
    assert all(len(results) >= 3 for results in files().values())


def test_real_runs_of_the_same_thing_are_called_different_at_most_one_time_in_twenty() -> None:
    verdicts = Counter(pair.verdict for name in COMMANDS for pair in pairs(name))
    assert sum(verdicts[one] for one in DECIDED) <= 0.05 * verdicts.total(), verdicts
    # Not for want of looking: these were judged.
    assert verdicts[Change.SAME] >= 8


@pytest.mark.parametrize("name", ["bench", "open", "sconnect"])
def test_what_neighbours_took_is_why_single_runs_were_not_compared(name: str) -> None:
    for pair in pairs(name):
        assert {one.obstacle for one in pair.obstructions} == {Obstacle.NEIGHBOURS}
        assert all("other processes used 1." in one.words for one in pair.obstructions)


def test_without_looking_at_neighbours_most_of_those_would_be_called_different() -> None:
    found = [pair.verdict in DECIDED for pair in pairs("bench", str(Obstacle.NEIGHBOURS))]
    assert sum(found) > len(found) / 2
