"""The `find_max` object of the result file, written and read back."""

from dataclasses import dataclass

from pool_bench.results.fields import Fields
from pool_bench.results.json_parts import JsonObject, rounded
from pool_bench.results.session import Limit, SearchResult


@dataclass(frozen=True, slots=True)
class LoadedStep:
    """One trial: the index of its run, its rate, and whether it met the objectives."""

    run: int
    rate: float
    kind: str
    passed: bool


@dataclass(frozen=True, slots=True)
class LoadedSearch:
    """A search for the maximum, as in `runs.SearchResult`."""

    slo: str
    latency_limit_ms: float | None
    rate: float | None
    limit: str
    why: str
    steps: tuple[LoadedStep, ...]


def search_to_json(search: SearchResult) -> JsonObject:
    """The `find_max` object."""
    return {
        "slo": search.slo,
        "latency_limit_ms": rounded(search.latency_limit_ms),
        "tolerance": rounded(search.tolerance),
        "rate": rounded(search.found),
        "confirmed": search.found is not None,
        # Written after every trial: until the last one it is as good as interrupted.
        "limit": str(search.limit or Limit.INTERRUPTED),
        "why": search.why,
        "steps": [
            {
                "run": step.run,
                "rate": rounded(step.rate),
                "kind": step.kind,
                "passed": step.passed,
                "breaches": list(step.breaches),
                "client": step.client,
                "client_to_blame": step.client_to_blame,
            }
            for step in search.steps
        ],
    }


def read_search(fields: Fields, runs: int) -> LoadedSearch:
    """The `find_max` object of a file that holds so many runs."""
    steps = []
    for item in fields.items("steps"):
        run = item.count("run")
        if run >= runs:
            raise item.wrong("run", f"names run {run}, but there are {runs}")
        steps.append(LoadedStep(run, item.number("rate"), item.text("kind"), item.flag("passed")))
    return LoadedSearch(
        slo=fields.text("slo"),
        latency_limit_ms=fields.optional_number("latency_limit_ms"),
        rate=fields.optional_number("rate"),
        limit=fields.text("limit"),
        why=fields.text("why"),
        steps=tuple(steps),
    )
