"""Which workload does what a spec says. What the others need is not imported."""

from typing import assert_never

from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec, Spec
from pool_bench.load.workload import ServerEvents, Workload


def make_workload(spec: Spec, server_events: ServerEvents) -> Workload:
    """The workload that `spec` describes; to be called where the event loop runs.

    Args:
        server_events: where it learns what happens to its server.

    Raises:
        UsageError: a certificate file is unusable, or the query cannot be sent.
    """
    match spec:
        case ConnectSpec():
            from pool_bench.load.connect.workloads import make_connect_load

            return make_connect_load(spec)
        case HoldSpec():
            from pool_bench.load.hold.workloads import make_hold_load

            return make_hold_load(spec)
        case PoolSpec():
            from pool_bench.load.pool.workload import PoolWorkload

            return PoolWorkload(spec, server_events)
        case _:
            assert_never(spec)
