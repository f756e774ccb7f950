"""Service files, held against what libpq itself makes of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from psycopg import pq

from pool_bench.errors import UsageError
from pool_bench.targets.postgres import PostgresTarget, parse_target

_FILE = """\
# a comment
[other]
host=wrong

  [app]
host=db1,db2
port=5433,5434

dbname=app data
user=alice
 password=p = w #x
sslmode=disable
dbname=second
[last]
host=h
"""


def _parse(url: str, env: Mapping[str, str]) -> PostgresTarget:
    return parse_target(
        url,
        env=env,
        default_user="me",
        read_service_file=lambda path: Path(path).read_text() if Path(path).exists() else None,
    )


def test_a_service_says_what_libpq_says_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "services"
    file.write_text(_FILE)
    env = {"PGSERVICE": "app", "PGSERVICEFILE": str(file), "PGUSER": "bob", "PGPORT": "1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    libpq = {one.keyword.decode(): (one.val or b"").decode() for one in pq.Conninfo.get_defaults()}
    target = _parse("postgresql://", env)
    assert ",".join(host.name for host in target.hosts) == libpq["host"] == "db1,db2"
    assert ",".join(str(host.port) for host in target.hosts) == libpq["port"]
    assert target.dbname == libpq["dbname"] == "app data"
    assert target.user == libpq["user"] == "alice"
    assert target.password == libpq["password"] == "p = w #x"
    assert target.sslmode == libpq["sslmode"]


def test_the_url_comes_before_the_service_and_the_service_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[a]\nhost=from-file\nuser=file\n[b]\nhost=b\n")
    env = {"PGSERVICEFILE": str(file), "PGSERVICE": "b", "PGUSER": "env", "PGDATABASE": "env"}
    target = _parse("postgresql://url@/?service=a", env)
    assert (target.hosts[0].name, target.user, target.dbname) == ("from-file", "url", "env")


def test_what_the_users_file_does_not_have_the_systems_may(tmp_path: Path) -> None:
    own, system = tmp_path / "own", tmp_path / "pg_service.conf"
    own.write_text("[mine]\nhost=mine\n")
    system.write_text("[mine]\nhost=theirs\n[all]\nhost=everybody\n")
    env = {"PGSERVICEFILE": str(own), "PGSYSCONFDIR": str(tmp_path)}
    assert _parse("postgresql://?service=mine", env).hosts[0].name == "mine"
    assert _parse("postgresql://?service=all", env).hosts[0].name == "everybody"
    with pytest.raises(UsageError, match=r"service 'none' is not defined in .*own, .*pg_service.conf"):
        _parse("postgresql://?service=none", env)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ldap://ldap.example/dc=x?uid?one?(cn=x)", "line 2.*LDAP"),
        ("host", "line 2.*name=value"),
        ("nonsense=hunter22", "line 2.*'nonsense' is not supported"),
        ("host = h", "line 2.*not supported"),
        ("service=b", "line 2.*another service"),
        ("sslcrl=x", "sslcrl is not supported"),
        ("host=" + "h" * 2000, "line 2.*longer"),
    ],
)
def test_a_service_that_is_not_as_it_should_be_is_refused_with_file_and_line(
    tmp_path: Path, line: str, why: str
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[a]\n{line}\n")
    with pytest.raises(UsageError, match=why) as caught:
        _parse("postgresql://?service=a", {"PGSERVICEFILE": str(file)})
    assert "hunter22" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_service_file_that_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PGSERVICEFILE"):
        _parse("postgresql://?service=a", {"PGSERVICEFILE": str(tmp_path / "none")})
