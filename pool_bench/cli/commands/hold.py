"""Holding connections, from settings to exit code: guard, server, watcher, run, summary, files."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pool_bench.analysis.walls_ahead import Asked
from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.limits import local_ports_note, raise_file_limit
from pool_bench.cli.options.shared import Output
from pool_bench.cli.options.thresholds import NO_CHECKS, Checks
from pool_bench.cli.options.types import EXIT_LEFT
from pool_bench.cli.places.base import AnyPlace, ask_any, config_of, serve_any, targets_of_any
from pool_bench.cli.session import BenchSession, notify
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.walls import KnownLimits, WallWatch, warn_of_walls
from pool_bench.cli.watching import watch_for
from pool_bench.drivers.network.source_addresses import check_sources
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import PoolBenchError
from pool_bench.load.run import Run
from pool_bench.load.spec import HoldSpec
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.live.hold_view import make_hold_view
from pool_bench.report.summary.hold import hold_summary
from pool_bench.report.text import colour_wanted
from pool_bench.results.session import Session
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets.postgres import Host, PostgresTarget
from pool_bench.watch.machine.limits import LimitsReader
from pool_bench.watch.postgres.slots import Slots, guard_note, look_at_slots, room
from pool_bench.watch.watcher import Watcher

_LOOK_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPlan:
    """What to hold.

    Attributes:
        tool, name: as in the result file.
        place: where the targets come from.
        connections: how many to open, to all targets together.
        spec: the settings; targets and connections are filled in.
        reserve: leave the servers' reserved slots, and some more, free.
        admin: PgBouncer's administration console, where there is one to ask.
        watch: whether the server is watched while connections are held.
        output: where results go.
        checks: what must hold of them.
        require_valid: whether a suspect run makes the exit code 1.
        keep_going: measure also targets that the first connection does not get into.
    """

    tool: str
    name: str
    place: AnyPlace
    connections: int
    spec: HoldSpec
    reserve: bool
    admin: PostgresTarget | None
    output: Output
    checks: Checks = NO_CHECKS
    require_valid: bool = False
    keep_going: bool = False
    watch: bool = True


def hold(holding: HoldPlan) -> int:
    """Open, hold and close connections, show it, and write the files.

    Returns:
        The exit code: 0, 1 where no connection could be opened, 130 where the user left.

    Raises:
        UsageError: a setting turned out to be impossible.
        ServerStartError: the embedded server does not start.
        GeneratorError: the generator process failed; what it had seen before is saved.
        PoolBenchError: the guard leaves no connection to open.
    """
    output, asked = holding.output, holding.connections
    output.check()
    check_settings(holding.spec.driver, holding.place.targets)
    thresholds = holding.checks.read(hold=True)
    raise_file_limit(asked, option="--connections")
    text = output.text
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signals(notify))
            server = stack.enter_context(serve_any(holding.place, connections=asked))
            targets = targets_of_any(holding.place, server, tool=holding.tool)
            if server is not None and holding.spec.source_ips:
                # Named targets were checked before anything was started.
                check_sources(holding.spec.source_ips, targets)
            timeout_s = holding.spec.connect_timeout_s
            product = ask_any(
                holding.place,
                targets,
                stop,
                timeout_s=timeout_s,
                embedded=server is not None,
                keep_going=holding.keep_going,
            )
            shares = share_out(asked, len(targets))
            # Only these have slots, and say how it is with them.
            slotted = [target for target in targets if isinstance(target, PostgresTarget)]
            known = KnownLimits()
            if (holding.reserve or holding.watch) and product and slotted and not stop.requested:
                looks = look_at_servers(slotted, min(timeout_s, _LOOK_TIMEOUT_S))
                if holding.reserve:
                    shares = respect_reserved_slots(slotted, shares, looks, watched=holding.watch)
                known = KnownLimits.of(slotted[0], looks[slotted[0].hosts], holding.admin)
            spec = replace(holding.spec, targets=targets, connections=shares)
            reader = LimitsReader(targets, len(spec.source_ips))
            ports, _ = reader.ports()
            taken = 0 if ports is None else ports.used
            note = local_ports_note(targets, shares, spec.source_ips, taken=taken)
            if note is not None:
                notify(note)
            warn_of_walls(_asked(spec, reader), reader, known, notify)
            session = _session(holding, spec)
            session.server = product
            watcher = None
            if holding.watch:
                watching = watch_for(server, targets, holding.admin)
                watching = replace(watching, setup_log=None, find_console=False)
                watcher = stack.enter_context(watching.watcher(spec.concurrency))
            view = make_hold_view(
                text,
                stream_is_terminal=text.isatty(),
                asked=asked,
                quiet=output.quiet,
                targets=[str(target) for target in targets],
                active=spec.active > 0,
                slots=None if watcher is None else watcher.slots,
            )
            stack.callback(view.close)
            work = BenchSession(
                output,
                stop,
                view,
                text,
                session,
                levels=(asked,),
                span=f"n{asked}",
                checks=holding.checks,
                thresholds=thresholds,
                require_valid=holding.require_valid,
            )
            try:
                if not stop.requested:
                    _hold(work, spec, watcher, reader, known)
            except PoolBenchError:
                work.save()
                raise
            held = work.session.runs
            work.save(hold_brief(held[0], asked=asked, colour=colour_wanted(text)) if held else None)
            return work.exit_code
    except LeaveNow:
        notify("left without a summary")
        return EXIT_LEFT


def _asked(spec: HoldSpec, reader: LimitsReader) -> Asked:
    at_once, option = min((spec.open_concurrency, "--open-concurrency"), (spec.batch_size, "--batch-size"))
    return Asked(
        connections=spec.concurrency,
        at_once=0 if spec.rate else min(at_once, spec.concurrency),
        option=option,
        servers=reader.servers,
    )


def _hold(
    work: BenchSession, spec: HoldSpec, watcher: Watcher | None, reader: LimitsReader, known: KnownLimits
) -> None:
    (asked,) = work.levels
    run = Run(spec, f"n{asked}", work.stop)
    run.result.asked = asked
    walls = WallWatch(run, reader, known, watcher, work.message)
    stage = Stage.OPEN

    clock_told = False

    def saw(snapshot: Snapshot) -> None:
        nonlocal stage, clock_told
        walls.saw(snapshot)
        if watcher is None:
            return
        if not clock_told:
            clock_told = True
            watcher.tell_clock(snapshot.began_ns)
        if stage is Stage.OPEN and snapshot.stage is Stage.HOLD:
            watcher.peak()
        stage = snapshot.stage

    if watcher is not None:
        watcher.start()
    work.view.begin_run(run.result.label, 1, 1, spec.duration_s, 0.0)
    try:
        work.follow(run, saw)
    except PoolBenchError:
        _stop(run, watcher)
        raise
    _stop(run, watcher)
    work.detail(hold_summary(run.result, asked=asked, colour=colour_wanted(work.text)))


def _stop(run: Run, watcher: Watcher | None) -> None:
    if watcher is not None:
        run.result.server_side = watcher.stop()


def share_out(connections: int, targets: int) -> tuple[int, ...]:
    """How many connections each of so many targets gets: alike, the first ones one more."""
    each, left = divmod(connections, targets)
    return tuple(each + (index < left) for index in range(targets))


def look_at_servers(
    targets: Sequence[PostgresTarget], timeout_s: float
) -> dict[tuple[Host, ...], Slots | None]:
    """The slots of each server; blocks for `timeout_s` seconds at most for each."""
    found: dict[tuple[Host, ...], Slots | None] = {}
    for target in targets:
        if target.hosts not in found:
            found[target.hosts] = look_at_slots(target, timeout_s)
    return found


def respect_reserved_slots(
    targets: Sequence[PostgresTarget],
    shares: Sequence[int],
    looks: Mapping[tuple[Host, ...], Slots | None],
    *,
    watched: bool = True,
) -> tuple[int, ...]:
    """Lower `shares` so that every server keeps its reserved slots, and five more, free; says so.

    Args:
        targets: where to; several of them may be the same server.
        shares: connections to each of `targets`.
        looks: what `look_at_servers` gave.
        watched: one more slot is for the watcher.

    Raises:
        PoolBenchError: no connection may be opened at all.
    """
    asked: Counter[tuple[Host, ...]] = Counter()
    for target, share in zip(targets, shares, strict=True):
        asked[target.hosts] += share
    allowed = dict(asked)
    notes = []
    for hosts, count in asked.items():
        slots = looks[hosts]
        free = None if slots is None else room(slots, count, watched=watched)
        if free is not None:
            allowed[hosts] = free
        note = guard_note(slots, count, watched=watched)
        if note is not None:
            notes.append(note)
    kept = []
    for target, share in zip(targets, shares, strict=True):
        kept.append(min(share, allowed[target.hosts]))
        allowed[target.hosts] -= kept[-1]
    if not any(kept):
        raise PoolBenchError("; ".join(notes))
    for note in notes:
        notify(note)
    return tuple(kept)


def _session(holding: HoldPlan, spec: HoldSpec) -> Session:
    return Session(
        tool=holding.tool,
        name=holding.name,
        started_at=datetime.now(UTC),
        argv=redacted_argv(sys.argv),
        targets=tuple(str(target) for target in spec.targets),
        config={
            **config_of(holding.place, spec.targets[0]),
            "connections": holding.connections,
            "duration_s": spec.duration_s,
            "batch_size": None if spec.rate else spec.batch_size,
            "batch_pause_s": None if spec.rate else spec.batch_pause_s,
            "rate": spec.rate,
            "open_concurrency": spec.open_concurrency,
            "keepalive_s": spec.keepalive_s,
            "keepalive_query": spec.keepalive_query or "ping",
            "active": spec.active,
            "reconnect": spec.reconnect,
            "give_up_s": spec.give_up_s,
            "reserve": holding.reserve,
            "watch": holding.watch,
            "connect_timeout_s": spec.connect_timeout_s,
            "driver": spec.driver,
            "scram_cache": spec.scram_cache,
            "source_ips": list(spec.source_ips),
            "pgbouncer_admin": None if holding.admin is None else str(holding.admin),
        },
    )
