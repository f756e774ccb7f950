"""What the generator cost, in the result file: `runs[].client`."""

from dataclasses import dataclass
from typing import Self

from pool_bench.results.parts import Count, Number, Text, figure, record, rounded
from pool_bench.stats.client_time import ClientTime
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import RunResult


@dataclass(frozen=True, slots=True)
class LagRecord:
    """How late the event loop was, milliseconds; None where nobody looked."""

    p50: Number | None
    p99: Number | None
    max: Number | None


@dataclass(frozen=True, slots=True)
class PausesRecord:
    """The garbage collector's runs."""

    pauses: Count
    total_ms: Number
    max_ms: Number

    @classmethod
    def of(cls, pauses: Histogram) -> Self:
        """The record of `pauses`."""
        return cls(pauses.count, figure(pauses.total_s * 1e3), figure(pauses.max_ns / 1e6))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeRecord:
    """Where the generator's time went, by the kernel's account; as in `ClientTime`, seconds.

    Attributes:
        waited_for_cpu_s: its `waited_s`; machine_busy_s: its `busy_s`.
    """

    seen_s: Number
    waited_for_cpu_s: Number
    late_waiting_s: Number
    late_running_s: Number
    late_standing_s: Number
    throttled_s: Number
    stolen_s: Number
    machine_busy_s: Number
    suspended_s: Number
    suspensions: Count
    cores: Number

    @classmethod
    def of(cls, time: ClientTime) -> Self | None:
        """The record of `time`; None where the kernel does not tell."""
        if not time.seen_s:
            return None
        return record(cls, time, waited_for_cpu_s=figure(time.waited_s), machine_busy_s=figure(time.busy_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """What the generator cost; `why` says how it was at a limit, `saturated` that it was the bottleneck."""

    cpu_s: Number
    cpu_us_per_op: Number | None
    cpu_percent: Number | None = None
    rss_mb: Number | None
    loop_lag_ms: LagRecord | None = None
    gc: PausesRecord | None = None
    event_loop: Text = ""
    saturated: bool
    state: Text = ""
    why: Text | None = None
    time: ClientTimeRecord | None = None
    port_searches: Count = 0

    @property
    def cpu_words(self) -> str:
        """Its CPU time as a share of one core, such as `15%`."""
        return f"{(self.cpu_percent or 0.0) / 100:.0%}"

    @classmethod
    def of(cls, run: RunResult) -> Self:
        """The record of the client of `run`."""
        client = run.client
        lag = client.lag.percentiles_ms((50, 99, 100))
        return cls(
            cpu_s=figure(client.cpu_s),
            cpu_us_per_op=rounded(run.cpu_us_per_op),
            cpu_percent=figure(client.cpu_share * 100),
            rss_mb=figure(client.rss_bytes / 2**20),
            loop_lag_ms=LagRecord(*map(rounded, lag)),
            gc=PausesRecord.of(client.pauses),
            event_loop=run.event_loop,
            saturated=run.saturation is not None,
            state=str(run.client_state),
            why=run.client_trouble,
            time=ClientTimeRecord.of(client.time),
            port_searches=client.port_searches,
        )
