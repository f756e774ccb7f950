"""What `runs[]` says of a pool under load, read back: typed and checked."""

from dataclasses import dataclass

from pool_bench.results.fields import Fields
from pool_bench.stats.checkouts import Recovery
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import PoolSetting


@dataclass(frozen=True, slots=True)
class LoadedFairness:
    """Who was served when; names as in `Fairness`.

    Attributes:
        client_waits_ms: mean wait of the client that waited least, the median one, the one that waited
            most; None where nobody was served.
    """

    granted: int
    overtaken: int
    starved: int
    index: float | None
    neighbours: Histogram
    client_waits_ms: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class LoadedStretch:
    """One entry of `checkout.timeline`: seconds, counts, milliseconds."""

    t: float
    clients: int
    connections: int
    opened: int
    wait_p50: float | None
    wait_p99: float | None


@dataclass(frozen=True, slots=True)
class LoadedCheckout:
    """A pool under load; names and units as in `CheckoutStats`."""

    setting: PoolSetting
    version: str
    behaviour: str
    opened: int
    open_failed: int
    opening_peak: int
    size_peak: int
    open_s: float
    close_s: float
    base_rss_bytes: int
    fairness: LoadedFairness
    bursts: Histogram
    recovery: Recovery | None
    timeline: tuple[LoadedStretch, ...]


def read_checkout(run: Fields) -> LoadedCheckout:
    """What a run that has `checkout` says of its pool.

    Raises:
        UsageError: a field is missing or wrong.
    """
    fields = run.fields("checkout")
    return LoadedCheckout(
        setting=_setting(run),
        version=fields.text("version"),
        behaviour=fields.text("manner"),
        opened=fields.count("opened"),
        open_failed=fields.count("open_failed"),
        opening_peak=fields.count("opening_peak"),
        size_peak=fields.count("size_peak"),
        open_s=fields.number("open_s"),
        close_s=fields.number("close_s"),
        base_rss_bytes=fields.count("base_rss_bytes"),
        fairness=_fairness(fields.fields("fairness")),
        bursts=fields.histogram("bursts_histogram"),
        recovery=_recovery(fields.fields("recovery")) if fields.has("recovery") else None,
        timeline=tuple(_stretch(item) for item in fields.items("timeline")),
    )


def _setting(run: Fields) -> PoolSetting:
    return PoolSetting(
        name=run.text("pool"),
        scenario=run.text("scenario"),
        clients=run.count("clients"),
        size=run.count("size"),
        reset=run.text("reset"),
        prepared=run.flag("prepared") if run.has("prepared") else True,
        query=run.text("query") if run.has("query") else None,
        hold_s=run.number("hold_s"),
        timeout_s=run.number("timeout_s"),
        round=run.count("round"),
    )


def _fairness(fields: Fields) -> LoadedFairness:
    waits = fields.fields("client_waits_ms") if fields.has("client_waits_ms") else None
    granted = fields.count("granted")
    overtaken = fields.count("overtaken")
    if overtaken > granted:
        raise fields.wrong("overtaken", f"is {overtaken:,}, but only {granted:,} were granted")
    return LoadedFairness(
        granted=granted,
        overtaken=overtaken,
        starved=fields.count("starved"),
        index=fields.optional_number("index"),
        neighbours=fields.histogram("neighbours_histogram"),
        client_waits_ms=None
        if waits is None
        else (waits.number("min"), waits.number("p50"), waits.number("max")),
    )


def _recovery(fields: Fields) -> Recovery:
    return Recovery(
        stopping_s=fields.number("stopping_s"),
        down_s=fields.optional_number("down_s"),
        up_s=fields.optional_number("up_s"),
        first_s=fields.optional_number("first_s"),
        all_s=fields.optional_number("all_s"),
        recovered=fields.count("recovered"),
        clients=fields.count("clients"),
        opening_peak=fields.count("opening_peak"),
        opened=fields.count("opened"),
        failed=fields.count("failed"),
    )


def _stretch(fields: Fields) -> LoadedStretch:
    return LoadedStretch(
        t=fields.number("t"),
        clients=fields.count("clients"),
        connections=fields.count("connections"),
        opened=fields.count("opened"),
        wait_p50=fields.optional_number("wait_p50"),
        wait_p99=fields.optional_number("wait_p99"),
    )
