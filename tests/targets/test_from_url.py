"""One function for all URLs: its scheme says what a target is."""

import os
from pathlib import Path

import pytest

from pool_bench.errors import UsageError
from pool_bench.targets import PostgresTarget, SurrealTarget, from_url
from pool_bench.targets.surreal import SCHEMES


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_postgresql_url_is_completed_from_the_variables_of_libpq(scheme: str) -> None:
    target = from_url(f"{scheme}://db.example/app", env={"PGUSER": "ada", "PGPASSWORD": "secret"})
    assert isinstance(target, PostgresTarget)
    assert (str(target), target.password) == ("postgresql://ada@db.example:5432/app", "secret")


@pytest.mark.parametrize("scheme", [*SCHEMES, "WS"])
def test_a_surrealdb_url_is_completed_from_its_own_variables(scheme: str) -> None:
    target = from_url(f"{scheme}://db.example:8000", env={"SURREAL_USER": "root", "SURREAL_PASS": "secret"})
    assert isinstance(target, SurrealTarget)
    assert (target.scheme, target.user, target.password) == (scheme.lower(), "root", "secret")


def test_without_an_environment_it_is_this_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PGUSER", "ada")
    target = from_url("postgresql://db.example/app")
    assert isinstance(target, PostgresTarget)
    assert target.user == "ada"


def test_the_password_file_that_the_environment_names_is_read(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    path.write_text("db.example:*:*:*:secret\n")
    path.chmod(0o600)
    target = from_url("postgresql://ada@db.example/app", env={"PGPASSFILE": str(path)})
    assert isinstance(target, PostgresTarget)
    assert target.password_for(target.hosts[0]) == "secret"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:hunter2@h/db", "mysql://u:***@h/db is neither a PostgreSQL URL"),
        ("host=h password=hunter2", "a keyword/value string is not a PostgreSQL URL"),
        ("h:5432", "is not a PostgreSQL URL"),
        ("ws://", "no host in"),
        ("postgresql://h/db?sslmode=hunter", "sslmode"),
    ],
)
def test_what_is_no_target_is_refused_without_showing_a_password(url: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_url(url, env={})
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_url_of_another_kind_than_the_one_wanted_is_refused() -> None:
    assert from_url("postgresql://ada@h/db", {}, kind=PostgresTarget).dbname == "db"
    assert from_url("ws://h", {}, kind=SurrealTarget).host == "h"
    with pytest.raises(UsageError, match=r"ws://h is not a PostgreSQL URL"):
        from_url("ws://h", {}, kind=PostgresTarget)
    with pytest.raises(UsageError, match=r"postgresql://ada:\*\*\*@h/db is not a SurrealDB URL"):
        from_url("postgresql://ada:hunter2@h/db", {}, kind=SurrealTarget)
