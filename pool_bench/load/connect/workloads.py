"""Which load opens and closes connections as a spec says."""

from pool_bench.load.spec import ConnectSpec
from pool_bench.load.splitting import splits_of
from pool_bench.load.workload import MeasuredLoad, Recorders


def make_connect_load(spec: ConnectSpec) -> MeasuredLoad:
    """The load that `spec` describes.

    Raises:
        UsageError: a certificate file is unusable, or the query cannot be sent.
    """
    return _dial_load(spec) if spec.driver == "wire" else _task_load(spec)


def _dial_load(spec: ConnectSpec) -> MeasuredLoad:
    from pool_bench.drivers.wire.plan import make_plan
    from pool_bench.load.connect.dials import CycleLoad
    from pool_bench.load.connect.open_dials import OpenCycleLoad
    from pool_bench.pgwire import ScramKeyCache

    cache = ScramKeyCache() if spec.scram_cache else None
    plans = tuple(
        make_plan(target, query=spec.query, cache=cache, source_ips=spec.source_ips)
        for target in spec.postgres_targets
    )
    phases = tuple(plan.phases for plan in plans)
    open_loop = spec.open_loop
    recorders = Recorders(phases, responses=open_loop is not None, by_address=splits_of(spec))
    if open_loop is None:
        return CycleLoad(spec, plans, recorders)
    return OpenCycleLoad(spec, open_loop, plans, recorders)


def _task_load(spec: ConnectSpec) -> MeasuredLoad:
    from pool_bench.load.connect.open_tasks import OpenWorkerLoad
    from pool_bench.load.connect.tasks import WorkerLoad
    from pool_bench.load.drivers import make_drivers, phases_of

    drivers = make_drivers(spec)
    phases = tuple(phases_of(driver, query=bool(spec.query)) for driver in drivers)
    open_loop = spec.open_loop
    recorders = Recorders(phases, responses=open_loop is not None, by_address=splits_of(spec))
    if open_loop is None:
        return WorkerLoad(spec, drivers, recorders)
    return OpenWorkerLoad(spec, open_loop, drivers, recorders)
