"""Results by address as users of the commands meet them."""

from pathlib import Path

import pytest

from pool_bench.faults import Conditions, FaultProxy, Mode, ThreadedProxy
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.commands import COMMAND, LOAD_COMMAND, load, run_tool

_QUIET = ("--quiet", "--no-save", "--no-watch")
_SHORT = {
    COMMAND: ("--duration", "100ms", "--warmup", "0", "--grace", "60s", "-c", "4"),
    LOAD_COMMAND: ("--duration", "100ms", "-n", "12"),
}


@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
def test_several_hosts_are_split_by_themselves_in_screen_and_file(
    embedded: EmbeddedPostgres, command: str, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    with ThreadedProxy(FaultProxy(embedded.host, embedded.port, host="127.0.0.2")) as other:
        # In order, and in turn: each address is tried, however few connections there are.
        alive = (f"127.0.0.1:{embedded.port}", f"127.0.0.2:{other.port}")
        places = (f"postgresql://bench@127.0.0.1:1,{one}/postgres?sslmode=disable" for one in alive)
        urls = [word for place in places for word in ("--url", place)]
        outcome = run_tool(*urls, *_SHORT[command], *_QUIET, "--json", str(path), command=command)
    assert outcome.code == 0, outcome.stderr
    run = load(path)["runs"][0]
    rows = {row["address"]: row for row in run["addresses"]}
    assert sum(row["ok"] for row in rows.values()) == run["ok"] > 0
    assert sum(row["failed"] for row in rows.values()) == run["failed"] == 0
    assert all(rows[address]["ok"] > 0 for address in alive)
    assert rows["127.0.0.1:1"]["passed_over_errors"] == {"refused": run["ok"]}
    assert "\naddress " in outcome.stdout
    assert all(f"\n{address} " in outcome.stdout for address in rows)


@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
def test_one_address_has_its_row_where_that_is_asked_for(
    embedded: EmbeddedPostgres, command: str, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    arguments = ("--url", embedded.url, *_SHORT[command], *_QUIET, "--json", str(path))
    plain = run_tool(*arguments, command=command)
    assert plain.code == 0, plain.stderr
    assert "\naddress " not in plain.stdout
    assert "addresses" not in load(path)["runs"][0]
    asked = run_tool(*arguments, "--by-address", command=command)
    assert asked.code == 0, asked.stderr
    (row,) = load(path)["runs"][0]["addresses"]
    assert row["address"] == f"127.0.0.1:{embedded.port}"
    assert row["ok"] == load(path)["runs"][0]["ok"]
    assert f"\n127.0.0.1:{embedded.port} " in asked.stdout


def test_an_address_that_resets_everybody_is_named_with_its_failures(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    reset = Conditions(mode=Mode.RESET)
    with ThreadedProxy(FaultProxy(embedded.host, embedded.port, host="127.0.0.2", conditions=reset)) as bad:
        label = f"127.0.0.2:{bad.port}"
        hosts = (f"127.0.0.1:{embedded.port}", label)
        # In turn, so that both are tried, however few connections there are.
        places = (f"postgresql://bench@{one}/postgres?sslmode=disable" for one in hosts)
        urls = [word for place in places for word in ("--url", place)]
        given = (*_SHORT[COMMAND], *_QUIET, "--json", str(path), "--keep-going", "--by-address")
        outcome = run_tool(*urls, *given)
    run = load(path)["runs"][0]
    rows = {row["address"]: row for row in run["addresses"]}
    assert rows[label]["failed"] == run["failed"] > 0
    assert f"{label} fails: 100% of what was tried there (reset " in outcome.stdout
