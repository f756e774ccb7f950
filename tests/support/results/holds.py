"""Makes runs that hold connections, second by second as the generator sends them; nothing is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pool_bench.errors import FailureKind, Phase
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.session import Session
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureKey, Interval
from pool_bench.stats.runs import RunResult, Snapshot, Stage
from pool_bench.stats.server import PoolerMemory, ServerMemory, ServerObservation, ServerSample
from tests.support.results.runs import (
    TARGET,
    TOO_MANY,
    FloatArray,
    client_of,
    histogram_of_ms,
    lognormal_ms,
    session_of,
    stats_of,
)

SHUTDOWN: Final = FailureKey(FailureKind.SERVER_SHUTDOWN, Phase.HOLD, "57P01")
RESET: Final = FailureKey(FailureKind.RESET, Phase.HOLD)
IDLE: Final = FailureKey(FailureKind.IDLE_TIMEOUT, Phase.HOLD, "57P05")
CLOSED: Final = FailureKey(FailureKind.CLOSED, Phase.QUERY)
STARTING: Final = FailureKey(FailureKind.SERVER_STARTING, Phase.AUTH, "57P03")
PORTS: Final = FailureKey(FailureKind.CLIENT_PORTS, Phase.TCP)
FDS: Final = FailureKey(FailureKind.CLIENT_FDS, Phase.TCP)
MESSAGES: Final = {
    SHUTDOWN: "terminating connection due to administrator command",
    RESET: "Connection reset by peer",
    IDLE: "terminating connection due to idle-session timeout",
    CLOSED: "the server closed the connection",
}
PHASES: Final = {Phase.TCP: 0.12, Phase.AUTH: 0.6, Phase.READY: 0.25}


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to happen in a run.

    Attributes:
        asked: connections.
        refused: how many of them fail to open, by kind.
        rate: opened a second.
        hold_s: seconds of holding.
        drops: by second of holding, how many were dropped and why.
        reconnect: dropped ones come back in the next second, after one failed attempt each.
        keepalives, actives: queries a second, 0 for none.
        latency_ms: connect latencies instead of made-up ones, as many as open.
        stop_at_s: stopped while opening, after so many seconds.
    """

    asked: int = 500
    refused: Mapping[FailureKey, int] = field(default_factory=dict)
    rate: int = 3000
    hold_s: int = 60
    drops: Mapping[int, Mapping[FailureKey, int]] = field(default_factory=dict)
    reconnect: bool = False
    keepalives: int = 17
    actives: int = 0
    latency_ms: Sequence[float] | FloatArray | None = None
    stop_at_s: float | None = None
    forced: int = 0


