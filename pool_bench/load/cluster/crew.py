"""The client's side: workers that are alike and known, and the generators of one run after another on them.

Order of a run: clocks are compared; each worker gets its order, in one call for all; one task a worker,
pinned to it, starts the generators; when all are ready, they are told a moment two seconds ahead. Events were
subscribed to before, since a late subscriber gets nothing. A worker that is lost shows by the scheduler's own
event at once, whatever its settings.
"""

import pickle
import queue
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from distributed import Client, Future

from pool_bench.errors import UsageError
from pool_bench.load.child import GeneratorError, Member, WorkerLostError
from pool_bench.load.cluster import launcher
from pool_bench.load.cluster.clocks import compare
from pool_bench.load.cluster.launcher import Order, Relayed, Sent
from pool_bench.load.cluster.preflight import Facts
from pool_bench.load.cluster.remote import RemoteMember
from pool_bench.load.division import divided, settled
from pool_bench.load.share import Share
from pool_bench.load.spec import Spec
from pool_bench.stats.hosts import Clock, HostPart

# All must have heard of the moment at which they begin, over whatever network.
_LEAD_NS: Final = 2_000_000_000
# How long workers may take to end what they started, before that is left to them.
_END_S: Final = 30.0
# Pipes, the event loop, lookups.
_SPARE_FILES: Final = 64
# Whatever fails at a worker, the message is not shown: it could quote what it was given.
_FAILED: Final = "the launcher on its worker failed"


@dataclass(frozen=True, slots=True)
class Post:
    """One worker: its address, and what it is like."""

    address: str
    facts: Facts


class _Line:
    """Takes words to one worker, in order, in a thread: who does not answer holds up no other worker."""

    def __init__(self, client: Client, address: str, run: str) -> None:
        self._client = client
        self._address = address
        self._run = run
        self._words: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._carry, name="words", daemon=True)
        self._thread.start()

    def say(self, number: int, word: str) -> None:
        self._words.put((number, word))

    def close(self) -> None:
        """Nothing follows; what was said before is still taken there."""
        self._words.put(None)

    def _carry(self) -> None:
        while (first := self._words.get()) is not None:
            words = [first]
            while not self._words.empty():
                word = self._words.get()
                if word is None:
                    self._words.put(None)
                    break
                words.append(word)
            try:
                self._client.run(
                    launcher.say, self._run, tuple(words), workers=[self._address], on_error="ignore"
                )
            except Exception:  # noqa: S112 - it is lost, which shows elsewhere
                continue


