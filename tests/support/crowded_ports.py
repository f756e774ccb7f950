"""Connects from a machine with few local ports, of which many are in use; prints what was found.

    python -m tests.drivers.crowded ARGUMENTS

In a network namespace of its own. ARGUMENTS is JSON: `ports` (local ports there are), `held` (connections
that are held by sockets the kernel chose the ports of), `driver`, `seconds`, and `supported`: false stands
for a kernel without IP_LOCAL_PORT_RANGE, which refuses the option.
"""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from pool_bench.drivers.network import local_ports
from pool_bench.load.generator import generate
from pool_bench.load.process import loop_factory
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.runs import Snapshot
from pool_bench.targets.postgres import parse_target

FIRST = 40_000


def refuse(arguments: dict[str, object]) -> None:
    """Stand for an old kernel: an option that it does not know either."""
    if not arguments["supported"]:
        unknown = 1000
        with socket.socket() as sock, suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, unknown, b"\0\0\0\0")
            raise AssertionError("there is such an option")
        local_ports._IP_LOCAL_PORT_RANGE = unknown  # type: ignore[misc]


def main() -> None:
    """Set the scene, connect, print."""
    arguments = json.loads(sys.argv[1])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    last = FIRST + arguments["ports"] - 1
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{FIRST} {last}")
    refuse(arguments)
    snapshots: list[Snapshot] = []
    with ScriptedPostgres(Behaviour(auth=Fixed(0.005))) as server, ExitStack() as held:
        target = parse_target(server.url(), env={}, default_user="nobody")
        host = target.hosts[0]
        ports = []
        for _ in range(arguments["held"]):
            sock = held.enter_context(socket.create_connection((host.name, host.port)))
            ports.append(sock.getsockname()[1])
        spec = ConnectSpec(
            targets=(target,),
            driver=arguments["driver"],
            concurrency=2,
            warmup_s=0.0,
            duration_s=arguments["seconds"],
            seed=1,
        )
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_generate(spec, snapshots))
    found = {
        "even": sum(port % 2 == 0 for port in ports),
        "ok": sum(stats.ok for one in snapshots for stats in one.targets),
        "failed": sum(stats.failed for one in snapshots for stats in one.targets),
        "searches": sum(one.client.port_searches for one in snapshots),
    }
    print(json.dumps(found))


async def _generate(spec: ConnectSpec, snapshots: list[Snapshot]) -> None:
    await generate(spec, snapshots.append, asyncio.Event())


if __name__ == "__main__":
    main()
