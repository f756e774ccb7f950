"""What TLS costs is the server's and the cipher's: nothing of ours waits for a delayed acknowledgement.

Linux delays an acknowledgement by 40 ms; a connect takes some 5 ms. Minima of a few connects each, made in
turn, tell them apart; where they do not, there are further tries, as one may have been held up each time.
"""

import select
from time import perf_counter_ns

import psycopg
import pytest

from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.targets.postgres import parse_target
from tests.support.servers import TlsPostgres

_TRIES = 8
_ROUNDS = 6
_WAIT_MS = 60_000


def _keep_least(least: dict[str, int], phases: dict[str, int]) -> None:
    for phase, spent in phases.items():
        least[phase] = min(spent, least.get(phase, spent))


def _cycle(url: str) -> dict[str, int]:
    """One cycle of `wire`: its phases, nanoseconds."""
    plan = make_plan(parse_target(url, env={}, default_user="u"))
    assert plan.endpoints is not None
    dial = Dial(plan, perf_counter_ns())
    want = dial.begin(plan.endpoints, perf_counter_ns())
    while want != DONE:
        poll = select.poll()
        poll.register(dial.fd, want)
        assert poll.poll(_WAIT_MS)
        want = dial.step(perf_counter_ns())
    assert dial.error is None, dial.error
    return {phase: getattr(dial, f"{phase}_ns") for phase in plan.phases}


_OPTIONS = (
    *(f"sslmode={mode}" for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
    "sslmode=allow&user=tls_only&password=only%20pencil",
    "sslmode=require&user=scram_user&password=scram%20pencil",
)
# Direct negotiation begins with PostgreSQL 17.
_CASES = [
    *(("tls_postgres", options) for options in _OPTIONS),
    *(("tls_postgres_18", options) for options in (*_OPTIONS, "sslmode=require&sslnegotiation=direct")),
]


@pytest.mark.parametrize(("version", "options"), _CASES)
def test_no_phase_of_wire_takes_longer_than_twice_a_whole_connect_of_psycopg(
    request: pytest.FixtureRequest, version: str, options: str
) -> None:
    server: TlsPostgres = request.getfixturevalue(version)
    root = f"&sslrootcert={server.ca}" if "verify" in options else ""
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres?{options}{root}"
    # Not every libpq knows direct negotiation, which saves a round trip and nothing else.
    theirs_url = url.replace("&sslnegotiation=direct", "")
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    for _ in range(_ROUNDS):
        for _ in range(_TRIES):
            _keep_least(ours, _cycle(url))
            began_ns = perf_counter_ns()
            connection = psycopg.connect(theirs_url)
            _keep_least(theirs, {"connect": perf_counter_ns() - began_ns})
            connection.close()
        if max(ours.values()) <= 2 * theirs["connect"]:
            return
    pytest.fail(f"wire {ours}, psycopg {theirs}")
