"""Measures what this client costs by itself: runs against a server that answers at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from pool_bench.drivers.base import DRIVER_NAMES, SURREAL_DRIVER_NAMES, DriverName
from pool_bench.drivers.network.tls import default_file
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.server import ScriptedPostgres, ScriptedSurreal
from pool_bench.servers.scripted.tls import can_make_certificates
from pool_bench.stats.calibration import Calibration, ClientFloor
from pool_bench.targets import Target
from pool_bench.targets.postgres import SslMode, parse_target
from pool_bench.targets.surreal import AuthMode

_WARMUP_S = 0.3
_GRACE_S = 2.0

Protocol = Literal["ws", "http"]
_VERIFYING = ("verify-ca", "verify-full")


def settings_for(
    driver: DriverName, levels: Sequence[int], *, auth: AuthMode = "signin"
) -> tuple[tuple[DriverName, int], ...]:
    """What to calibrate for runs of `driver` at `levels`: each driver alone and at the highest level, this
    driver at every level. All of them speak to the same sort of server, and can sign in as `auth` says.
    """
    order = list(DRIVER_NAMES)
    if driver in SURREAL_DRIVER_NAMES:
        order = [name for name in SURREAL_DRIVER_NAMES if auth == "signin" or name == "surreal"]
    wanted = {(name, level) for name in order for level in (1, max(levels))}
    wanted |= {(driver, level) for level in levels}
    return tuple(sorted(wanted, key=lambda one: (order.index(one[0]), one[1])))


def calibrate(
    settings: Sequence[tuple[DriverName, int]],
    stop: StopSwitch,
    *,
    seconds: float,
    query: str | None = None,
    auth: AuthMode = "signin",
    protocol: Protocol = "ws",
    sslmode: SslMode = "disable",
    begin: Callable[[DriverName, int], None] = lambda driver, concurrency: None,
) -> Calibration:
    """Measure the floor of each of `settings`, driver and concurrency.

    Args:
        settings: what to measure, in this order; drivers of one sort of server.
        stop: ends it early; what was measured by then is returned.
        seconds: how long to measure each.
        query: run on each connection, as in the runs to come; None for none.
        auth: how drivers of SurrealDB sign in.
        protocol: what they speak.
        sslmode: how drivers of PostgreSQL come to the server, in the runs to come; without a way to make a
            certificate here it is `disable`, and the result says so.
        begin: told what is measured next.

    Raises:
        ServerStartError: the null server does not start.
        GeneratorError: a generator process failed.
    """
    is_surreal = settings[0][0] in SURREAL_DRIVER_NAMES
    has_tls = sslmode != "disable" and can_make_certificates()
    floors = []
    with _null_server(protocol if is_surreal else None, auth, sslmode if has_tls else "disable") as (
        server,
        target,
    ):
        for driver, concurrency in settings:
            begin(driver, concurrency)
            before = server.truth()
            spec = ConnectSpec(
                targets=(target,),
                driver=driver,
                concurrency=concurrency,
                warmup_s=_WARMUP_S,
                duration_s=seconds,
                grace_s=_GRACE_S,
                query=query,
                auth=auth,
            )
            run = Run(spec, f"{driver} c{concurrency}", stop)
            for _ in run.snapshots():
                continue
            after = server.truth()
            if stop.requested:
                break
            result = run.result
            floors.append(
                ClientFloor(
                    driver=driver,
                    concurrency=concurrency,
                    latency=result.total.latency,
                    throughput=result.throughput,
                    cpu_us_per_op=result.cpu_us_per_op,
                    client_cpu_share=result.client.cpu_share,
                    # Over the warm-up, too, and the start of the generator, in which nothing is asked of it.
                    server_cpu_share=(after.cpu_s - before.cpu_s) / (result.warmup_s + result.duration_s),
                    failed=result.total.failed,
                )
            )
    steps = "connect, query, close" if query else "connect, close"
    way = f"TCP on this machine, trust, {'TLS' if has_tls else 'no TLS'}"
    if sslmode != "disable" and not has_tls:
        way += ", as there is no openssl here to make a certificate with"
    if is_surreal:
        carrier = "a WebSocket" if protocol == "ws" else "HTTP"
        way = f"{carrier} on this machine, auth {auth} with no hashing, no TLS"
    return Calibration(operation=f"{steps} over {way}", seconds=seconds, floors=tuple(floors))


@contextmanager
def _null_server(
    protocol: Protocol | None, auth: AuthMode, sslmode: SslMode
) -> Iterator[tuple[ScriptedPostgres | ScriptedSurreal, Target]]:
    """A server that answers at once, and itself as a target; PostgreSQL's where `protocol` is None."""
    if protocol is None:
        with ScriptedPostgres(tls=sslmode != "disable") as postgres:
            options = f"sslmode={sslmode}"
            if sslmode in _VERIFYING or (sslmode != "disable" and default_file("root.crt") is not None):
                # A certificate file in the user's own place would be looked into, which has not this one.
                options += f"&sslrootcert={postgres.certificate}"
            yield postgres, parse_target(postgres.url(options), env={}, default_user="known")
    else:
        with ScriptedSurreal() as surreal:
            yield surreal, surreal.target(protocol, anonymous=auth == "none")
