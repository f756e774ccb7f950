"""What goes wrong in the generator is the generator's, and makes the run suspect."""

import asyncio
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pool_bench.analysis.verdict import judge
from pool_bench.errors import Phase
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed, Stall
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.operations import BenchStats, ClientUsage
from pool_bench.stats.runs import RunResult, Snapshot, Stage
from tests.support.commands import COMMAND, environment, found_by
from tests.support.generators import Outcome, run, target
from tests.support.measuring import Measured, measure, once_more_if_disturbed

_UNSHARE = shutil.which("unshare")


def in_own_network() -> bool:
    """Whether a network namespace can be made here."""
    if _UNSHARE is None or shutil.which("ip") is None:
        return False
    return subprocess.run([_UNSHARE, "-n", "true"], capture_output=True, check=False).returncode == 0


def limited(*prefix: str, **limits: object) -> dict[str, Any]:
    return found_by("tests.support.limited_cpu", limits, *prefix)


@pytest.mark.skipif(not in_own_network(), reason="needs a network namespace: run as root, with iproute2")
@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_l2_too_few_local_ports_are_the_generators_fault(driver: str) -> None:
    assert _UNSHARE is not None
    found = limited(_UNSHARE, "-n", ports=50, driver=driver, concurrency=80, duration_s=0.3)
    assert set(found["errors"]) == {"client_ports"}
    assert found["failed"] == found["errors"]["client_ports"] > 0
    assert found["ok"] == found["served"] > 0
    assert "client_ports" in found["reasons"]
    assert "80 connections in flight need as many local ports" in found["note"]


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_l3_too_few_file_descriptors_are_the_generators_fault(driver: str) -> None:
    found = limited(files=64, driver=driver, concurrency=100, duration_s=0.3)
    assert set(found["errors"]) == {"client_fds"}
    assert found["ok"] == found["served"] > 0
    assert "client_fds" in found["reasons"]


def test_l3_more_connections_than_file_descriptors_are_refused_before_the_start() -> None:
    def low() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    done = subprocess.run(
        [sys.executable, "-m", COMMAND, "-c", "200", "--no-save", "-u", "postgresql://u@127.0.0.1:1/d"],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=low,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--concurrency 200" in line
    assert "hard limit is 64" in line


def overflows() -> int:
    """Connections this machine's listeners have dropped because their accept queue was full."""
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
    names, values = (line for line in lines if line[0] == "TcpExt:")
    return int(dict(zip(names, values, strict=True))["ListenOverflows"])


@pytest.mark.quiet
def test_l4_a_full_accept_queue_is_named_by_its_steps_of_whole_seconds() -> None:
    before = overflows()

    def check(measured: Measured) -> None:
        assert measured.run.total.unfinished == 0
        assert overflows() > before
        assert measured.run.total.phases[Phase.TCP].max_ns > 990e6
        (reason,) = [r for r in judge(measured.run).reasons if r.code == "full_accept_queue"]
        assert "connects waited 1 s" in reason.text
        assert "listen backlog" in reason.remedy

    behaviour = Behaviour(backlog=10, stall=Stall(at_s=0.0, for_s=0.5))
    once_more_if_disturbed(lambda: measure(behaviour, concurrency=30, duration_s=0.2), check)


def result_of(outcome: Outcome, spec: ConnectSpec) -> RunResult:
    """The result that the runner would make of it."""
    client = ClientUsage()
    for snapshot in outcome.snapshots:
        if snapshot.stage is Stage.MEASURE:
            client.merge(snapshot.client)
    total: BenchStats = outcome.total
    total.intervals.seal()
    names = tuple(map(str, spec.targets))
    return RunResult(
        "here", spec.concurrency, spec.driver, names, duration_s=spec.duration_s, total=total, client=client
    )


def test_l5_a_generator_without_cpu_to_spare_makes_the_run_suspect() -> None:
    async def burn(stop: asyncio.Event) -> None:
        while not stop.is_set():
            until = time.process_time() + 0.03
            while time.process_time() < until:
                continue
            await asyncio.sleep(0)

    with ScriptedPostgres(Behaviour(auth=Fixed(0.005))) as server:
        spec = ConnectSpec(targets=(target(server.url()),), concurrency=4, warmup_s=0.1, duration_s=0.6)
        result = result_of(run(spec, during=burn), spec)
    codes = [reason.code for reason in judge(result).reasons]
    # Whether the burning or others had its core, a busy machine decides; late it was.
    assert {"client_saturated", "client_blocked", "client_starved"} & set(codes)
    assert result.client_trouble is not None
    assert "ms late" in result.client_trouble


def test_l6_a_loop_that_was_held_up_shows_in_its_second_and_in_the_verdict() -> None:
    over = False
    after: list[Snapshot] = []

    async def hold_up(stop: asyncio.Event) -> None:
        nonlocal over
        await asyncio.sleep(0.4)
        time.sleep(0.2)  # noqa: ASYNC251  # what this is about
        over = True

    def on_snapshot(snapshot: Snapshot) -> bool:
        if over:
            after.append(snapshot)
        return False

    with ScriptedPostgres(Behaviour(auth=Fixed(0.01))) as server:
        spec = ConnectSpec(
            targets=(target(server.url()),), concurrency=4, warmup_s=0.0, duration_s=1.5, tick_s=0.25
        )
        result = result_of(run(spec, during=hold_up, stop_when=on_snapshot), spec)
    # The tick and the lag's own timer may both be due at its end: the lag is in one of two seconds then.
    assert max(one.client.lag.max_ns for one in after[:2]) >= 185e6
    # Whatever else holds the loop up does not do so all the time.
    assert min(interval.lag_ms for interval in result.total.intervals) < 185
    # A tenth of the time the loop was late: not one of two hundred timers.
    assert result.client.lag.percentile_ms(95) > 50  # type: ignore[operator]
    assert result.client.time.late_standing_s > 0.15
    codes = [reason.code for reason in judge(result).reasons]
    assert {"client_blocked", "client_starved"} & set(codes)
