"""Which load holds connections as a spec says."""

from pool_bench.load.hold.load import HoldLoad
from pool_bench.load.resident import make_resident_bytes
from pool_bench.load.spec import HoldSpec


def make_hold_load(spec: HoldSpec) -> HoldLoad:
    """The load that `spec` describes.

    Raises:
        UsageError: a certificate file is unusable, or the query cannot be sent.
    """
    if spec.driver == "wire":
        from pool_bench.drivers.wire.plan import make_plan
        from pool_bench.load.hold.wire import WireHoldLoad
        from pool_bench.pgwire import ScramKeyCache

        cache = ScramKeyCache() if spec.scram_cache else None
        plans = tuple(
            make_plan(target, query=spec.keepalive_query, cache=cache, source_ips=spec.source_ips)
            for target in spec.postgres_targets
        )
        return WireHoldLoad(spec, plans, make_resident_bytes())
    from pool_bench.load.drivers import make_drivers
    from pool_bench.load.hold.tasks import TaskHoldLoad

    if spec.driver == "surrealdb":
        from pool_bench.drivers.surreal.client import check_holdable

        for target in spec.surreal_targets:
            check_holdable(target)
    return TaskHoldLoad(spec, make_drivers(spec), make_resident_bytes())
