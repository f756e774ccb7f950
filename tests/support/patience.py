"""How long the watching waits where a test is not about that."""

from typing import Final

# A machine that stands still for a while is not a server that does not answer.
PATIENT: Final = {
    "pool_bench.watch.postgres.client._PATIENCE_S": 30.0,
    "pool_bench.watch.postgres.client._CONNECT_TIMEOUT_S": 30,
    "pool_bench.watch.postgres.sampler.CLOSE_WAIT_S": 30.0,
    "pool_bench.watch.postgres.sampler._POOLED_PATIENCE_S": 30.0,
    "pool_bench.watch.postgres.client.CLOSE_WAIT_S": 30.0,
    "pool_bench.watch.postgres.route.CLOSE_WAIT_S": 30.0,
    "pool_bench.watch.machine.cpu._SHORTEST_S": 0.0,
    "pool_bench.watch.machine.memory._BUDGET_S": 30.0,
    "pool_bench.watch.postgres.backends._START_TOLERANCE_S": 30.0,
    "pool_bench.watch.watcher.START_WAIT_S": 60.0,
    "pool_bench.watch.watcher.STOP_WAIT_S": 60.0,
    "pool_bench.watch.watcher._GONE_WAIT_S": 30.0,
}
