"""SurrealDB URLs, and where the rest of a target comes from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.errors import UsageError
from pool_bench.targets.surreal import SCHEMES, surreal_target

_FULL = "ws://us%40er:p%3Ass@db.example:8000"


def test_a_url_has_scheme_host_port_user_and_password() -> None:
    target = surreal_target(_FULL, environ={})
    assert (target.scheme, target.host, target.port, target.path) == ("ws", "db.example", 8000, "/rpc")
    assert (target.user, target.password) == ("us@er", "p:ss")
    assert (target.namespace, target.database) == (None, None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h", "ws://h:80/rpc"),
        ("wss://h/", "wss://h:443/rpc"),
        ("http://h:1/rpc", "http://h:1/rpc"),
        ("https://H/rpc/", "https://h:443/rpc"),
        ("ws://[::1]:8000", "ws://[::1]:8000/rpc"),
        ("ws://h/behind/proxy", "ws://h:80/behind/proxy/rpc"),
        ("ws://h/behind/rpc", "ws://h:80/behind/rpc"),
        ("ws://me@h", "ws://me@h:80/rpc"),
    ],
)
def test_a_target_is_shown_as_a_full_url(url: str, expected: str) -> None:
    assert str(surreal_target(url, environ={})) == expected


def test_the_official_client_gets_a_url_without_user_and_endpoint() -> None:
    assert surreal_target(_FULL, environ={}).url == "ws://db.example:8000"
    assert surreal_target("https://h/behind/rpc", environ={}).url == "https://h:443/behind"


def test_options_come_before_the_url_and_that_before_the_environment() -> None:
    environ = {
        "SURREAL_URL": "ws://env.example",
        "SURREAL_USER": "env",
        "SURREAL_PASS": "env pass",
        "SURREAL_NAMESPACE": "env ns",
        "SURREAL_DATABASE": "env db",
    }
    target = surreal_target(environ=environ)
    assert (target.host, target.user, target.password) == ("env.example", "env", "env pass")
    assert (target.namespace, target.database) == ("env ns", "env db")
    target = surreal_target(_FULL, environ=environ)
    assert (target.host, target.user, target.password) == ("db.example", "us@er", "p:ss")
    target = surreal_target(_FULL, user="me", password="mine", namespace="n", database="d", environ=environ)
    assert (target.user, target.password, target.namespace, target.database) == ("me", "mine", "n", "d")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "no target: give --url, or set SURREAL_URL"),
        ("", "--url is empty"),
        ("localhost:8000", "begins with ws, wss, http, https"),
        ("postgres://h", "begins with ws"),
        ("ws://", "no host"),
        ("ws://:8000", "no host"),
        ("ws://a b", "no host"),
        ("ws://h:0", "port 0"),
        ("ws://h:99999", "is not a URL: Port out of range"),
        ("ws://h:eight", "is not a URL: Port could not be cast"),
        ("ws://[::1", "is not a URL"),
        ("ws://h/?ns=a", "nothing may follow a"),
        ("ws://h/#a", "nothing may follow a"),
    ],
)
def test_a_wrong_url_is_a_usage_error_on_one_line(url: str | None, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        surreal_target(url, environ={})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_variable_is_named_that_a_wrong_url_came_from() -> None:
    with pytest.raises(UsageError, match="SURREAL_URL: a SurrealDB URL begins with"):
        surreal_target(environ={"SURREAL_URL": "h:8000"})


@pytest.mark.parametrize("name", ["namespace", "database"])
def test_an_empty_name_is_refused_and_an_empty_variable_is_none(name: str) -> None:
    options: Any = {"namespace": "n", "database": "d", name: ""}
    with pytest.raises(UsageError, match=f"--{name} must not be empty"):
        surreal_target("ws://h", **options, environ={})
    environ = {"SURREAL_NAMESPACE": "", "SURREAL_DATABASE": ""}
    assert surreal_target("ws://h", environ=environ).namespace is None


def test_a_user_of_a_namespace_needs_no_database() -> None:
    target = surreal_target("ws://u:p@h", namespace="n", level="namespace", environ={})
    assert target.credentials() == {"user": "u", "pass": "p", "ns": "n"}


def test_a_database_needs_a_namespace() -> None:
    with pytest.raises(UsageError, match="--database needs --namespace"):
        surreal_target("ws://h", database="d", environ={})


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("root", {"user": "u", "pass": "p"}),
        ("namespace", {"user": "u", "pass": "p", "ns": "n"}),
        ("database", {"user": "u", "pass": "p", "ns": "n", "db": "d"}),
    ],
)
def test_credentials_name_the_place_where_the_user_was_defined(level: Any, expected: dict[str, str]) -> None:
    target = surreal_target("ws://u:p@h", namespace="n", database="d", level=level, environ={})
    assert target.credentials() == expected


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ws://h", {}, "--user and --pass"),
        ("ws://u@h", {}, "--user and --pass"),
        ("ws://u:p@h", {"level": "namespace"}, "--level namespace needs --namespace$"),
        ("ws://u:p@h", {"level": "database"}, "--level database needs --namespace and --database$"),
        ("ws://u:p@h", {"level": "database", "namespace": "n"}, "--level database needs --database$"),
    ],
)
def test_incomplete_credentials_are_a_usage_error(url: str, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        surreal_target(url, environ={}, **options).credentials()


@given(
    password=st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=6, max_size=20),
    scheme=st.sampled_from(SCHEMES),
    rest=st.sampled_from(["@h", "@h:1/rpc", "@h:x", "@", "@h?x", "@[::1"]),
)
def test_a_password_is_in_no_text_about_a_target(password: str, scheme: str, rest: str) -> None:
    marked = f"5ECRET{password}5ECRET"
    try:
        target = surreal_target(f"{scheme}://user:{marked}{rest}", environ={})
        said = f"{target} {target!r} {target.url}"
    except UsageError as error:
        said = str(error)
    assert "5ECRET" not in said
