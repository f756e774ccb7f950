import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pool_bench.report.live.pool_monitor import HEADS, PoolRow, cells, header, line, picture

TITLE = (
    "demonstration, at postgresql://user@a-very-long-host-name.eu-central-1.rds.amazonaws.com:5432/database"
)


def row(
    name: str = "orders",
    *,
    waiters: float | None = 0,
    count: float | None = 7,
    ms: float | None = 0.003,
    health: str = "healthy",
) -> PoolRow:
    return PoolRow(
        name=name,
        state="running",
        health=health,
        breaker="off",
        size=count,
        max_size=count,
        idle=count,
        in_use=count,
        waiters=waiters,
        utilisation=0.2,
        rate=count,
        wait_p50_ms=ms,
        wait_p95_ms=ms,
        wait_p99_ms=ms,
        acquisitions=count,
        timeouts=count,
        connect_errors=count,
        leaks=count,
    )


def drawn(rows: list[PoolRow], width: int, trouble: str = "", *, outdated: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=50, force_terminal=True, highlight=False)
    with console.capture() as capture:
        console.print(picture(rows, width, TITLE, trouble, outdated=outdated))
    return capture.get().splitlines()


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", one).rstrip() for one in lines]


_counts = st.one_of(st.none(), st.floats(0, 1e6))


@example([row("\u093a")], 20, "")
@given(
    st.lists(st.builds(row, st.text(), waiters=_counts, count=_counts, ms=_counts), min_size=1, max_size=5),
    st.integers(20, 200),
    st.sampled_from(["", "cannot read http://127.0.0.1:9090/metrics: connection refused"]),
)
def test_no_line_is_wrapped_and_none_is_missing_whatever_the_width(
    rows: list[PoolRow], width: int, trouble: str
) -> None:
    lines = plain(drawn(rows, width, trouble))
    assert len(lines) == 2 + len(rows) + bool(trouble)
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (140, set()),
        (92, {"use%", "leaks", "p50_ms"}),
        (80, {"use%", "leaks", "p50_ms", "idle", "breaker"}),
        (60, {"use%", "leaks", "p50_ms", "idle", "breaker", "leases/s", "state"}),
    ],
)
def test_a_narrow_terminal_does_without_what_tells_least(width: int, left_out: set[str]) -> None:
    head = plain(drawn([row("demo")], width))[1].split()
    names = [name for name, _ in HEADS]
    assert head == [name for name in names if name not in left_out]


def test_a_long_name_leaves_room_for_the_figures() -> None:
    head, *rows = plain(drawn([row("x" * 200), row("orders")], 80))[1:]
    assert "errors" in head
    assert all(len(one) <= 80 for one in rows)


def test_trouble_is_said_below_and_what_is_outdated_is_dim() -> None:
    lines = drawn([row(waiters=3)], 100, "cannot read it", outdated=True)
    assert "cannot read it" in lines[-1]
    assert "\x1b[2m" in lines[-2]
    assert "\x1b[33m" in drawn([row(waiters=3)], 100)[-1]
    assert "\x1b[33m" not in drawn([row()], 100)[-1]
    assert "\x1b[31m" in drawn([row(waiters=3, health="critical")], 100)[-1]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, "-"), (0.003, "0.003"), (0.28, "0.280"), (9.5, "9.500"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_waits_have_digits_enough_and_no_more(ms: float | None, shown: str) -> None:
    assert cells(row(ms=ms))[9] == shown


def test_a_line_has_a_word_for_each_column() -> None:
    assert len(line(row("a pool", count=None, waiters=None, ms=None)).split()) == len(header(row()).split())
