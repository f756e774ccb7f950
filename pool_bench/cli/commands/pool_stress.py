"""What many clients may expect of the reference pool, as thresholds that decide the exit code."""

import sys
from dataclasses import replace

from pool_bench.cli.commands.pools import PoolPlan
from pool_bench.cli.options.pool import PoolOptions, Timing
from pool_bench.cli.options.shared import SessionOptions
from pool_bench.cli.places.base import Place
from pool_bench.report.summary.acceptance import targets


def stress_plan(
    *,
    tool: str,
    place: Place,
    session: SessionOptions,
    clients: tuple[int, ...],
    size: int,
    query: str,
    timing: Timing,
    watch: bool | None = None,
) -> PoolPlan:
    """The reference pool under each number of `clients`, judged by the targets of `stress`.

    A threshold of the user's takes the place of the target on the same field.

    Raises:
        UsageError: a threshold is malformed.
    """
    options = PoolOptions(
        pools=("reference",),
        scenarios=("stress",),
        clients=clients[0],
        size=size,
        hold_s=None,
        query=query,
        reset="own",
    )
    own = session.checks.read(pool=True)
    named = {threshold.field for threshold in own}
    asked = [threshold for _, threshold in targets(timing.timeout_s, own) if threshold.field not in named]
    # Only there are a pool's sockets told apart from others.
    asked = [one for one in asked if one.field != "checkout.left_open" or sys.platform == "linux"]
    checks = replace(session.checks, texts=(*session.checks.texts, *(one.text for one in asked)))
    return PoolPlan(
        tool=tool,
        place=place,
        session=replace(session, checks=checks),
        watch=watch,
        options=options,
        timing=timing,
        spec=options.spec(place.targets, timing),
        stress=clients,
    )
