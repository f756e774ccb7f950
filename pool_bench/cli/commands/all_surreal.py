"""`all`: what is usually asked of a SurrealDB and the pool, one after the other, each passed or failed.

Every step is the command of the same job with its own summary and files, against one server that stays. A
step that fails does not end it, as the next ones tell what else is wrong. Where the user stops it what is
left is not run, and that is no success.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Final

from pool_bench.cli.commands.check import check
from pool_bench.cli.commands.hold import HoldPlan
from pool_bench.cli.commands.monitor import monitor
from pool_bench.cli.commands.monitor_surreal import demonstrate
from pool_bench.cli.commands.pool_stress import stress_plan
from pool_bench.cli.commands.pools import PoolPlan
from pool_bench.cli.entry import exit_code_of
from pool_bench.cli.options.all import AllOptions
from pool_bench.cli.options.hold import HoldOptions
from pool_bench.cli.options.monitor import MonitorOptions
from pool_bench.cli.options.pool import PoolOptions, Timing
from pool_bench.cli.options.shared import Output, SessionOptions
from pool_bench.cli.options.thresholds import Checks
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK
from pool_bench.cli.places.surreal import SurrealPlace, SurrealSite
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.status import notify
from pool_bench.load.run import StopSwitch
from pool_bench.report.text import Paint, colour_wanted, table
from pool_bench.units import format_duration

_GOOD: Final = "pass"
_BAD: Final = "FAIL"
_STYLES: Final = {_GOOD: "green", _BAD: "red"}
_SERVED: Final = "success>=99.9%"
_HELD: Final = (_SERVED, "hold.dropped==0")
_TIMEOUT_S: Final = 5.0
_CONNECT_S: Final = 30.0
_QUERY: Final = "RETURN 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ServedPlace(SurrealPlace):
    """A place whose server is there already, and stays when a step ends."""

    site: SurrealSite

    @contextmanager
    def serve(
        self, *, tool: str, connections: int, ending: int = 0, log_setup: bool = False
    ) -> Iterator[SurrealSite]:
        """The server that is there."""
        yield self.site


@dataclass(frozen=True, slots=True)
class _Step:
    """One of the jobs.

    Attributes:
        name: what it is.
        asks: what must hold, in words.
        run: does it, and returns the exit code.
    """

    name: str
    asks: str
    run: Callable[[], int]


def run_all(place: SurrealPlace, options: AllOptions, *, tool: str) -> int:
    """Do all steps, and say at the end which passed.

    Returns:
        The exit code: 0 where all passed, 1 where one failed or was not run, 130 where the user left.

    Raises:
        UsageError: the place does not go together with a pool, or nothing can be written.
        ServerStartError: the embedded server does not start.
    """
    place.check_pool()
    place.check_ca_file()
    output = _output(options)
    output.check()
    rows: list[tuple[_Step, str, str]] = []
    try:
        with stop_on_signals(notify) as stop, place.serve(tool=tool, connections=options.connections) as site:
            served = _ServedPlace(targets=site.targets, origin=site.origin, options=place.options, site=site)
            for step in _steps(served, options, output, tool):
                if stop.requested:
                    rows.append((step, "not run", ""))
                    continue
                print(f"\n== {step.name} ==", flush=True)
                began_ns = perf_counter_ns()
                code = exit_code_of(step.run)
                took = format_duration(round((perf_counter_ns() - began_ns) / 1e9, 1))
                if code == EXIT_LEFT:
                    return EXIT_LEFT
                rows.append((step, _outcome(code, stop), took))
    except LeaveNow:
        notify("left without a summary")
        return EXIT_LEFT
    return _show(rows)


def _outcome(code: int, stop: StopSwitch) -> str:
    if stop.requested:
        return "interrupted"
    return _GOOD if code == EXIT_OK else _BAD


def _show(rows: list[tuple[_Step, str, str]]) -> int:
    paint = Paint(colour=colour_wanted(sys.stdout))
    drawn = table([(step.name, outcome, took, step.asks) for step, outcome, took in rows], left=(0, 1, 3))
    print()
    for line, (_, outcome, _) in zip(drawn, rows, strict=True):
        print(paint(line, _STYLES.get(outcome, "yellow")))
    passed = sum(outcome == _GOOD for _, outcome, _ in rows)
    print(paint(f"{passed} of {len(rows)} passed", "bold"), flush=True)
    return EXIT_OK if passed == len(rows) else EXIT_FAILED


def _steps(place: _ServedPlace, options: AllOptions, output: Output, tool: str) -> list[_Step]:
    timing = Timing(
        timeout_s=_TIMEOUT_S,
        duration_s=options.duration_s,
        warmup_s=min(1.0, options.duration_s),
        grace_s=_TIMEOUT_S,
        rounds=1,
    )

    def session(name: str, *conditions: str) -> SessionOptions:
        return SessionOptions(name=f"all {name}", output=output, checks=Checks(texts=conditions))

    def stress() -> int:
        return stress_plan(
            tool=tool,
            place=place,
            session=session("stress"),
            clients=(options.clients,),
            size=options.size,
            query=_QUERY,
            timing=timing,
        ).run()

    def watch() -> int:
        looks = MonitorOptions(
            metrics=None,
            size=options.size,
            clients=2 * options.size,
            interval_s=min(1.0, options.duration_s),
            duration_s=options.duration_s,
        )
        return monitor(looks, lambda asked, stop: demonstrate(place, tool, asked, stop))

    def throughput() -> int:
        load = PoolOptions(
            pools=("reference",),
            scenarios=("query",),
            clients=10 * options.size,
            size=options.size,
            hold_s=None,
            query=_QUERY,
            reset="own",
        )
        return PoolPlan(
            tool=tool,
            place=place,
            session=session("throughput", _SERVED),
            options=load,
            timing=timing,
            spec=load.spec(place.targets, timing),
        ).run()

    def hold() -> int:
        load = HoldOptions(
            connections=options.connections,
            duration_s=options.duration_s,
            batch_size=20,
            batch_pause_s=0.0,
            rate=None,
            open_concurrency=50,
            give_up=None,
            keepalive_s=max(0.1, options.duration_s / 2),
            keepalive_query="",
            active=0.0,
            reconnect=False,
            watch=place.is_here,
            source_ips=(),
            by_address=False,
            connect_timeout_s=_CONNECT_S,
        )
        spec = replace(load.spec(place.targets, "surreal", _CONNECT_S), auth=place.options.auth)
        return HoldPlan(
            tool=tool, place=place, session=session("load", *_HELD), options=load, spec=spec
        ).run()

    clients, size, connections = options.clients, options.size, options.connections
    return [
        _Step("connectivity", "each step of a connection works", lambda: check(place, tool=tool)),
        _Step("stress", f"{clients:,} clients, {size:,} connections: all targets held", stress),
        _Step("monitor", "pool and server can be looked at", watch),
        _Step("throughput", f"{10 * size:,} clients, {size:,} connections: 99.9% served", throughput),
        _Step("load", f"{connections:,} connections: 99.9% opened, none dropped", hold),
    ]


def _output(options: AllOptions) -> Output:
    return Output(
        json=None,
        plot=None,
        plot_format="png",
        directory=options.directory,
        no_save=options.no_save,
        quiet=options.quiet,
        verbose=options.verbose,
    )
