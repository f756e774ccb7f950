import io
import subprocess
import sys

from pool_bench.report.live.lines import OperationLineView
from pool_bench.report.live.operation_terminal import OperationTerminalView
from pool_bench.report.live.view import LiveView, QuietView, make_view
from tests.support.results.runs import snapshot_of, stats_of


def test_a_terminal_gets_rich_a_pipe_gets_lines_and_quiet_gets_nothing() -> None:
    stream = io.StringIO()
    assert isinstance(make_view(stream, stream_is_terminal=True), OperationTerminalView)
    assert isinstance(make_view(stream, stream_is_terminal=False), OperationLineView)
    assert isinstance(make_view(stream, stream_is_terminal=True, quiet=True), QuietView)


def test_the_quiet_view_writes_nothing() -> None:
    stream = io.StringIO()
    view: LiveView = make_view(stream, stream_is_terminal=False, quiet=True)
    view.begin_run("c", 1, 1, 1.0, 0.0)
    view.update(snapshot_of(stats_of([1.0])))
    view.message("hello")
    view.end_run()
    view.close()
    assert stream.getvalue() == ""


def test_what_a_command_line_imports_brings_neither_matplotlib_nor_rich() -> None:
    code = (
        "import pg_connection_bench, pg_connection_load, surreal_bench, pool_bench.__main__\n"
        "from pool_bench.cli.commands import connect, hold, pool_size, pools\n"
        "import sys\n"
        "print([name for name in ('matplotlib', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
