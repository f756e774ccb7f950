"""How soon a pool is back after an outage, and what it did to the target meanwhile.

A proxy stands between each pool and the embedded PostgreSQL. It cuts all connections and lets no new one
through for exactly as long as the round says, and then passes again: from there the time runs until the
first client succeeds, and until all have. A client that fails rests for 25 to 75 ms, as those of `pool-bench
run` do. The lengths of the outages are spread evenly from `--shortest` to `--longest`, because a pool that
tries again at fixed times is back at once after some outages and late after others; each round gives the
same length to all contenders, in changing order.

- first, all: seconds since connections pass again.
- tries/s: connects that failed during the outage.
- at once: most connections that came in within 10 ms, from the moment they pass again until all clients
  have succeeded.

    uv run python benchmarks/recovery.py --rounds 12
    uv run python benchmarks/recovery.py --fault hole --shortest 0.2s --longest 1s
"""

import asyncio
import logging
import random
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

import click

from pool_bench.cli.options.types import Duration
from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.contenders.base import Contender
from pool_bench.faults import PASS, Conditions, FaultProxy, Mode
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import parse_target

NAMES: Final[tuple[ContenderName, ...]] = ("reference", "psycopg", "asyncpg")
FAULTS: Final = {str(mode): Conditions(mode=mode) for mode in (Mode.REFUSE, Mode.RESET, Mode.HOLE)}
REST_S: Final = (0.025, 0.075)
THINK_S: Final = 0.005
QUIET_S: Final = 0.5
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all contenders are put through alike."""

    size: int
    clients: int
    fault: Conditions
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of one outage; infinite where there was no end to it within `PATIENCE_S`."""

    first_s: float
    all_s: float
    tries_per_s: float
    at_once: int


class Clients:
    """Those who use a pool all the time, and when each has succeeded since the target is back."""

    def __init__(self, contender: Contender[object], count: int) -> None:
        self._contender = contender
        self._missing = set(range(count))
        self._back_ns: int | None = None
        self._over = False
        self.first_ns = 0
        self.all_ns = 0
        self.all_back = asyncio.Event()

    def back(self) -> int:
        """From now on successes count; returns the time."""
        self._back_ns = time.perf_counter_ns()
        return self._back_ns

    def stop(self) -> None:
        """Let each end its operation, and begin no other."""
        self._over = True

    async def run(self, number: int, rng: random.Random) -> None:
        """Be one of them until stopped."""
        contender = self._contender
        while not self._over:
            try:
                async with contender.lease() as leased:
                    await contender.execute(leased, "SELECT 1")
            except Exception:
                await asyncio.sleep(rng.uniform(*REST_S))
            else:
                self._succeeded(number)
                await asyncio.sleep(THINK_S)

    def _succeeded(self, number: int) -> None:
        if self._back_ns is None or self.all_back.is_set():
            return
        self.all_ns = time.perf_counter_ns()
        self.first_ns = self.first_ns or self.all_ns
        self._missing.discard(number)
        if not self._missing:
            self.all_back.set()


async def trial(name: ContenderName, server: EmbeddedPostgres, setting: Setting, outage_s: float) -> Trial:
    """One contender through one outage."""
    async with FaultProxy(server.host, server.port) as proxy:
        target = parse_target(
            proxy.url(user=server.user, application_name="recovery"), env={}, default_user="postgres"
        )
        config = ContenderConfig(target=target, size=setting.size, timeout_s=setting.timeout_s)
        contender = make(name, config)
        await contender.open()
        clients = Clients(contender, setting.clients)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(setting.clients):
                    group.create_task(clients.run(number, random.Random(number)))
                try:
                    return await _outage(proxy, contender, clients, setting.fault, outage_s)
                finally:
                    clients.stop()
        finally:
            async with asyncio.timeout(PATIENCE_S):
                await contender.close()


async def _outage(
    proxy: FaultProxy, contender: Contender[object], clients: Clients, fault: Conditions, outage_s: float
) -> Trial:
    await asyncio.sleep(QUIET_S)
    failed = contender.opens.failed
    proxy.set(fault)
    proxy.cut()
    await asyncio.sleep(outage_s)
    failed = contender.opens.failed - failed
    proxy.clear_counts()
    proxy.set(PASS)
    back_ns = clients.back()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await clients.all_back.wait()
        all_s = (clients.all_ns - back_ns) / 1e9
    except TimeoutError:
        all_s = float("inf")
    return Trial(
        first_s=(clients.first_ns - back_ns) / 1e9 if clients.first_ns else float("inf"),
        all_s=all_s,
        tries_per_s=failed / outage_s,
        at_once=proxy.counts.peak_accepts(0.01),
    )


def compare(
    names: tuple[ContenderName, ...], setting: Setting, outages_s: list[float]
) -> dict[ContenderName, list[Trial]]:
    """All contenders through all outages, in turn."""
    trials: dict[ContenderName, list[Trial]] = {name: [] for name in names}
    with (
        EmbeddedPostgres() as server,
        click.progressbar(length=len(outages_s) * len(names), label="measuring", file=sys.stderr) as progress,
    ):
        for number, outage_s in enumerate(outages_s):
            for name in names if number % 2 == 0 else reversed(names):
                trials[name].append(asyncio.run(trial(name, server, setting, outage_s)))
                progress.update(1)
    return trials


def show(trials: dict[ContenderName, list[Trial]]) -> None:
    """Print the table."""
    print(f"{'':12}{'first s':>9}{'min-max':>14}{'all s':>9}{'min-max':>14}{'tries/s':>9}{'at once':>9}")
    for name, taken in trials.items():
        row = f"{name:12}"
        for figures in ([one.first_s for one in taken], [one.all_s for one in taken]):
            row += f"{statistics.median(figures):>9.3f}{f'{min(figures):.3f}-{max(figures):.3f}':>14}"
        tries = statistics.median(one.tries_per_s for one in taken)
        print(f"{row}{tries:>9.1f}{max(one.at_once for one in taken):>9}")


@click.command()
@click.option("--rounds", default=12, show_default=True, help="Outages for each contender.")
@click.option("--shortest", type=Duration(), default="1s", show_default=True, help="Shortest outage.")
@click.option("--longest", type=Duration(), default="5s", show_default=True, help="Longest outage.")
@click.option(
    "--fault",
    type=click.Choice(list(FAULTS)),
    default="refuse",
    show_default=True,
    help="What happens to connects meanwhile.",
)
@click.option("--size", default=10, show_default=True, help="Connections of each pool.")
@click.option("--clients", default=20, show_default=True, help="Tasks that use it.")
@click.option("--timeout", type=Duration(), default="5s", show_default=True, help="Of each acquire.")
@click.option("--pool", "pools", type=click.Choice(NAMES), multiple=True, help="Only these; repeatable.")
@click.option("--seed", default=0, show_default=True, help="Order in which the outages come.")
def main(
    rounds: int,
    shortest: float,
    longest: float,
    fault: str,
    size: int,
    clients: int,
    timeout: float,
    pools: tuple[ContenderName, ...],
    seed: int,
) -> None:
    """Measure against the embedded PostgreSQL."""
    outages_s = [shortest + (longest - shortest) * (k + 0.5) / rounds for k in range(rounds)]
    random.Random(seed).shuffle(outages_s)
    # Every pool has words for each failed connect, by the hundred.
    logging.disable()
    setting = Setting(size=size, clients=clients, fault=FAULTS[fault], timeout_s=timeout)
    show(compare(pools or NAMES, setting, outages_s))


if __name__ == "__main__":
    main()
