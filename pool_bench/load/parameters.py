"""What a run was asked to do, as plain values: what makes another run one of the same thing, or not.

The names are those of `runs[].parameters` in the result file. Who measured what is not among them: target,
driver and pool are fields of their own.
"""

import math
from typing import TypeAlias, assert_never

from pool_bench.drivers.base import SURREAL_DRIVER_NAMES
from pool_bench.load.arrivals import Profile
from pool_bench.load.spec import ConnectSpec, HoldSpec, OpenLoop, PoolSpec, Spec

Parameters: TypeAlias = dict[str, str | int | float | bool]


def parameters_of(spec: Spec) -> Parameters:
    """The parameters of a run of `spec`; durations in seconds, rates per second."""
    several: Parameters = {"processes": spec.processes} if spec.processes > 1 else {}
    match spec:
        case HoldSpec():
            return {**_held(spec), **several}
        case PoolSpec():
            # What load it was is in fields of its own, `runs[].scenario` and those beside it.
            return {**_timing(spec), **_schedule(spec.open_loop, spec.clients), **several}
        case ConnectSpec():
            return {**_cycles(spec), **several}
        case _:
            assert_never(spec)


def _cycles(spec: ConnectSpec) -> Parameters:
    return {
        **({"concurrency": spec.concurrency} if spec.open_loop is None else {}),
        **_schedule(spec.open_loop, spec.concurrency),
        "query": spec.query or "",
        **_sign_in(spec),
        "resolve": "once" if spec.resolve_once else "each",
        "connect_timeout_s": spec.connect_timeout_s,
        **_timing(spec),
    }


def _held(spec: HoldSpec) -> Parameters:
    opening: Parameters = {"open_rate": spec.rate} if spec.rate else {"batch_size": spec.batch_size}
    if not spec.rate and spec.batch_pause_s:
        opening["batch_pause_s"] = spec.batch_pause_s
    asking: Parameters = {"keepalive_s": spec.keepalive_s}
    if spec.keepalive_s or spec.active:
        asking |= {"keepalive_query": spec.keepalive_query or "ping", "active": spec.active}
    return {
        "connections": spec.concurrency,
        **opening,
        "open_concurrency": spec.open_concurrency,
        **asking,
        "reconnect": spec.reconnect,
        **_sign_in(spec),
        "source_ips": len(spec.source_ips),
        "connect_timeout_s": spec.connect_timeout_s,
        "duration_s": spec.duration_s,
    }


def _timing(spec: ConnectSpec | PoolSpec) -> Parameters:
    return {"duration_s": spec.duration_s, "warmup_s": spec.warmup_s}


def _sign_in(spec: ConnectSpec | HoldSpec) -> Parameters:
    if spec.driver in SURREAL_DRIVER_NAMES:
        return {"auth": spec.auth}
    return {"scram_cache": spec.scram_cache} if spec.driver == "wire" else {}


def _schedule(open_loop: OpenLoop | None, max_in_flight: int) -> Parameters:
    if open_loop is None:
        return {}
    return {
        "shape": _shape(open_loop.profile),
        "arrivals": open_loop.spacing,
        "max_in_flight": max_in_flight,
    }


def _shape(profile: Profile) -> str:
    """Rates in turn, such as `500/s`, or `100..2000/s for 10s, 500/s`."""
    words = []
    for leg in profile.legs:
        rates = f"{leg.first:g}" if leg.first == leg.last else f"{leg.first:g}..{leg.last:g}"
        lasts = f" for {leg.seconds:g}s" if math.isfinite(leg.seconds) else ""
        words.append(f"{rates}/s{lasts}")
    return ", ".join(words)
