import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.report.markdown import escape, markdown_table
from pool_bench.report.summary.session_markdown import session_markdown
from pool_bench.results.model import from_session
from pool_bench.results.session import Session
from pool_bench.results.thresholds import judge_run, known_fields, read_thresholds
from pool_bench.stats.operations import FailureCount
from tests.support.results.holds import held_run, restarted, watched
from tests.support.results.runs import REFUSED, run_of, session_of, stats_of, typical_run

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "a | b | c",
    "line\nbreak | --- |",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "https://evil.example and www.evil.example",
    "@everyone #1 `code` **bold** _it_ ~~gone~~ $x^2$ \\| \x1b[31m",
    "# heading",
    "- item",
    "1. item",
    "<!-- comment",
    "&lt;b&gt;",
)


def rows_of(markdown: str) -> list[list[str]]:
    return [
        [html.unescape(cell.strip()) for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]


def session_with_message(message: str) -> Session:
    stats = stats_of([3.0] * 900, failures={REFUSED: 7})
    stats.failures[REFUSED] = FailureCount(7, message)
    return session_of(run_of(stats), name=message)


@pytest.mark.parametrize("message", HOSTILE)
def test_a_servers_message_is_text_in_one_cell_and_nothing_else(message: str) -> None:
    markdown = session_markdown(from_session(session_with_message(message)))
    widths = [len(row) for row in rows_of(markdown)]
    calm = [
        len(row)
        for row in rows_of(session_markdown(from_session(session_with_message("Connection refused"))))
    ]
    assert widths == calm
    assert not re.search(r"[<>`\[\]$~]|\*\*\w+\*\*:?//|https?://|www\.", markdown.replace("**", ""))
    (row,) = [row for row in rows_of(markdown) if "refused" in row]
    assert row[3] == "7"
    plain = " ".join(re.sub(r"[\x00-\x1f]", " ", message).split())
    assert row[-1].replace("\u2060", "") == plain


@given(st.text(max_size=60))
def test_escaping_loses_nothing_that_can_be_printed_and_leaves_no_markup(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped
    assert not re.search(r"[<>`*_\[\]|\\~@$]", escaped)
    assert re.sub(r"&#\d+;", "", escaped).count("&") == 0
    again = html.unescape(escaped).replace("\u2060", "")
    assert again.split() == "".join(again).split()


def test_numbers_stay_readable() -> None:
    for words in ("-47.9%", "+1.2%", "9.02 ms", "1,024", "2026-11-21T02:30:00", "c8 driver=asyncpg"):
        assert escape(words) == words


def test_a_table_has_as_many_cells_in_each_row_as_in_its_head() -> None:
    rows = rows_of(markdown_table(("a", "b|c"), [("1", "2"), ("|", "\n")], left=(0,)))
    assert rows == [["a", "b|c"], [":--", "--:"], ["1", "2"], ["|", ""]]


def test_the_summary_has_headline_thresholds_percentiles_failures_settings_and_host() -> None:
    run = typical_run(2000)
    session = session_of(run, name="nightly")
    session.thresholds = judge_run(read_thresholds(["p99<1ms", "ok>1"], known_fields()), run)
    markdown = session_markdown(from_session(session))
    assert markdown.startswith("## pg-connection-bench: nightly\n\n**67 connections/s** at concurrency 50")
    assert "### Thresholds: 1 of 2 failed" in markdown
    rows = rows_of(markdown)
    assert [run.label, "p99<1ms", *rows[2][2:4], "FAILED"] in rows
    assert ["run", "min", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max", "mean"] in rows
    assert [
        run.label,
        "too_many_connections",
        "auth",
        "53300",
        "210",
        "sorry, too many clients already",
    ] in rows
    assert ["server", "PostgreSQL 18.1"] in rows
    assert any(row[0] == "host" and "CPUs" in row[1] for row in rows)


def test_held_connections_are_in_the_summary() -> None:
    markdown = session_markdown(from_session(session_of(held_run(restarted(), server_side=watched()))))
    assert "### Held connections" in markdown
    assert ["hold 500", "500", "500", "536", "0.405", "0.781", "1m"] in rows_of(markdown)


def test_a_session_that_measured_nothing_says_so() -> None:
    assert "**Nothing was measured.**" in session_markdown(from_session(session_of()))
