import base64
import contextlib
import json
import math
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import UsageError
from pool_bench.results.read import load_result, parse_result
from pool_bench.results.write import dumps, session_to_json
from tests.support.results.runs import run_of, session_of, stats_of, typical_run

Json = dict[str, object]


def content() -> Json:
    return cast(Json, json.loads(dumps(session_to_json(session_of(typical_run(2000))))))


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_result(text, source="old.json")
    message = str(caught.value)
    assert message.startswith("old.json")
    assert "\n" not in message
    return message


# What a damaged or hostile file may hold where a figure, a name or an object was.
_WRONG: tuple[object, ...] = (
    *(None, -1, -5.5, math.nan, math.inf, 1e308, 10**30, 2**63 - 1, True, "", [], {}),
    *("x" * 20_000, "\x1b[31m\u202e", 10**5000),
)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON document, of a list's entries the first two."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            yield from places(inner, (*path, index))
    if path:
        yield path


@given(st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_whatever_stands_anywhere_is_read_or_refused_in_one_line(rng: random.Random) -> None:
    broken = content()
    path = rng.choice(list(places(broken)))
    holder: object = broken
    for step in path[:-1]:
        holder = cast(dict[str | int, object], holder)[step]
    cast(dict[str | int, object], holder)[path[-1]] = rng.choice(_WRONG)
    # Python writes no integer of that length, and reads none.
    sys.set_int_max_str_digits(0)
    text = json.dumps(broken)
    sys.set_int_max_str_digits(4300)
    complaint = "old.json"
    try:
        parse_result(text, source="old.json")
    except UsageError as error:
        complaint = str(error)
    assert complaint.startswith("old.json")
    assert "\n" not in complaint
    assert len(complaint) < 500


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("ok", -1, "runs[0].ok is not a count"),
        ("ok", 10**30, "runs[0].ok is not a count"),
        ("throughput", -1.0, "runs[0].throughput is negative"),
        ("throughput", math.nan, "runs[0].throughput is not a number"),
        ("throughput", None, "runs[0].throughput is not a number"),
        ("label", "x" * 20_000, "runs[0].label is longer than 10,000 characters"),
        ("errors", {"k" * 300: 1}, "runs[0].errors has a name of more than 200 characters"),
    ],
)
def test_figures_that_cannot_be_are_named(field: str, value: object, complaint: str) -> None:
    broken = content()
    cast(list[Json], broken["runs"])[0][field] = value
    assert complaint in refused(json.dumps(broken))


def test_text_from_a_file_steers_no_terminal() -> None:
    made = content()
    cast(list[Json], made["runs"])[0]["label"] = "c1\x1b]0;x\x07\u202eevil\u200b"
    assert parse_result(json.dumps(made), source="x").runs[0].label == "c1 ]0;x evil"


def test_a_histogram_that_unpacks_to_much_more_is_refused_unread() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    data = base64.b64encode(struct.pack(">II", 0x1C849304, len(bomb)) + bomb).decode()
    broken = content()
    cast(Json, cast(list[Json], broken["runs"])[0]["histogram"])["data"] = data
    tracemalloc.start()
    complaint = refused(json.dumps(broken))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "runs[0].histogram.data is not a readable histogram" in complaint
    assert peak < 10_000_000


def test_a_file_of_faults_is_refused_at_the_first() -> None:
    broken = content()
    cast(list[Json], broken["runs"])[0]["timeline"] = [{}] * 200_000
    text = json.dumps(broken)
    tracemalloc.start()
    complaint = refused(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "runs[0].timeline[0].t is missing" in complaint
    # What the file itself takes; each fault would take a kilobyte.
    assert peak < 100_000_000


def test_of_several_entries_the_wrong_one_is_named() -> None:
    broken = content()
    run = cast(list[Json], broken["runs"])[0]
    cast(Json, run["phases_ms"])["au\x1b[2Jth"] = {"min": "x"}
    assert "runs[0].phases_ms.au [2Jth.min is not a number" in refused(json.dumps(broken))


def test_more_histograms_than_any_run_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_bench.results.read._MAX_HISTOGRAMS", 2)
    assert "more than the 2 that a file may have" in refused(json.dumps(content()))


def test_a_file_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_bench.results.read._MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match=r"/dev/zero is not a result file: it is larger than 1 MB"):
        load_result(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*gone\.json: no such file"):
        load_result(tmp_path / "gone.json")
    with pytest.raises(UsageError, match="cannot read"):
        load_result(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match="not a result file"):
        load_result(path)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    assert "not JSON" in refused(text)


@pytest.mark.parametrize("levels", [200, 600, 900, 5000])
def test_what_is_nested_deeply_is_ignored_or_refused(levels: int) -> None:
    text = json.dumps(content()).replace('"name"', f'"newer": {"[" * levels}{"]" * levels}, "name"', 1)
    complaint = ""
    try:
        assert parse_result(text, source="old.json").runs
    except UsageError as error:
        complaint = str(error)
    assert complaint in ("", "old.json is not a result file: not JSON")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"name": "x"}'])
