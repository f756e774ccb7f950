import re
from pathlib import Path

import pytest

from pool_bench.cli.options.rounds import Variant, plan, read_variants
from pool_bench.errors import UsageError
from pool_bench.load.spec import ConnectSpec
from pool_bench.targets.postgres import PostgresTarget, parse_target
from tests.support.commands import COMMAND, Started, load, only


def read_url(url: str) -> PostgresTarget:
    return parse_target(url, env={}, default_user="app", default_host="localhost")


TARGET = read_url("postgresql://app@db:5432/app")
BASE = ConnectSpec(targets=(TARGET,))


def variants(*texts: str) -> tuple[Variant, ...]:
    return read_variants(texts, read_url)


def test_a_setting_is_the_base_with_the_options_it_names() -> None:
    (variant,) = variants("driver=asyncpg, concurrency=20,query=SELECT 1, 2,resolve=once,scram-cache=no")
    spec = variant.apply(BASE)
    assert (spec.driver, spec.concurrency, spec.query) == ("asyncpg", 20, "SELECT 1, 2")
    assert spec.resolve_once
    assert not spec.scram_cache
    assert spec.targets == BASE.targets
    assert variant.name == "driver=asyncpg,concurrency=20,query=SELECT 1, 2,resolve=once,scram-cache=no"


def test_commas_of_urls_and_queries_separate_nothing() -> None:
    (variant,) = variants("url=postgresql://u@h1:1,h2:2/db,query=SELECT a, b FROM t WHERE query > 1")
    spec = variant.apply(BASE)
    assert len(spec.postgres_targets[0].hosts) == 2
    assert spec.query == "SELECT a, b FROM t WHERE query > 1"


def test_an_empty_query_is_none() -> None:
    (variant,) = variants("query=")
    assert variant.apply(ConnectSpec(targets=(TARGET,), query="SELECT 1")).query is None


def test_the_password_of_a_url_is_in_no_name() -> None:
    (variant,) = variants("url=postgresql://u:s3cr3t@h/db")
    assert "s3cr3t" not in variant.name
    assert variant.apply(BASE).targets[0].password == "s3cr3t"


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (("",), "not a setting"),
        (("asyncpg",), "not a setting"),
        (("duration=5s",), "not a setting"),
        (("driver",), "not a setting"),
        (("driver=odbc",), "driver=odbc"),
        (("concurrency=0",), "concurrency=0"),
        (("concurrency=many",), "concurrency=many"),
        (("resolve=never",), "resolve=never"),
        (("scram-cache=perhaps",), "scram-cache=perhaps"),
        (("driver=wire,driver=asyncpg",), "driver is given twice"),
        (("driver=wire", "driver=wire"), "driver=wire is given twice"),
        (("url=mysql://h/db",), "mysql://h/db"),
        (("url=postgresql://u:s3cr3t@h:99999/db",), "port"),
        (("postgresql://u:s3cr3t@h/db",), "postgresql://u:***@h/db"),
    ],
)
def test_bad_syntax_is_one_line_that_names_the_option(texts: tuple[str, ...], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        variants(*texts)
    message = str(caught.value)
    assert message.startswith("--interleave: ")
    assert named in message
    assert "\n" not in message
    assert "s3cr3t" not in message


def test_the_order_is_reversed_from_round_to_round() -> None:
    steps = plan(BASE, (10,), variants("driver=asyncpg", "driver=psycopg"), 3)
    drivers = [step.spec.driver for step in steps]
    assert drivers == [
        *("wire", "asyncpg", "psycopg"),
        *("psycopg", "asyncpg", "wire"),
        *("wire", "asyncpg", "psycopg"),
    ]
    assert [step.round for step in steps] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {step.label for step in steps} == {"c10", "c10 driver=asyncpg", "c10 driver=psycopg"}


def test_each_level_of_a_sweep_has_all_its_rounds_before_the_next() -> None:
    steps = plan(BASE, (1, 2), variants("query=SELECT 1"), 2)
    assert [step.spec.concurrency for step in steps] == [1] * 4 + [2] * 4
    assert [step.setting for step in steps[:4]] == ["", "query=SELECT 1", "query=SELECT 1", ""]


def test_one_round_of_one_setting_is_a_run_like_any_other() -> None:
    (step,) = plan(BASE, (10,), (), 1)
    assert (step.label, step.setting, step.round) == ("c10", "", None)


@pytest.mark.parametrize(
    ("command", "setting", "package"),
    [
        (COMMAND, "driver=asyncpg", "asyncpg"),
        ("surreal_bench", "driver=surrealdb", "surrealdb"),
    ],
)
def test_a_driver_that_cannot_start_costs_its_own_row_and_not_the_session(
    tmp_path: Path, command: str, setting: str, package: str
) -> None:
    broken = tmp_path / "packages" / package
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a library is missing')\n")
    times = ("-c", "2", "-d", "100ms", "--warmup", "0", "--grace", "60s", "--wait-between-runs", "0")
    rounds = ("--rounds", "2", "--interleave", setting, "--interleave", "resolve=once")
    # A process of its own, whose generators look for packages where this says.
    env = {"PYTHONPATH": str(broken.parent)}
    started = Started(tmp_path, *times, *rounds, "--output-dir", "out", env=env, command=command)
    outcome = started.finish(180)
    # A row that is missing is no success.
    assert outcome.code == 1, outcome.stderr
    assert outcome.stderr.count(f"{setting} failed, going on without it: ") == 1
    assert "Traceback" not in outcome.stderr
    path = only(tmp_path / "out", "*.json")
    rows = [(run["setting"], run["round"], "not_started" in run, run["ok"] > 0) for run in load(path)["runs"]]
    assert rows == [
        ("", 1, False, True),
        (setting, 1, True, False),
        ("resolve=once", 1, False, True),
        ("resolve=once", 2, False, True),
        ("", 2, False, True),
    ]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    answer = " ".join(outcome.stdout.split("medians")[-1].split())
    assert re.search(r"c2 resolve=once +2 ", answer)
    assert f"c2 {setting} did not start: the generator failed: ImportError" in answer


def test_where_no_setting_can_start_the_session_fails_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "packages" / "asyncpg"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a library is missing')\n")
    outcome = Started(
        tmp_path,
        *("-c", "2", "-d", "200ms", "--driver", "asyncpg", "--interleave", "query=SELECT 1"),
        *("--wait-between-runs", "0", "--output-dir", "out"),
        env={"PYTHONPATH": str(broken.parent)},
    ).finish(180)
    assert outcome.code == 1, outcome.stderr
    assert outcome.error_lines[-1].startswith("error: the generator failed: ImportError")
    assert "Traceback" not in outcome.stderr
    assert not list((tmp_path / "out").glob("*.png"))
