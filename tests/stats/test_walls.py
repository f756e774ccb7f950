"""Which wall is named: by what failures say, else by what was seen of this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.errors import FailureKind as K
from pool_bench.stats.walls import (
    AcceptQueue,
    Evidence,
    Failing,
    MemoryUse,
    ServerProcess,
    Use,
    WallKind,
    kind_of,
    name_wall,
)

TIMEOUT = Failing(K.TIMEOUT, "not open after 30s (--connect-timeout)", 20)
LATE = Failing(K.TIMEOUT, "the network gave up", 7)
FULL = ServerProcess("pgbouncer", 4711, Use(64, 64))
ROOMY = ServerProcess("pgbouncer", 4711, Use(1024, 64))
QUEUE = AcceptQueue("port 6432", 129, 128)
SHORT = AcceptQueue("port 6432", 20, 128)
MEMORY = MemoryUse("this machine", 1000 << 20, 995 << 20)


def evidence(*failing: Failing, **changes: object) -> Evidence:
    """Fifty connections are open, ten connects under way."""
    return Evidence(**({"held": 50, "in_flight": 10, "failing": failing} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "message", "named"),
    [
        # PostgreSQL 15 to 18, ProcArray and InitProcess and InitializeSessionUserId.
        (K.TOO_MANY_CONNECTIONS, "sorry, too many clients already", WallKind.MAX_CONNECTIONS),
        (
            K.TOO_MANY_CONNECTIONS,
            "remaining connection slots are reserved for roles with the SUPERUSER attribute",
            WallKind.MAX_CONNECTIONS,
        ),
        (K.TOO_MANY_CONNECTIONS, 'too many connections for role "app"', WallKind.ROLE_LIMIT),
        (K.TOO_MANY_CONNECTIONS, 'too many connections for database "app"', WallKind.DATABASE_LIMIT),
        (K.OTHER, "could not fork new process for connection: Resource temp…", WallKind.PROCESSES),
        (K.OTHER, "could not fork new process for connection: Cannot allocate memory", WallKind.MEMORY),
        (K.OTHER, "out of memory", WallKind.MEMORY),
        # PgBouncer 1.18 to 1.25.
        (
            K.TOO_MANY_CONNECTIONS,
            "no more connections allowed (max_client_conn)",
            WallKind.MAX_CLIENT_CONN,
        ),
        (
            K.TOO_MANY_CONNECTIONS,
            "client connections exceeded (max_db_client_connections)",
            WallKind.POOLER_LIMIT,
        ),
        (K.TIMEOUT, "query_wait_timeout", WallKind.POOL),
        (
            K.TOO_MANY_CONNECTIONS,
            "server login has been failing, cached error: sorry, too many clients already",
            WallKind.MAX_CONNECTIONS,
        ),
        # pgpool-II, Supavisor.
        (K.TOO_MANY_CONNECTIONS, "Sorry, max connections reached", WallKind.POOLER_LIMIT),
        (K.TOO_MANY_CONNECTIONS, "(EMAXCONN) max client connections reached", WallKind.POOLER_LIMIT),
        # This process's own.
        (K.CLIENT_FDS, "Too many open files", WallKind.CLIENT_DESCRIPTORS),
        (K.CLIENT_PORTS, "Cannot assign requested address", WallKind.LOCAL_PORTS),
        (K.REFUSED, "Resource temporarily unavailable", WallKind.ACCEPT_QUEUE),
        # These name none.
        (K.REFUSED, "Connection refused", None),
        (K.TIMEOUT, TIMEOUT.message, None),
        (K.AUTH, 'password authentication failed for user "app"', None),
        (K.RESET, "Connection reset by peer", None),
    ],
)
def test_the_words_of_a_failure_name_the_wall(kind: K, message: str, named: WallKind | None) -> None:
    failing = Failing(kind, message, 3)
    assert kind_of(failing) is named
    if named is not None:
        # Whatever else is full: what is said is certain.
        wall = name_wall(evidence(failing, processes=[ROOMY], queues=[QUEUE]))
        assert wall.kind is named


def test_of_several_the_most_frequent_counts() -> None:
    few = Failing(K.CLIENT_FDS, "Too many open files", 2)
    many = Failing(K.TOO_MANY_CONNECTIONS, "sorry, too many clients already", 30)
    assert name_wall(evidence(few, TIMEOUT, many)).kind is WallKind.MAX_CONNECTIONS


@pytest.mark.parametrize("failing", [(), (TIMEOUT,), (TIMEOUT, LATE)], ids=["hanging", "timed out", "both"])
@pytest.mark.parametrize(
    ("seen", "named", "figures", "words"),
    [
        ({"processes": [FULL]}, WallKind.SERVER_DESCRIPTORS, (64, 64), "pgbouncer (process 4711): 64 of 64"),
        # Who has no descriptor left accepts nothing either: the queue is its consequence.
        ({"processes": [FULL], "queues": [QUEUE]}, WallKind.SERVER_DESCRIPTORS, (64, 64), "descriptors"),
        (
            {"processes": [ROOMY], "queues": [QUEUE], "dropped": 95},
            WallKind.ACCEPT_QUEUE,
            (128, 129),
            "port 6432 is full: 129 wait in it, its size is 128, 95 requests were dropped",
        ),
        (
            {"queues": [SHORT], "processes": [ServerProcess("x", 7, stopped=True)]},
            WallKind.ACCEPT_QUEUE,
            (128, 20),
            "x (process 7) is stopped",
        ),
        ({"memory": [MEMORY]}, WallKind.MEMORY, (1000 << 20, 995 << 20), "995 of 1,000 MB"),
        ({"killed": 2}, WallKind.MEMORY, (None, None), "2 processes were killed"),
        ({"waiting": 7, "pool_size": 4}, WallKind.POOL, (4, None), "default_pool_size 4): 7 clients wait"),
        ({"unanswered": 10}, WallKind.NO_ANSWER, (None, None), "10 connection requests have no answer"),
        ({}, WallKind.NO_ANSWER, (None, None), "does not answer: 10 connects are under way"),
    ],
)  # fmt: skip
def test_where_nothing_is_said_what_is_full_names_it(
    failing: tuple[Failing, ...],
    seen: dict[str, object],
    named: WallKind,
    figures: tuple[int | None, int | None],
    words: str,
) -> None:
    wall = name_wall(evidence(*failing, **seen))
    assert wall.kind is named
    assert words in wall.words
    assert (wall.limit, wall.used) == figures


@pytest.mark.parametrize("kind", [K.RESET, K.CLOSED, K.REFUSED])
def test_a_server_that_cuts_off_what_it_has_no_room_for_is_known_by_what_is_full(kind: K) -> None:
    cut = Failing(kind, "the server closed the connection", 180)
    assert name_wall(evidence(cut, in_flight=0, processes=[FULL])).kind is WallKind.SERVER_DESCRIPTORS
    assert name_wall(evidence(cut, in_flight=0, processes=[ROOMY])).kind is WallKind.FAILURES
    other = Failing(K.AUTH, 'role "app" does not exist', 200)
    assert name_wall(evidence(cut, other, in_flight=0, processes=[FULL])).kind is WallKind.FAILURES


def test_a_queue_that_has_room_and_nobody_in_it_is_no_wall() -> None:
    seen = evidence(queues=[AcceptQueue("port 1", 0, 128)], processes=[ROOMY], ports=Use(28_000, 27_000))
    assert name_wall(seen).kind is WallKind.NO_ANSWER


def test_who_serves_one_client_with_each_process_is_told_by_its_setting() -> None:
    pgpool = ServerProcess("pgpool", 4711, Use(1024, 12), forks=True)
    wall = name_wall(evidence(queues=[AcceptQueue("port 9999", 12, 16)], processes=[pgpool]))
    assert wall.words.endswith(
        "pgpool does not accept them, its processes have a client each (num_init_children)"
    )


def test_a_long_message_of_a_server_is_cut() -> None:
    for kind in (K.TOO_MANY_CONNECTIONS, K.OTHER):
        wall = name_wall(evidence(Failing(kind, "x" * 500, 90), in_flight=0))
        assert wall.words.endswith("xxx…")
        assert len(wall.words) < 250


def test_failures_that_name_no_wall_are_not_made_one() -> None:
    wall = name_wall(evidence(Failing(K.REFUSED, "Connection refused", 40), in_flight=0))
    assert (wall.kind, wall.limit) == (WallKind.FAILURES, None)
    assert "refused: Connection refused" in wall.words


@pytest.mark.parametrize(
    ("failing", "seen", "words", "figures"),
    [
        (
            Failing(K.TOO_MANY_CONNECTIONS, "sorry, too many clients already", 4),
            {"max_connections": 100, "kept": 3, "slots_used": 97},
            "max_connections 100 of the server, 3 of them reserved, 97 in use",
            (100, 97),
        ),
        (
            Failing(K.TOO_MANY_CONNECTIONS, "no more connections allowed (max_client_conn)", 4),
            {"clients": Use(40, 40)},
            "PgBouncer's max_client_conn 40: 40 clients",
            (40, 40),
        ),
        (
            Failing(K.TOO_MANY_CONNECTIONS, 'too many connections for role "app"', 4),
            {"role_limit": 7, "database_limit": 9},
            'CONNECTION LIMIT 7 of the role: too many connections for role "app"',
            (7, None),
        ),
        (
            Failing(K.CLIENT_PORTS, "Cannot assign requested address", 4),
            {"ports": Use(28_232, 28_232)},
            "local ports: 28,232 of 28,232 in use to the server's address",
            (28_232, 28_232),
        ),
        (
            Failing(K.CLIENT_FDS, "Too many open files", 4),
            {"own_files": Use(1024, 1024)},
            "descriptors of this process: 1,024 of 1,024 in use (ulimit -n)",
            (1024, 1024),
        ),
        (
            # It has given some back since.
            Failing(K.CLIENT_FDS, "Too many open files", 4),
            {"own_files": Use(1024, 100)},
            "descriptors of this process: 1,024 at most (ulimit -n)",
            (1024, None),
        ),
        (
            Failing(K.CLIENT_FDS, "Too many open files in system", 4),
            {"own_files": Use(1024, 1024)},
            "descriptors of this machine (fs.file-max)",
            (None, None),
        ),
    ],
)
def test_the_figures_of_a_limit_stand_beside_its_name(
    failing: Failing, seen: dict[str, object], words: str, figures: tuple[int | None, int | None]
) -> None:
    wall = name_wall(evidence(failing, **seen))
    assert words in wall.words
    assert (wall.limit, wall.used) == figures


uses = st.none() | st.builds(Use, st.integers(0, 10**6), st.integers(0, 10**6))
evidences = st.builds(
    Evidence,
    held=st.integers(0, 10**5),
    in_flight=st.integers(0, 500),
    failing=st.lists(
        st.builds(Failing, st.sampled_from(K), st.text(max_size=40), st.integers(1, 10**6)), max_size=5
    ),
    own_files=uses,
    processes=st.lists(
        st.builds(ServerProcess, st.text(max_size=15), st.integers(1), uses, st.booleans()), max_size=3
    ),
    max_connections=st.none() | st.integers(1, 10**4),
    clients=uses,
    waiting=st.integers(0, 100),
    queues=st.lists(
        st.builds(AcceptQueue, st.just("port 1"), st.integers(0, 5000), st.none() | st.integers(0, 5000)),
        max_size=3,
    ),
    unanswered=st.integers(0, 100),
    ports=uses,
    memory=st.lists(
        st.builds(MemoryUse, st.just("this machine"), st.integers(1, 2**40), st.integers(0, 2**40)),
        max_size=2,
    ),
    killed=st.integers(0, 2),
)


@given(evidences)
def test_every_evidence_has_one_wall_and_one_that_is_said_is_never_passed_over(seen: Evidence) -> None:
    wall = name_wall(seen)
    assert wall.words
    told = {kind for one in seen.failing if (kind := kind_of(one)) is not None}
    if told:
        assert wall.kind in told
    if wall.kind is WallKind.UNKNOWN:
        assert not seen.in_flight