class _Maker:
    """Goes through the stages of a plan, a snapshot at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.held = 0
        self.t = 0.0
        self.snapshots: list[Snapshot] = []

    def second(
        self,
        stage: Stage,
        seconds: float,
        *,
        opening: BenchStats | None = None,
        hold: HoldStats | None = None,
        in_flight: int = 0,
        backing_off: int = 0,
        final: bool = False,
        seed: int = 1,
    ) -> None:
        stats, hold = opening or BenchStats(), hold or HoldStats()
        self.t += seconds
        if self.plan.keepalives and stage is not Stage.CLOSE and self.held:
            hold.keepalive = histogram_of_ms(lognormal_ms(self.plan.keepalives, median=0.4, seed=seed))
        if self.plan.actives and stage is not Stage.CLOSE and self.held:
            hold.active = histogram_of_ms(lognormal_ms(self.plan.actives, median=0.2, seed=seed))
        before = self.held
        self.held += hold.held
        client = client_of(cpu_share=0.6 if stage is Stage.OPEN else 0.012, wall_s=seconds)
        if stage is Stage.HOLD:
            hold.hold_cpu_s = client.cpu_s
        hold.intervals.append(
            HoldInterval(
                t=round(self.t, 3),
                seconds=seconds,
                stage=str(stage),
                held=self.held,
                held_peak=max(before, self.held),
                opened=hold.opened + hold.reopened,
                dropped=hold.dropped,
                closed=hold.closed,
                keepalive=hold.keepalive,
                active=hold.active,
            )
        )
        stats.intervals.append(
            Interval(
                round(self.t, 3),
                seconds,
                stats.ok,
                stats.failed,
                in_flight,
                0.4,
                client.cpu_s,
                stats.latency,
            )
        )
        self.snapshots.append(
            Snapshot(
                stage=Stage.DONE if final else stage,
                elapsed_s=round(self.t, 3),
                seconds=seconds,
                targets=(stats,),
                warmup=BenchStats(),
                in_flight=in_flight,
                backing_off=backing_off,
                client=client,
                final=final,
                hold=hold,
            )
        )

    def make(self) -> list[Snapshot]:
        plan = self.plan
        to_open = plan.asked - sum(plan.refused.values())
        given = plan.latency_ms
        latencies = list(lognormal_ms(to_open, median=3.0, seed=4) if given is None else given)
        self.second(Stage.OPEN, 0.0, hold=HoldStats(base_rss_bytes=60 << 20), in_flight=min(50, plan.asked))
        left = dict(plan.refused)
        taken, stopped = 0, False
        while taken < to_open or left:
            part = latencies[taken : taken + plan.rate]
            taken = min(taken + plan.rate, to_open)
            failures, left = left, {}
            seconds = max(min(1.0, len(part) / plan.rate), 0.05)
            stopped = plan.stop_at_s is not None and self.t + seconds > plan.stop_at_s
            unfinished = 7 if stopped else 0
            stats = stats_of(part, failures=failures, phases=PHASES, unfinished=unfinished)
            opened = HoldStats(opened=len(part))
            self.second(Stage.OPEN, seconds, opening=stats, hold=opened, in_flight=50 if left else 0)
            if stopped:
                break
        end = self.snapshots[-1].hold
        assert end is not None
        end.open_s = self.t
        end.held_rss_bytes = (60 << 20) + self.held * 1800
        gone = 0
        for index in range(0 if stopped else plan.hold_s):
            hold = HoldStats()
            if gone and plan.reconnect:
                hold.reopened = gone
                hold.reconnects = stats_of(
                    lognormal_ms(gone, median=5.0), failures={STARTING: gone}, phases=PHASES
                )
            gone = 0
            for key, count in plan.drops.get(index, {}).items():
                count = min(count, self.held - gone)
                for number in range(count):
                    hold.count_drop(key, MESSAGES[key], int((index + number / count) * 1e9))
                gone += count
            if index == plan.hold_s - 1:
                hold.hold_s = float(plan.hold_s)
                hold.emptied = self.held - gone + hold.reopened == 0
            self.second(Stage.HOLD, 1.0, hold=hold, backing_off=gone if plan.reconnect else 0, seed=index)
        closing = HoldStats(closed=self.held, forced=min(plan.forced, self.held), close_s=0.04)
        for _ in range(self.held):
            closing.survivors.add(int(self.t * 1e9))
        self.second(Stage.CLOSE, 0.04, hold=closing, final=True)
        return self.snapshots


def snapshots_of(plan: Plan) -> list[Snapshot]:
    """What the generator of such a run would send."""
    return _Maker(plan).make()


def held_run(plan: Plan, *, server_side: ServerObservation | None = None, driver: str = "wire") -> RunResult:
    """The run that these snapshots add up to, as the runner adds them up."""
    hold, client, total = HoldStats(), ClientUsage(), BenchStats()
    opening_s = 0.0
    for snapshot in snapshots_of(plan):
        if snapshot.stage is Stage.OPEN:
            opening_s = snapshot.elapsed_s
            client.merge(snapshot.client)
        assert snapshot.hold is not None
        hold.merge(snapshot.hold)
        total.merge(snapshot.targets[0])
    hold.intervals.seal()
    total.intervals.seal()
    return RunResult(
        label=f"hold {plan.asked}",
        concurrency=plan.asked,
        driver=driver,
        targets=(TARGET,),
        duration_s=opening_s,
        per_target=(total,),
        total=total,
        client=client,
        event_loop="uvloop",
        interrupted=plan.stop_at_s is not None,
        hold=hold,
        server_side=server_side,
    )


def watched(peak: int = 500, *, seconds: int = 62) -> ServerObservation:
    """What a watcher saw of a PostgreSQL that held `peak` connections."""
    looks = [
        ServerSample(
            t=float(t),
            states={"idle": peak if 1 < t < seconds - 1 else 0, "active": 1},
            used=(peak if 1 < t < seconds - 1 else 0) + 1,
        )
        for t in range(seconds)
    ]
    return ServerObservation(
        max_connections=peak + 13,
        superuser_reserved=3,
        reserved=0,
        in_use_before=1,
        in_use_after=1,
        seconds=looks,
        memory={
            "before": ServerMemory(8, 42 << 20, 1, None, 8),
            "peak": ServerMemory(8 + peak, (42 << 20) + peak * 1_900_000, peak + 1, 1_850_000, 200),
            "after": ServerMemory(8, 43 << 20, 1, None, 8),
        },
        pooler_memory={
            "before": PoolerMemory(1, 5 << 20, 0),
            "peak": PoolerMemory(1, (5 << 20) + peak * 2048, peak),
        },
        notes=["the memory of the checkpointer could not be read: permission denied"],
    )


def hold_session(*runs: RunResult, name: str = "") -> Session:
    """A session of pg-connection-load."""
    session = session_of(*runs, name=name)
    session.tool = "pg-connection-load"
    session.argv = ("pg-connection-load", "--connections", "500")
    session.config = {"connections": 500}
    return session


def loaded_hold(plan: Plan, *, server_side: ServerObservation | None = None, name: str = "") -> ResultRecord:
    """The same, read back."""
    return from_session(hold_session(held_run(plan, server_side=server_side), name=name))


def normal() -> Plan:
    """500 connections, nothing amiss."""
    return Plan()


def slots_exhausted() -> Plan:
    """97 of 500 fit."""
    return Plan(refused={TOO_MANY: 403})


def restarted(*, reconnect: bool = True) -> Plan:
    """A restart after 20 seconds, a reset after 40, a few idle timeouts."""
    return Plan(
        drops={20: {SHUTDOWN: 500}, 40: {RESET: 30}, 41: {IDLE: 5}, 50: {CLOSED: 1}},
        reconnect=reconnect,
        actives=900,
    )


def all_refused() -> Plan:
    """None opens."""
    return Plan(refused={TOO_MANY: 480, PORTS: 20}, hold_s=0)


def one_second() -> Plan:
    """As short as can be."""
    return Plan(asked=20, hold_s=1, keepalives=0)


def many() -> Plan:
    """15,000 connections behind a pooler."""
    return Plan(asked=15_000, keepalives=500, hold_s=120)
