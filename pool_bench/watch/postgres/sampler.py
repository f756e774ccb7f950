"""What one look at a server and at PgBouncer's console gathers, and what to say of what it could not see.

The console is always looked at first: behind a pooler, the connection for the server is closed after every
look, so that it neither keeps a server connection from others nor counts as a client at the next look.
There the wait for the server's answers is short, too: where the pool is exhausted, they do not come.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from pool_bench.errors import ConnectError, FailureKind
from pool_bench.stats.intermediaries import Between
from pool_bench.stats.server import CpuUse, ServerObservation, ServerSample
from pool_bench.stats.timeline import Coarsening
from pool_bench.targets.postgres import Host, PostgresTarget
from pool_bench.watch.machine.cpu import CpuMeter, ThreadMeter
from pool_bench.watch.machine.listeners import listeners, program_of
from pool_bench.watch.machine.memory import measure_one, measure_pooler, measure_postgres
from pool_bench.watch.machine.processes import UnseenError, process_of
from pool_bench.watch.postgres.backends import PROCESS_NAMES, count_states, find_postmaster, list_backends
from pool_bench.watch.postgres.client import CLOSE_WAIT_S, WatchClient
from pool_bench.watch.postgres.counters import CounterDelta, count_sessions
from pool_bench.watch.postgres.pgbouncer import console_target, show_lists, show_pools, show_totals
from pool_bench.watch.postgres.route import see_between
from pool_bench.watch.postgres.setup_log import SetupLog
from pool_bench.watch.postgres.slots import Slots, ask_slots, own_limits
from pool_bench.watch.sampler import When

if TYPE_CHECKING:
    import psutil

_Answer = TypeVar("_Answer")

_POOLED_PATIENCE_S: Final = 0.5
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
# What time may mend. Anything else at the very first try (a wrong password, a console for others only) would
# be the same a second later, and be a line in the server's log each time.
_PASSING: Final = frozenset(
    {
        FailureKind.TIMEOUT,
        FailureKind.REFUSED,
        FailureKind.RESET,
        FailureKind.CLOSED,
        FailureKind.DNS,
        FailureKind.TOO_MANY_CONNECTIONS,
        FailureKind.SERVER_SHUTDOWN,
        FailureKind.SERVER_STARTING,
        FailureKind.CLIENT_FDS,
        FailureKind.CLIENT_PORTS,
    }
)


class _Source:
    """One server that is asked, and whether it answers.

    Attributes:
        client: the way to it.
        seen: it has answered at least once.
    """

    def __init__(self, name: str, client: WatchClient) -> None:
        self.client: Final = client
        self.seen = False
        self._name = name
        self._lost: tuple[ConnectError, float] | None = None
        self._given_up = False

    def ask(self, question: Callable[[WatchClient], _Answer], t: float) -> _Answer | None:
        """The answer to a question at `t` seconds, None where there is none; the next one is tried anew."""
        if self._given_up:
            return None
        try:
            answer = question(self.client)
        except ConnectError as error:
            self._lost = self._lost or (error, t)
            self._given_up = not self.seen and error.kind not in _PASSING
            return None
        self.seen, self._lost = True, None
        return answer

    def note(self) -> str | None:
        """What to say of it in the end; nothing where it was seen to the last, gaps being no error."""
        if self._lost is None:
            return None
        error, since = self._lost
        return f"{self._name} could not be watched{f' from {since:.0f} s on' if self.seen else ''}: {error}"


class PostgresSampler:
    """Gathers a `ServerObservation`, look by look. Used by one thread.

    Args:
        targets: the targets of the run; the server of the first one is looked at. May be empty.
        admin: PgBouncer's console, if there is one; any database of it.
        local_pid: the postmaster, where it was started by us; None has it found on this machine.
        connect: makes the way to a target.
        setup_log: the server's log, where it is one that `SetupLog` can read.
        find_console: where the target turns out to be a pooler, try whether it has a console for us.
        wanted: connections that the run opens at most; where the server has no slot beside them, the watcher
            gives its own back before they are opened.

    Attributes:
        side: what was seen so far.
    """

    def __init__(
        self,
        targets: Sequence[PostgresTarget],
        admin: PostgresTarget | None,
        local_pid: int | None,
        connect: Callable[[PostgresTarget], WatchClient],
        *,
        setup_log: Path | None = None,
        find_console: bool = False,
        wanted: int = 0,
    ) -> None:
        self._wanted = wanted
        # No question to the server while the run is under way: it has no slot for us.
        self._quiet = False
        # The process that serves us where that is no PostgreSQL's.
        self._stand_in: psutil.Process | None = None
        self._threads = ThreadMeter()
        self.side: Final = ServerObservation(cores=os.cpu_count())
        self._timeline: Final[Coarsening[ServerSample]] = Coarsening()
        self._connect = connect
        self._find_console = find_console and admin is None
        self._local_pid = local_pid
        self._meter = CpuMeter()
        self._setup_log = None if setup_log is None else SetupLog(setup_log)
        self._sessions, self._totals = CounterDelta(), CounterDelta()
        # Connections of our own at the first look at the counters.
        self._own_before: int | None = None
        # Not their numbers, which may come to stand for other processes.
        self._postmaster: psutil.Process | None = None
        self._poolers: list[psutil.Process] = []
        # Why they are not to be seen; then they are not looked for again.
        self._server_hidden: str | None = None
        self._pooler_hidden: str | None = None
        self._slots: Slots | None = None
        self._server: _Source | None = None
        self._console: _Source | None = None
        # Client backends and PgBouncer's clients before the run, as far as this user sees them.
        self._backends_before: int | None = None
        self._clients_before: int | None = None
        if targets:
            self._server = _Source(f"the server at {targets[0]}", connect(targets[0]))
            if not all(_is_same_server(targets[0], other) for other in targets[1:]):
                self.side.note(f"there are several servers: only the first, {targets[0]}, was watched")
        if admin is not None:
            console = console_target(admin)
            self._console = _Source(f"PgBouncer's console at {console}", connect(console))

    def sample(self, t: float, when: When | None = None) -> None:
        """Look at everything; see `Sampler`."""
        pools = lists = totals = states = used = sessions = None
        if (console := self._console) is not None:
            pools, lists, totals = _look_at_pools(console, t)
        server = self._server
        if server is not None and not (self._quiet and when not in ("before", "after")):
            if self._slots is None:
                self._take_slots(server, t)
            if self._slots is not None:
                states = server.ask(count_states, t)
                if states is not None:
                    used = sum(states.values()) if self._slots.may_see_all else None
                    sessions = server.ask(count_sessions, t)
                if when is not None:
                    self._measure_server(server, when, t)
        if console is None and self._console is not None and server is not None:
            # Found just now. It would count ourselves among its clients.
            server.client.close(wait_s=CLOSE_WAIT_S)
            pools, lists, totals = _look_at_pools(self._console, t)
        seen = not (states is None and pools is None and lists is None) or self._quiet
        cpu = self._use_cpu(t) if seen else None
        if when is not None and lists is not None:
            self._measure_pooler(when, lists.get("used_clients", 0))
        if server is not None and (self._is_pooled or self._quiet):
            server.client.close(wait_s=CLOSE_WAIT_S)
        if when == "before":
            self._backends_before = None if states is None else sum(states.values())
            self._clients_before = None if lists is None else lists.get("used_clients")
            self.side.in_use_before = used
            if self._setup_log is not None:
                self._setup_log.skip()
        elif when == "after":
            self.side.in_use_after = used
        if seen:
            self.side.seconds.append(
                ServerSample(
                    t=round(t, 3),
                    states=states or {},
                    used=used,
                    pools=pools or {},
                    lists=lists or {},
                    sessions={} if sessions is None else self._since_before(sessions),
                    totals={} if totals is None else self._totals.update(totals),
                    cpu=cpu,
                    setup=None if self._setup_log is None else self._setup_log.read(),
                )
            )
            self._timeline.seal(self.side.seconds, keep=0)

    def begin(self, origin_s: float, wall_s: float, *, expected: bool = False) -> None:
        """Learn when the run's own clock is at 0; see `Sampler`."""
        self.side.origin_s = round(origin_s, 3)
        if self._setup_log is not None:
            self._setup_log.begin(wall_s, expected=expected)

    def forget_before(self) -> None:
        """Leave out the look before the run: it came too late to show only what was there before."""
        side = self.side
        side.in_use_before = self._backends_before = self._clients_before = None
        side.memory.pop("before", None)
        side.pooler_memory.pop("before", None)

    def surplus(self, t: float) -> int:
        """How many client connections there are more than before the run; 0 where that is not known."""
        surplus = 0
        if self._console is not None and self._clients_before is not None:
            lists = self._console.ask(show_lists, t)
            surplus += max((lists or {}).get("used_clients", 0) - self._clients_before, 0)
        # A pooler keeps its server connections.
        if self._server is not None and self._backends_before is not None and not self._is_pooled:
            states = self._server.ask(count_states, t)
            surplus += max(sum((states or {}).values()) - self._backends_before, 0)
        return surplus

    def finish(self) -> None:
        """Close the connections and say what could not be seen."""
        if self._setup_log is not None:
            self.side.setup = self._setup_log.finish()
            if self.side.setup.missed:
                self.side.note("the server's log grew too fast to be read: some set-up times are missing")
        if self._sessions.was_reset or self._totals.was_reset:
            self.side.note(
                "the counters were reset during the run: what they had counted just before is missing"
            )
        for source in (self._server, self._console):
            if source is not None:
                source.client.close(wait_s=CLOSE_WAIT_S)
                text = source.note()
                if text is not None:
                    self.side.note(text)

    @property
    def _is_pooled(self) -> bool:
        return self._slots is not None and self._slots.pooled

    def _take_slots(self, server: _Source, t: float) -> None:
        between = server.ask(see_between, t)
        if between is None:
            return
        self.side.between = between
        slots = self._slots = server.ask(lambda client: ask_slots(client, between), t)
        if slots is None:
            return
        self.side.max_connections = slots.max_connections
        self.side.superuser_reserved = slots.superuser_reserved
        self.side.reserved = slots.reserved
        if between.kind == "proxy":
            self.side.note(f"through {between.words}: each connection is one of the server's")
        self._quiet = between.alone or _is_tight(slots, self._wanted)
        if between.alone:
            self.side.note("the server is one process with one session: it was asked nothing during the run")
        elif self._quiet:
            self.side.note(
                f"the run wants {self._wanted:,} of {slots.max_connections:,} slots: the watcher gave its "
                "own connection back, and asked the server nothing during the run"
            )
        if slots.pooled:
            self.side.pooled = True
            self.side.note(f"through {between.words}: backends and slots are those of the server behind it")
            server.client.patience_s = _POOLED_PATIENCE_S
            if self._find_console and between.name in ("", "PgBouncer"):
                self._try_console(server.client.target, t)
        if not slots.may_see_all:
            user = server.client.target.user
            self.side.note(
                f"user {user} may not see the sessions of other users (GRANT pg_monitor): only backends of "
                "its own roles are counted, and the slots in use are not known"
            )

    def _try_console(self, target: PostgresTarget, t: float) -> None:
        """Watch the console of the pooler at `target` as its own user, if that is let in."""
        console = console_target(target)
        source = _Source(f"PgBouncer's console at {console}", self._connect(console))
        if source.ask(show_pools, t) is None:
            source.client.close()
            self.side.note(f"the pooler has no console for user {target.user}: --pgbouncer-admin names one")
        else:
            self._console = source

    def _since_before(self, sessions: dict[str, int]) -> dict[str, int]:
        """How far the counters have come, without the sessions of our own since the first look."""
        come = self._sessions.update(sessions)
        assert self._server is not None  # noqa: S101 - it has answered
        # A pooler's sessions are its own, whoever they served.
        if "sessions" in come and not self._is_pooled:
            own = self._server.client.connects
            self._own_before = own if self._own_before is None else self._own_before
            come["sessions"] = max(come["sessions"] - (own - self._own_before), 0)
        return come

    def _measure_server(self, server: _Source, when: When, t: float) -> None:
        backends = server.ask(list_backends, t)
        if backends is None:
            self.side.note(f"memory of the server was not measured {_at(when)}: it did not answer")
            return
        try:
            postmaster = self._find_postmaster(t)
            if self._stand_in is not None:
                others = sum(not backend.is_ours for backend in backends)
                if (alone := measure_one(self._stand_in.pid, others)) is not None:
                    self.side.memory[when] = alone
            elif postmaster is not None:
                self.side.memory[when] = measure_postgres(postmaster.pid, backends)
        except UnseenError as error:
            self.side.note(f"memory of the server was not measured: {error}")

    def _find_postmaster(self, t: float) -> "psutil.Process | None":
        """The postmaster; after a restart it is another one, which has to be found.

        Raises:
            UnseenError: it is not to be seen.
        """
        if self._server_hidden is not None:
            raise UnseenError(self._server_hidden)
        if self._postmaster is not None and self._postmaster.is_running():
            return self._postmaster
        if self._local_pid is not None:
            pid, self._local_pid = self._local_pid, None
            self._postmaster = process_of(pid)
            if self._postmaster is not None:
                return self._postmaster
        if self._server is None:
            return None
        if self._quiet and self._server.client.socket_fd is None:
            return None
        try:
            postmaster = self._server.ask(find_postmaster, t)
        except UnseenError as error:
            self._postmaster = self._stand_in = self._find_stand_in(self._server.client)
            if self._stand_in is not None:
                return self._stand_in
            self._server_hidden = str(error)
            raise
        self._postmaster = None if postmaster is None else process_of(postmaster)
        return self._postmaster

    def _find_stand_in(self, client: WatchClient) -> "psutil.Process | None":
        """What listens to us, where nobody stands in between and it is no PostgreSQL's process."""
        between = self.side.between
        if between is None or between.kind != "nobody":
            return None
        try:
            processes = listeners(client.local_fd, "the server")
        except UnseenError:
            return None
        program = program_of(processes)
        if program is None or program in PROCESS_NAMES:
            return None
        port = client.target.hosts[0].port
        self.side.note(
            f"port {port} is served by {program}, no PostgreSQL: CPU and memory are that process's"
        )
        return processes[0]

    def _find_poolers(self) -> "list[psutil.Process]":
        """The processes of the pooler or proxy; after a restart they are others, which have to be found.

        Raises:
            UnseenError: they are not to be seen.
        """
        if self._pooler_hidden is not None:
            raise UnseenError(self._pooler_hidden)
        if self._poolers and all(process.is_running() for process in self._poolers):
            return self._poolers
        # Either way leads to it.
        source = self._console or (self._server if _is_there(self.side.between) else None)
        if source is None or source.client.socket_fd is None:
            return []
        try:
            self._poolers = listeners(source.client.local_fd, self.side.pooler_name)
        except UnseenError as error:
            self._pooler_hidden = str(error)
            raise
        return self._poolers

    def _measure_pooler(self, when: When, clients: int) -> None:
        try:
            pids = [process.pid for process in self._find_poolers()]
            self.side.pooler_memory[when] = measure_pooler(pids, clients)
        except UnseenError as error:
            self.side.note(f"memory of {self.side.pooler_name} was not measured: {error}")

    def _use_cpu(self, t: float) -> CpuUse | None:
        postmaster, poolers = None, []
        with suppress(UnseenError):
            postmaster = self._find_postmaster(t)
        with suppress(UnseenError):
            poolers = self._find_poolers()
        try:
            use = self._meter.look(postmaster, poolers)
            if self._stand_in is None or use is None:
                return use
            # It forks nothing, so what a postmaster alone would use says nothing here.
            return replace(use, postmaster=None, server_thread=self._threads.look(self._stand_in.pid))
        except UnseenError as error:
            self.side.note(f"CPU of the server was not measured: {error}")
            return None


