"""The reports of connections that a real server held, and refused."""

import io
import re

from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import HoldSpec
from pool_bench.report.live.view import make_hold_view
from pool_bench.report.plot.figures import plot
from pool_bench.report.summary.hold import hold_summary
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import parse_target
from tests.support.results.holds import hold_session


def test_all_reports_of_a_run_that_met_the_limit_agree(embedded: EmbeddedPostgres) -> None:
    target = parse_target(embedded.url, env={}, default_user="postgres")
    spec = HoldSpec(targets=(target,), connections=(130,), duration_s=1.0, keepalive_s=0.2)
    stop, stream = StopSwitch(), io.StringIO()
    try:
        run = Run(spec, "hold 130", stop)
        view = make_hold_view(stream, stream_is_terminal=False, asked=130)
        view.begin_run("hold 130", 1, 1, spec.duration_s, 0.0)
        for snapshot in run.snapshots():
            view.update(snapshot)
        view.end_run()
    finally:
        stop.close()
    hold = run.result.hold
    assert hold is not None
    assert 0 < hold.opened <= 100
    refused = f"too_many_connections (53300) {130 - hold.opened}"
    lines = stream.getvalue().splitlines()
    assert f"asked 130, holding {hold.opened}: {refused}" in lines
    assert lines[-1].split()[1:4] == ["done", "0", "130"]
    text = hold_summary(RunRecord.of(run.result), asked=130)
    assert text.startswith(f"asked 130, held {hold.opened} at peak: {refused}\n")
    assert re.search(r"^keep-alive +\d", text, flags=re.MULTILINE)
    loaded = from_session(hold_session(run.result))
    read = loaded.runs[0].hold
    assert read is not None
    assert (read.connections, read.opened, read.closed, read.dropped) == (130, hold.opened, hold.opened, 0)
    assert read.keepalive_histogram.count == sum(second.keepalives for second in read.timeline) > 0
    assert plot([loaded]).startswith(b"\x89PNG")
