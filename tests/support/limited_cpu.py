"""Measures a server of known behaviour in a process that is short of something; prints what was found.

    python -m tests.truth.limited LIMITS

LIMITS is JSON: `files` (file descriptors the generator may open), `ports` (local ports there are; only in a
network namespace of its own), and `driver`, `concurrency`, `duration_s`.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

from pool_bench.analysis.verdict import judge
from pool_bench.cli import limits as machine
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.targets.postgres import parse_target


def main() -> None:
    """Set the limits, measure, print."""
    limits = json.loads(sys.argv[1])
    if "ports" in limits:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        first = 40_000
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{first} {first + limits['ports'] - 1}")
    with ScriptedPostgres(Behaviour(auth=Fixed(0.1))) as server:
        target = parse_target(server.url(), env={}, default_user="nobody")
        spec = ConnectSpec(
            targets=(target,),
            driver=limits["driver"],
            concurrency=limits["concurrency"],
            warmup_s=0.0,
            duration_s=limits["duration_s"],
            seed=1,
        )
        note = machine.time_wait_note(
            (target,), spec.driver, concurrency=spec.concurrency, rate=None, seconds=1.0
        )
        if "files" in limits:
            # Inherited by the generator; the server has started already.
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits["files"], limits["files"]))
        run = Run(spec, "limited", StopSwitch())
        for _ in run.snapshots():
            continue
        truth = server.truth()
    result = run.result
    found = {
        "ok": result.total.ok,
        "served": truth.served,
        "failed": result.total.failed,
        "errors": {str(kind): count for kind, count in result.total.errors.items()},
        "reasons": [str(reason.code) for reason in judge(result).reasons],
        "note": note,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