def test_json_of_something_else_is_refused(text: str) -> None:
    assert "names no schema" in refused(text)


def test_another_schema_is_named() -> None:
    assert "'pool-bench/2'" in refused('{"schema": "pool-bench/2"}')


@pytest.mark.parametrize("field", ["tool", "name", "started_at", "interrupted", "target", "server", "runs"])
def test_a_missing_field_is_named(field: str) -> None:
    broken = content()
    del broken[field]
    assert f"{field} is missing" in refused(json.dumps(broken))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ok", -1, "runs[0].ok is not a count"),
        ("ok", True, "runs[0].ok is not a count"),
        ("ok", 3, "holds 2,000 operations, but ok is 3"),
        ("throughput", "fast", "runs[0].throughput is not a number"),
        ("throughput", None, "runs[0].throughput is not a number"),
        ("latency_ms", {}, "runs[0].latency_ms.min is missing"),
        ("timeline", {}, "runs[0].timeline is not a list"),
        ("timeline", [3], "runs[0].timeline[0] is not an object"),
        ("errors", [], "runs[0].errors is not an object"),
        ("histogram", {"encoding": "csv", "unit": "us", "data": ""}, "has encoding 'csv'"),
        ("histogram", {"encoding": "hdr-v2-base64", "unit": "us", "data": "AAAA"}, "histogram.data is not"),
        ("histogram", {"encoding": "hdr-v2-base64", "unit": "us", "data": "€"}, "histogram.data is not"),
        ("interrupted", "no", "is not true or false"),
    ],
)
def test_a_wrong_field_of_a_run_is_named(field: str, value: object, words: str) -> None:
    broken = content()
    cast(list[Json], broken["runs"])[0][field] = value
    assert words in refused(json.dumps(broken))


def test_wrong_times_are_refused() -> None:
    assert "started_at is not a time" in refused(json.dumps(content() | {"started_at": "yesterday"}))


def test_infinite_numbers_of_another_writer_are_refused() -> None:
    text = json.dumps(content()).replace('"duration_s": 30.0', '"duration_s": Infinity')
    assert "duration_s is not a number" in refused(text)


def test_histograms_with_flipped_bytes_never_crash_the_reader() -> None:
    broken = content()
    histogram = cast(Json, cast(list[Json], broken["runs"])[0]["histogram"])
    data = cast(str, histogram["data"])
    chance = random.Random(4)
    for _ in range(150):
        place = chance.randrange(len(data))
        histogram["data"] = data[:place] + chance.choice("ABCxyz019+/=") + data[place + chance.randrange(3) :]
        with contextlib.suppress(UsageError):
            parse_result(json.dumps(broken), source="old.json")


def test_fields_of_a_newer_tool_are_ignored_and_additions_may_be_missing() -> None:
    newer = content() | {"colour": "blue"}
    run = cast(list[Json], newer["runs"])[0]
    for addition in (
        "failures",
        "failure_ms",
        "phase_histograms",
        "failure_histogram",
        "interrupted",
        "targets",
    ):
        run.pop(addition, None)
    for second in cast(list[Json], run["timeline"]):
        del second["seconds"], second["p95"], second["cpu_s"]
    newer.pop("targets")
    loaded = parse_result(json.dumps(newer), source="new.json")
    assert loaded.targets == (loaded.target,)
    assert loaded.runs[0].failure_histogram.count == 0
    assert loaded.runs[0].timeline[0].seconds == 1.0


def test_the_title_is_the_name_or_the_file() -> None:
    session = session_of(run_of(stats_of([1.0])), name="mine")
    assert parse_result(dumps(session_to_json(session)).decode(), source="a/b.json").title == "mine"
    session.name = ""
    assert parse_result(dumps(session_to_json(session)).decode(), source="a/b.json").title == "b"