def _look_at_pools(
    console: _Source, t: float
) -> tuple[dict[str, int] | None, dict[str, int] | None, dict[str, int] | None]:
    """What its pools are at, its lists, and its totals."""
    return console.ask(show_pools, t), console.ask(show_lists, t), console.ask(show_totals, t)


def _is_there(between: Between | None) -> bool:
    return between is not None and between.kind in ("pooler", "proxy")


def _is_tight(slots: Slots, wanted: int) -> bool:
    """Whether `wanted` connections leave no slot for the watcher's own."""
    if slots.pooled or not wanted:
        return False
    kept = 0 if slots.is_superuser else slots.superuser_reserved + slots.reserved
    free = [slots.max_connections - kept - slots.in_use]
    free += [limit - in_use for _, limit, in_use in own_limits(slots)]
    return min(free) <= wanted


def _at(when: When) -> str:
    return {
        "before": "before the run",
        "during": "during the run",
        "peak": "at the peak",
        "after": "after the run",
    }[when]


def _is_same_server(first: PostgresTarget, other: PostgresTarget) -> bool:
    return _place(first.hosts[0]) == _place(other.hosts[0])


def _place(host: Host) -> tuple[str, int]:
    name = host.address or host.name
    return "localhost" if name in _LOCAL_NAMES else name, host.port