class ClusterTeam:
    """The generators of one run on a cluster.

    Args:
        crew: the workers.
        spec: what they do together, in `spec.processes` processes.

    Attributes:
        members, lead_ns, apart: as of every team.
    """

    lead_ns: int = _LEAD_NS
    apart: bool = True

    def __init__(self, crew: "ClusterCrew", spec: Spec) -> None:
        self._crew = crew
        self._run = uuid.uuid4().hex[:12]
        self._parts = crew.parts(spec)
        self._by_number = {
            number: RemoteMember(number, crew.host(post), self._say_of(post))
            for post, parts in self._parts.items()
            for number in parts
        }
        self._remote = [self._by_number[number] for number in sorted(self._by_number)]
        self.members: Sequence[Member] = self._remote
        self._lines: dict[str, _Line] = {}
        self._clocks: dict[str, Clock] = {}
        self._futures: dict[str, Future[Any]] = {}
        self._lost: set[str] = set()
        self._ended = threading.Condition()
        self._over: set[str] = set()
        self._drifts: dict[str, int] = {}

    def _say_of(self, post: Post) -> Callable[[int, str], None]:
        def say(number: int, word: str) -> None:
            line = self._lines.get(post.address)
            if line is not None:
                line.say(number, word)

        return say

    def start(self) -> None:
        """Compare clocks, hand out orders, and start one task a worker.

        Raises:
            GeneratorError: a worker is gone, or does not take its order.
        """
        crew, run = self._crew, self._run
        client = crew.client
        for post, parts in self._parts.items():
            clock = self._clocks[post.address] = self._crew.compare(post)
            for number in parts:
                self._by_number[number].offset_ns = clock.offset_ns
        self._crew.listen(run, self)
        orders = {
            post.address: Order(run, crew.topic, crew.host(post), pickle.dumps(tuple(parts.items())))
            for post, parts in self._parts.items()
        }
        answers = client.run(launcher.accept, orders, workers=list(orders), on_error="return")
        for post in self._parts:
            if answers.get(post.address) is not True:
                raise GeneratorError(f"worker {post.address} does not take its order: is it still there?")
        for number, post in enumerate(self._parts):
            address = post.address
            self._lines[address] = _Line(client, address, run)
            self._futures[address] = client.submit(
                launcher.launch,
                run,
                key=f"pool-bench-{run}-{number}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
        for address, future in self._futures.items():
            future.add_done_callback(lambda future, address=address: self._done(address, future))

    def arrived(self, relayed: Relayed) -> None:
        """Hand an event to the member it is of."""
        member = self._by_number.get(relayed.process)
        if member is not None:
            member.arrived(relayed)

    def lose(self, address: str) -> None:
        """A worker is gone, and its generators with it."""
        self._end_of(address, WorkerLostError(f"its worker {address} is gone"))
        self._lost.add(address)

    def _end_of(self, address: str, error: GeneratorError) -> None:
        for post, parts in self._parts.items():
            if post.address == address:
                for number in parts:
                    self._by_number[number].lose(error)
        with self._ended:
            self._over.add(address)
            self._ended.notify_all()

    def _done(self, address: str, future: "Future[Any]") -> None:
        """A worker's task has ended."""
        status = future.status
        if status == "finished":
            try:
                sent = cast("dict[int, Sent] | None", future.result(timeout=_END_S))
            except Exception:
                sent = None
            for number, each in (sent or {}).items():
                self._by_number[number].conclude(each)
            self._end_of(address, GeneratorError(_FAILED))
        elif status == "error" and isinstance(future.exception(timeout=_END_S), Exception):
            name = type(future.exception(timeout=_END_S)).__name__
            if name == "KilledWorker":
                self.lose(address)
            else:
                self._end_of(address, GeneratorError(f"{_FAILED}: {name}"))
        else:
            self._end_of(address, WorkerLostError("the scheduler is gone"))

    def end(self, *, patient: bool) -> None:
        """Wait until the workers have ended what they started; compare clocks again where all went well."""
        client = self._crew.client
        with self._ended:
            self._ended.wait_for(lambda: self._over >= self._futures.keys(), _END_S)
        late = self._futures.keys() - self._over
        for line in self._lines.values():
            line.close()
        for address in late:
            self._futures[address].cancel()
        if patient:
            for post in self._parts:
                if post.address not in self._lost | late:
                    before, now = self._clocks[post.address], self._crew.compare(post)
                    self._drifts[post.address] = now.offset_ns - before.offset_ns
        elif not self._futures:
            client.run(launcher.forget, self._run, on_error="ignore")
        self._crew.listen(self._run, None)
        self._futures.clear()
        for member in self._remote:
            member.close()

    def hosts(self) -> tuple[HostPart, ...]:
        """The workers, with what their clocks said."""
        return tuple(
            HostPart(
                name=self._crew.host(post),
                address=post.address,
                processes=len(parts),
                clock=self._clocks[post.address],
                drift_ns=self._drifts.get(post.address),
            )
            for post, parts in self._parts.items()
            if post.address in self._clocks
        )


class ClusterCrew:
    """The workers of a cluster.

    Args:
        client: connected to the scheduler.
        posts: the workers, all alike.
        pin: each generator stays on a core of its own.

    Attributes:
        topic: of the events by which messages are passed on.
    """

    def __init__(self, client: Client, posts: Sequence[Post], *, pin: bool = False) -> None:
        self.client = client
        self.posts = tuple(posts)
        self.topic = f"pool-bench-{uuid.uuid4().hex[:12]}"
        self._pin = pin
        self._teams: dict[str, ClusterTeam] = {}
        client.subscribe_topic(self.topic, self._on_event)
        # Every scheduler tells here who comes and goes.
        client.subscribe_topic("all", self._on_change)
        # Subscriptions and calls go different ways; this answer says that the first have arrived.
        client.run_on_scheduler(_nothing)

    @property
    def cores(self) -> int:
        """Cores that each worker may use for itself: those that share a machine share its cores."""
        first = self.posts[0].facts
        beside = sum(post.facts.machine == first.machine for post in self.posts)
        return max(first.cores // beside, 1)

    def host(self, post: Post) -> str:
        """What the machine of a worker is called; with its number where several workers share it."""
        alike = [each for each in self.posts if each.facts.host == post.facts.host]
        return post.facts.host if len(alike) == 1 else f"{post.facts.host}/{alike.index(post) + 1}"

    def compare(self, post: Post) -> Clock:
        """The clock of a worker, compared with ours.

        Raises:
            GeneratorError: it does not answer.
        """

        def ping() -> int:
            return int(self.client.run(launcher.clock, workers=[post.address])[post.address])

        try:
            return compare(ping)
        except (OSError, KeyError, ValueError):
            raise GeneratorError(f"worker {post.address} does not answer") from None

    def check_files(self, connections: int, processes: int, *, option: str) -> None:
        """Make sure that each of `processes` may have its part of `connections` open.

        Raises:
            UsageError: the hard limit of a worker is too low; names `option`.
        """
        each = -(-connections // max(processes, 1)) + _SPARE_FILES
        for post in self.posts:
            most = post.facts.files
            if most is not None and most < each:
                raise UsageError(
                    f"{option} {connections:,} needs {each:,} open files in each process, but the hard limit "
                    f"on {post.facts.host} ({post.address}) is {most:,}: lower it, or raise the limit there"
                )

    def team(self, spec: Spec) -> ClusterTeam:
        """The generators of a run that does `spec`, spread over the workers.

        Raises:
            UsageError: there is not something to do for each of them.
        """
        return ClusterTeam(self, spec)

    def parts(self, spec: Spec) -> dict[Post, dict[int, Spec]]:
        """What each process does, by worker and number: processes are dealt out to workers in turn.

        What is a machine's own (ports, cores, addresses to connect from) is shared by all processes on it.

        Raises:
            UsageError: there is not something to do for each of them.
        """
        apart = divided(replace(spec, cpus=()))
        if len(apart) == 1:
            apart = (replace(apart[0], share=Share()),)
        dealt: dict[Post, dict[int, Spec]] = {}
        beside: dict[str, list[int]] = {}
        for number, part in enumerate(apart):
            post = self.posts[number % len(self.posts)]
            dealt.setdefault(post, {})[number] = part
            beside.setdefault(post.facts.machine, []).append(number)
        for post, parts in dealt.items():
            facts, numbers = post.facts, beside[post.facts.machine]
            for number, part in parts.items():
                parts[number] = settled(
                    part,
                    numbers.index(number),
                    len(numbers),
                    source_ips=facts.source_ips,
                    ports=facts.ports,
                    cpus=facts.cpus[::-1] if self._pin else (),
                )
        return dealt

    def listen(self, run: str, team: ClusterTeam | None) -> None:
        """From now on, events of `run` go to `team`; None for nobody."""
        if team is None:
            self._teams.pop(run, None)
        else:
            self._teams[run] = team

    def close(self) -> None:
        """Hear of nothing more."""
        for topic in (self.topic, "all"):
            self.client.unsubscribe_topic(topic)

    def _on_event(self, event: tuple[float, bytes]) -> None:
        relayed: Relayed = pickle.loads(event[1])  # noqa: S301 - of a worker that our own package runs in
        team = self._teams.get(relayed.run)
        if team is not None:
            team.arrived(relayed)

    def _on_change(self, event: tuple[float, Mapping[str, object]]) -> None:
        if event[1].get("action") == "remove-worker":
            for team in list(self._teams.values()):
                team.lose(str(event[1].get("worker")))


def _nothing() -> None:
    """Asked only so that it is answered."""
