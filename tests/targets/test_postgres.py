"""URLs as libpq reads them, and no password where a person could read it."""

import pickle
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from pool_bench.cli.argv import redacted_argv
from pool_bench.errors import UsageError
from pool_bench.targets.conninfo import ENVIRONMENT, PARAMETERS
from pool_bench.targets.postgres import (
    NAMING_VARIABLES,
    Host,
    PostgresTarget,
    parse_passfile,
    parse_target,
    redact,
)
from pool_bench.targets.surreal import surreal_target


def parse(url: str, env: Mapping[str, str] | None = None, passfile: str = "") -> PostgresTarget:
    return parse_target(url, env=env or {}, default_user="me", read_passfile=lambda path: passfile)


def hosts(url: str, env: Mapping[str, str] | None = None) -> list[tuple[str, int]]:
    return [(host.name, host.port) for host in parse(url, env).hosts]


# --- what libpq makes of it -------------------------------------------------------------------

_word = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
_any = st.text(
    st.one_of(st.sampled_from("@:/?#%&=, +~é€[]'\"\\"), st.characters(min_codepoint=33, max_codepoint=0x2FF)),
    min_size=1,
    max_size=12,
)
_host = st.one_of(
    _word,
    st.sampled_from(
        ["localhost", "db.example.com", "10.0.0.1", "[::1]", "[fe80::1%25eth0]", "%2Ftmp", "%40abstract"]
    ),
    st.just(""),
)
_port = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
_mode = st.sampled_from(["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])


@st.composite
def _urls(draw: st.DrawFn) -> str:
    def encoded(value: str) -> str:
        return quote(value, safe=draw(st.sampled_from(["", "~-._", "!$'()*"])))

    url = draw(st.sampled_from(["postgresql://", "postgres://"]))
    user, password = draw(st.one_of(st.just(""), _any)), draw(st.one_of(st.none(), st.just(""), _any))
    if user or password is not None:
        url += encoded(user) + ("" if password is None else ":" + encoded(password)) + "@"
    places = draw(st.lists(st.tuples(_host, _port), min_size=0, max_size=3))
    url += ",".join(host + port for host, port in places)
    parameters: dict[str, str] = draw(
        st.dictionaries(
            st.sampled_from(["sslmode", "application_name", "user", "dbname", "password", "options"]),
            _any,
            max_size=3,
        )
    )
    if "sslmode" in parameters:
        parameters |= {"sslmode": draw(_mode)}
    dbname = draw(st.one_of(st.none(), st.just(""), _any))
    if dbname is not None:
        url += "/" + encoded(dbname)
    empty_query = draw(st.booleans())
    if parameters or empty_query:
        url += "?" + "&".join(f"{key}={encoded(value)}" for key, value in parameters.items())
        url += draw(st.sampled_from(["", "&"])) if parameters else ""
    return url


@given(_urls())
@settings(max_examples=400, deadline=None)
def test_a_valid_url_means_what_it_means_to_libpq(url: str) -> None:
    told = conninfo_to_dict(url)
    target = parse(url)
    names = str(told.get("host", "")).split(",")
    ports = str(told.get("port", "")).split(",")
    ports *= len(names) if len(ports) == 1 else 1
    assert [(host.name, host.port) for host in target.hosts] == [
        (name or "localhost", int(port or 5432)) for name, port in zip(names, ports, strict=True)
    ]
    assert target.user == told.get("user", "me")
    assert target.dbname == told.get("dbname", target.user)
    assert target.password == told.get("password")
    assert target.sslmode == told.get("sslmode", "prefer")
    assert target.application_name == told.get("application_name", "")
    assert target.options == told.get("options")


@given(_urls())
@settings(max_examples=200, deadline=None)
def test_the_printed_target_is_a_url_that_leads_to_the_same_place(url: str) -> None:
    target = parse(url)
    again = parse(str(target))
    assert (again.hosts, again.user, again.dbname, again.sslmode) == (
        target.hosts,
        target.user,
        target.dbname,
        target.sslmode,
    )
    assert str(target).isprintable()
    assert parse_target(redact(str(target)), env={}, default_user="me") == again


@pytest.mark.parametrize(
    ("url", "password", "place"),
    [
        # libpq, too, takes these three.
        ("postgresql://u:p?x@h/d", "p?x", "h"),
        ("postgresql://u:p#x@h/d", "p#x", "h"),
        ("postgresql://u:p:x@h/d", "p:x", "h"),
        # libpq would look for the host `x@h`.
        ("postgresql://u:p@x@h/d", "p@x", "h"),
    ],
)
def test_careless_passwords_are_understood_where_they_can_be(url: str, password: str, place: str) -> None:
    target = parse(url)
    assert (target.password, target.hosts[0].name, target.dbname) == (password, place, "d")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", [("localhost", 5432)]),
        ("postgresql:///db", [("localhost", 5432)]),
        ("postgresql://h", [("h", 5432)]),
        ("postgresql://h:1/", [("h", 1)]),
        ("postgresql://h:065535/", [("h", 65535)]),
        ("postgresql://a,b:2,c", [("a", 5432), ("b", 2), ("c", 5432)]),
        ("postgresql://,", [("localhost", 5432), ("localhost", 5432)]),
        ("postgresql://a%2Cb?port=7", [("a", 7), ("b", 7)]),
        ("postgresql://[::1]:7,[2001:db8::2]", [("::1", 7), ("2001:db8::2", 5432)]),
        ("postgresql:///?host=/run/pg&port=7", [("/run/pg", 7)]),
        ("postgresql:///?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///?hostaddr=10.0.0.1,::1", [("10.0.0.1", 5432), ("::1", 5432)]),
        ("postgresql://%2Ftmp", [("/tmp", 5432)]),
    ],
)
def test_hosts_and_ports_are_read_from_everywhere_a_url_holds_them(
    url: str, expected: list[tuple[str, int]]
) -> None:
    assert hosts(url) == expected


def test_a_numeric_address_replaces_the_look_up_and_not_the_name() -> None:
    target = parse("postgresql://db.example.com,other?hostaddr=10.0.0.1,")
    assert [(host.name, host.address) for host in target.hosts] == [
        ("db.example.com", "10.0.0.1"),
        ("other", None),
    ]


@pytest.mark.parametrize(
    ("name", "is_unix", "path"),
    [
        ("/run/pg", True, "/run/pg/.s.PGSQL.7"),
        ("@abstract", True, "\0abstract/.s.PGSQL.7"),
        ("localhost", False, "localhost/.s.PGSQL.7"),
    ],
)
def test_a_directory_or_an_abstract_name_is_a_unix_socket(name: str, is_unix: bool, path: str) -> None:
    host = Host(name=name, port=7)
    assert (host.is_unix, host.socket_path) == (is_unix, path)
    assert not Host(name=name, port=7, address="10.0.0.1").is_unix


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        (Host(name="h"), "h:5432"),
        (Host(name="::1", port=7), "[::1]:7"),
        (Host(name="fe80::1%eth0"), "[fe80::1%25eth0]:5432"),
        (Host(name="/run/pg"), "%2Frun%2Fpg:5432"),
        (Host(name="@a"), "%40a:5432"),
        (Host(name="a\x1b[31m\n"), "a%1B%5B31m%0A:5432"),
        (Host(name="münchen"), "münchen:5432"),
    ],
)
def test_a_host_is_shown_as_it_is_written_in_a_url(host: Host, shown: str) -> None:
    assert str(host) == shown


def test_every_supported_parameter_reaches_the_target() -> None:
    target = parse(
        "postgresql://h/d?sslmode=verify-full&sslnegotiation=direct&sslrootcert=/ca&sslcert=/c&sslkey=/k"
        "&sslpassword=sp&sslsni=0&ssl_min_protocol_version=TLSv1.1&ssl_max_protocol_version=TLSv1.3"
        "&channel_binding=require&application_name=a&client_encoding=LATIN1&options=-c%20x%3Dy"
        "&connect_timeout=7&load_balance_hosts=random&max_protocol_version=3.2"
        "&target_session_attrs=any&gssencmode=disable"
    )
    assert target == PostgresTarget(
        hosts=(Host(name="h"),),
        user="me",
        dbname="d",
        sslmode="verify-full",
        sslnegotiation="direct",
        sslrootcert="/ca",
        sslcert="/c",
        sslkey="/k",
        sslpassword="sp",
        sslsni=False,
        ssl_min_protocol_version="TLSv1.1",
        ssl_max_protocol_version="TLSv1.3",
        channel_binding="require",
        application_name="a",
        client_encoding="LATIN1",
        options="-c x=y",
        connect_timeout_s=7.0,
        load_balance_hosts=True,
        max_protocol_version="3.2",
    )
    assert target.startup_parameters() == {
        "user": "me",
        "database": "d",
        "options": "-c x=y",
        "application_name": "a",
        "client_encoding": "LATIN1",
    }
    assert str(target) == "postgresql://me@h:5432/d?sslmode=verify-full&sslnegotiation=direct"
    assert pickle.loads(pickle.dumps(target)) == target  # noqa: S301 - our own


def test_a_target_without_extras_sends_user_and_database_only() -> None:
    assert parse("postgresql://u@h/d").startup_parameters() == {"user": "u", "database": "d"}


def test_jdbc_urls_may_say_ssl_true() -> None:
    assert parse("postgresql://h?ssl=true").sslmode == "require"


def test_the_system_certificates_imply_full_verification() -> None:
    assert parse("postgresql://h?sslrootcert=system").sslmode == "verify-full"
    with pytest.raises(UsageError, match="verify-full"):
        parse("postgresql://h?sslrootcert=system&sslmode=require")


@pytest.mark.parametrize(("text", "seconds"), [("10", 10.0), ("0", None), ("-1", None), (" 2 ", 2.0)])
def test_connect_timeout_is_whole_seconds_and_zero_is_none(text: str, seconds: float | None) -> None:
    assert parse(f"postgresql://h?connect_timeout={quote(text)}").connect_timeout_s == seconds


# --- the environment --------------------------------------------------------------------------

_ENV = {
    "PGHOST": "envhost",
    "PGPORT": "7",
    "PGDATABASE": "envdb",
    "PGUSER": "envuser",
    "PGPASSWORD": "envpass",
    "PGSSLMODE": "disable",
    "PGAPPNAME": "envapp",
    "PGOPTIONS": "-c a=b",
    "PGCONNECT_TIMEOUT": "3",
}


def test_what_a_url_leaves_out_comes_from_the_environment() -> None:
    target = parse("postgresql://", _ENV)
    assert (target.hosts, target.dbname, target.user) == ((Host(name="envhost", port=7),), "envdb", "envuser")
    assert (target.password, target.sslmode, target.application_name) == ("envpass", "disable", "envapp")
    assert (target.options, target.connect_timeout_s) == ("-c a=b", 3.0)


def test_what_a_url_says_outranks_the_environment() -> None:
    target = parse(
        "postgresql://u:p@h:1/d?sslmode=require&application_name=a&options=o&connect_timeout=1", _ENV
    )
    assert (target.hosts, target.dbname, target.user) == ((Host(name="h", port=1),), "d", "u")
    assert (target.password, target.sslmode, target.application_name) == ("p", "require", "a")
    assert (target.options, target.connect_timeout_s) == ("o", 1.0)


def test_empty_variables_and_an_empty_password_say_nothing() -> None:
    target = parse("postgresql://u:@h", dict.fromkeys(_ENV, "") | {"PGPASSWORD": "p"})
    assert (target.user, target.dbname, target.password, target.sslmode) == ("u", "u", "p", "prefer")
    assert parse("postgresql://h?password=", {"PGPASSWORD": "p"}).password is None


def test_pgport_is_for_urls_that_list_no_places() -> None:
    env = {"PGPORT": "7"}
    assert hosts("postgresql://h", env) == [("h", 7)]
    assert hosts("postgresql://a,b", env) == [("a", 5432), ("b", 5432)]
    assert hosts("postgresql:///?host=a,b", env) == [("a", 7), ("b", 7)]


def test_lists_of_places_in_the_environment_are_lists() -> None:
    assert hosts("postgresql://", {"PGHOST": "a,b", "PGPORT": "1,2"}) == [("a", 1), ("b", 2)]


def test_the_database_is_named_after_the_user_where_neither_says_more() -> None:
    assert parse("postgresql://u@h").dbname == "u"
    assert parse("postgresql://h?dbname=&user=").dbname == "me"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGREQUIREPEER", "postgres"),
        ("PGSSLCRL", "crl.pem"),
        ("PGSSLCRLDIR", "crls"),
        ("PGSSLCERTMODE", "require"),
        ("PGSSLCOMPRESSION", "1"),
        ("PGGSSENCMODE", "require"),
        ("PGKRBSRVNAME", "pg"),
        ("PGGSSDELEGATION", "1"),
        ("PGMINPROTOCOLVERSION", "3.2"),
    ],
)
def test_a_variable_that_is_not_supported_is_refused_as_its_url_form_is(variable: str, value: str) -> None:
    name = next(key for key, known in ENVIRONMENT.items() if known == variable)
    with pytest.raises(UsageError, match=variable) as caught:
        parse("postgresql://h", {variable: value})
    assert value not in str(caught.value)
    with pytest.raises(UsageError, match=name):
        parse(f"postgresql://h?{name}={value}")


def test_a_variable_that_the_url_overrides_is_not_refused() -> None:
    assert parse("postgresql://h?gssencmode=disable", {"PGGSSENCMODE": "require"}).hosts[0].name == "h"


def test_variables_name_servers_and_rules_for_choosing_among_them() -> None:
    env = {"PGTARGETSESSIONATTRS": "standby", "PGLOADBALANCEHOSTS": "random", "PGREQUIRESSL": "1"}
    target = parse("postgresql://a,b", env)
    assert (target.target_session_attrs, target.load_balance_hosts, target.sslmode) == (
        "standby",
        True,
        "require",
    )


def test_every_parameter_of_libpq_is_known() -> None:
    # Those of the libpq that psycopg brings; debugging aside.
    theirs = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    unknown = {name for name in theirs if name not in PARAMETERS and "debug" not in name}
    assert unknown <= {"authtype", "tty", "requiressl", "servicefile", "oauth_ca_file"}
    assert {variable.decode() for variable in theirs.values() if variable} - set(ENVIRONMENT.values()) <= {
        "PGSERVICEFILE",
        "PGAUTHTYPE",
        "PGTTY",
    }


def test_host_variables_name_a_server() -> None:
    assert NAMING_VARIABLES == ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE")


# --- the password file ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text", "password"),
    [
        ("postgresql://u@h:1/d", "h:1:d:u:secret", "secret"),
        ("postgresql://u@h/d", "h:5432:d:u:secret\r\n", "secret"),
        ("postgresql://u@h/d", "*:*:*:*:secret", "secret"),
        ("postgresql://u@h/d", "x:*:*:*:no\nh:*:*:*:first\n*:*:*:*:second", "first"),
        ("postgresql://u@h/d", "# h:*:*:*:no\n\n#*:*:*:*:no\n*:*:*:u:yes", "yes"),
        ("postgresql://u@h/d", "h:1:d:u:no\nh:5432:x:u:no\nh:5432:d:x:no", None),
        ("postgresql://u@h/d", "h:5432:d:secret\n:::::\nrubbish", None),
        ("postgresql://u@h/d", r"*:*:*:*:a\:b\\c\d", r"a:b\cd"),
        ("postgresql://u@h/d", "*:*:*:*:secret:comment", "secret"),
        ("postgresql://u@h/d", "*:*:*:*:secret\\", "secret\\"),
        ("postgresql://u@h/d", "*:*:*:*: se cret ", " se cret "),
        ("postgresql://u@h/d", "*:*:*:*:a\u2028b\x85c\x0cd", "a\u2028b\x85c\x0cd"),
        ("postgresql://u@h/d", "*:*:*:*:", None),
        ("postgresql://u%3Ax@h/d", r"*:*:*:u\:x:secret", "secret"),
        ("postgresql://u@h/%2A", r"*:*:\*:*:secret", "secret"),
        ("postgresql://u@h/d", r"*:*:\*:*:secret", None),
        ("postgresql://u@[::1]/d", r"\:\:1:*:*:*:secret", "secret"),
        ("postgresql://u@/d", "localhost:*:*:*:secret", "secret"),
        ("postgresql://u@/d?hostaddr=10.0.0.1", "10.0.0.1:*:*:*:secret", "secret"),
        ("postgresql://u@h/d?hostaddr=10.0.0.1", "10.0.0.1:*:*:*:no\nh:*:*:*:secret", "secret"),
        # The sockets of a default directory go by the name localhost, others by their directory.
        ("postgresql://u@%2Ftmp/d", "localhost:*:*:*:secret", "secret"),
        ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/d", "localhost:*:*:*:secret", "secret"),
        ("postgresql://u@%2Fsrv/d", "localhost:*:*:*:no\n/srv:*:*:*:secret", "secret"),
    ],
)
def test_the_password_file_is_read_as_libpq_reads_it(url: str, text: str, password: str | None) -> None:
    target = parse(url, passfile=text)
    assert target.password is None
    assert target.password_for(target.hosts[0]) == password


def test_each_host_has_its_own_line_in_the_password_file() -> None:
    target = parse("postgresql://u@a,b:7,c/d", passfile="a:*:*:*:pa\nb:7:*:*:pb")
    assert [target.password_for(host) for host in target.hosts] == ["pa", "pb", None]


def test_the_password_file_is_not_read_where_a_password_is_given() -> None:
    def never(path: str | None) -> str:
        pytest.fail(f"read {path}")

    target = parse_target("postgresql://u:p@h", env={}, default_user="me", read_passfile=never)
    assert target.password_for(target.hosts[0]) == "p"


@pytest.mark.parametrize(
    ("url", "env", "asked"),
    [
        ("postgresql://h", {}, None),
        ("postgresql://h", {"PGPASSFILE": "/env"}, "/env"),
        ("postgresql://h?passfile=/url", {"PGPASSFILE": "/env"}, "/url"),
    ],
)
def test_the_password_file_is_where_one_is_told(url: str, env: dict[str, str], asked: str | None) -> None:
    paths: list[str | None] = []

    def read(path: str | None) -> str:
        paths.append(path)
        return ""

    parse_target(url, env=env, default_user="me", read_passfile=read)
    assert paths == [asked]


@given(st.text())
def test_any_text_can_be_a_password_file(text: str) -> None:
    for fields, password in parse_passfile(text):
        assert len(fields) == 4
        assert "\n" not in password


# --- refusals and secrets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a PostgreSQL URL"),
        ("host=h password=hunter22", "not a PostgreSQL URL"),
        ("mysql://u:hunter22@h/d", "not a PostgreSQL URL"),
        ("postgresql:/h", "not a PostgreSQL URL"),
        ("postgresql://[::1", "brackets"),
        ("postgresql://[]", "brackets"),
        ("postgresql://::1", "port must be a number"),
        ("postgresql://[::1]x", "brackets"),
        ("postgresql://h:0", "port must be a number"),
        ("postgresql://h:65536", "port must be a number"),
        ("postgresql://h:+1", "port must be a number"),
        ("postgresql://h:" + "9" * 5000, "port must be a number"),
        ("postgresql://h:\u0661", "port must be a number"),
        ("postgresql://u:hunter22", "port must be a number"),
        ("postgresql://u:12345678", "port must be a number"),
        ("postgresql://u:hun/ter22@h/d", "write / in a password as %2F"),
        ("postgresql://u:12/hunter22@h/d", "write / in a password as %2F"),
        ("postgresql://u:100%@h", "percent"),
        ("postgresql://u:hunter22%zz@h", "percent"),
        ("postgresql://h/a%00b", "zero byte"),
        ("postgresql://h?sslmode", "name=value"),
        ("postgresql://h?a=b=c", "name=value"),
        ("postgresql://h?&sslmode=disable", "name=value"),
        ("postgresql://h?nonsense=1", "URL parameter 'nonsense' is not supported"),
        ("postgresql://h?passwd=hunter22", "not supported"),
        ("postgresql://u:x?hunter=22@", "port|not supported|name=value"),
        ("postgresql://h?sslmode=maybe", "sslmode must be one of disable, allow"),
        ("postgresql://h?sslmode=", "sslmode must be one of"),
        ("postgresql://h?channel_binding=x", "channel_binding must be one of"),
        ("postgresql://h?sslsni=2", "sslsni can only be 0 or 1"),
        ("postgresql://h?gssencmode=require", "gssencmode can only be"),
        ("postgresql://h?target_session_attrs=master", "target_session_attrs must be one of any, read-write"),
        ("postgresql://h?connect_timeout=soon", "whole number"),
        ("postgresql://h?connect_timeout=1.5", "whole number"),
        ("postgresql://h?connect_timeout=" + "9" * 5000, "whole number"),
        ("postgresql://h?sslnegotiation=direct", "direct needs sslmode"),
        ("postgresql://h?channel_binding=require&sslmode=disable", "needs TLS"),
        ("postgresql://h?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2", "is below"),
        ("postgresql://h?ssl_max_protocol_version=TLSv1.1", "is below"),
        ("postgresql://a,b?port=1,2,3", "2 hosts but 3 ports"),
        ("postgresql://a,b?hostaddr=10.0.0.1", "2 hosts but 1 addresses"),
        ("postgresql://h/a\nb?x", "name=value"),
    ],
)
def test_a_bad_url_is_refused_with_one_line_that_says_why(url: str, why: str) -> None:
    if "hunter=22" in url:
        assert parse(url).password == "x?hunter=22"
        return
    with pytest.raises(UsageError, match=why) as caught:
        parse(url)
    assert str(caught.value).isprintable()
    assert "hunter22" not in str(caught.value)
    assert "12345678" not in str(caught.value)
    assert "ter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql://a:1,b:2/d?x=y", "postgresql://a:1,b:2/d?x=y"),
        ("postgresql://a:,b:2/d", "postgresql://a:,b:2/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql://u@corp:p@h/d", "postgresql://u@corp:***@h/d"),
        ("postgresql://u:p q@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p\nq@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p", "postgresql://u:***"),
        ("postgresql://h?password=p&sslmode=allow", "postgresql://h?password=***&sslmode=allow"),
        ("postgresql://h?password=p&q&sslmode=allow", "postgresql://h?password=***&sslmode=allow"),
        ("postgresql://h?pass%77ord=p", "postgresql://h?password=***"),
        ("postgresql://h?sslpassword=p", "postgresql://h?sslpassword=***"),
        ("postgresql://h?a%20b=c", "postgresql://h?a%20b=c"),
        ("host=h password='p q' user=u", "host=h password=*** user=u"),
        ("PGPASSWORD=p psql", "PGPASSWORD=*** psql"),
        ("a postgresql://u:p@h, ws://v:q@i", "a postgresql://u:***@h, ws://v:***@i"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_redaction_takes_the_secret_and_leaves_the_rest(text: str, redacted: str) -> None:
    assert redact(text) == redacted


# Without *, of which the mask consists.
_ODD = "@:/?#%&= '\"\\$;,!~^é€"
_secrets = st.text(st.sampled_from("QWXZJK7" + _ODD), min_size=4, max_size=14).filter(
    # At least this much of it is found nowhere else.
    lambda text: sum(c in "QWXZJK" for c in text) >= 2
)


@given(
    secret=_secrets,
    encode=st.booleans(),
    shape=st.sampled_from(
        [
            "postgresql://user:{}@host:5432/db",
            "postgresql://user:{}@host/db?sslmode=require",
            "postgresql://user:{}@a,b:7/db",
            "postgresql://user@corp:{}@host/db",
            "postgres://:{}@host",
            "postgresql://user:{}@[::1]/db?nonsense=1",
            "postgresql://user:{}@host:bad/db",
            "postgresql://user:{}@host/db?connect_timeout=x",
            "postgresql://user:{}@host/db?sslmode",
            "postgresql://host/db?password={}",
            "postgresql://host/db?password={}&sslmode=nonsense",
            "postgresql://host/db?sslmode=nonsense&sslpassword={}",
            "postgresql://host/db?pass%77ord={}&sslmode=nonsense",
            "postgresql://host/db?passwd={}",
            "mysql://user:{}@host/db",
        ]
    ),
)
@settings(max_examples=1000, deadline=None)
def test_a_planted_password_is_shown_nowhere(secret: str, encode: bool, shape: str) -> None:
    planted = quote(secret, safe="") if encode else secret
    url = shape.format(planted)
    shown = [redact(url)]
    try:
        target = parse(url)
    except UsageError as error:
        shown.append(str(error))
        assert str(error).isprintable()  # noqa: PT017 - it need not be raised
    else:
        shown += [str(target), repr(target), repr(target.hosts)]
    for text in shown:
        assert secret not in text
        assert planted not in text


@given(secret=_secrets)
def test_a_password_of_the_environment_or_a_file_is_shown_nowhere(secret: str) -> None:
    assume("'" not in secret and "\\" not in secret)
    with pytest.raises(UsageError) as caught:
        parse("postgresql://h?sslmode=nonsense", {"PGPASSWORD": secret})
    escaped = secret.replace(":", "\\:")
    for target in (
        parse("postgresql://h", {"PGPASSWORD": secret}),
        parse("postgresql://h", passfile=f"*:*:*:*:{escaped}"),
    ):
        assert target.password_for(target.hosts[0]) == secret
        for text in (str(target), repr(target), repr(target.hosts), str(target.hosts[0]), str(caught.value)):
            assert secret not in text


@given(st.one_of(st.text(max_size=60), st.text(max_size=40).map(lambda rest: f"postgresql://{rest}")))
@settings(max_examples=600, deadline=None)
def test_any_text_is_a_target_or_a_usage_error_of_one_line(text: str) -> None:
    try:
        target = parse(text)
    except UsageError as error:
        assert str(error).isprintable()  # noqa: PT017 - it need not be raised
    else:
        assert str(target).isprintable()
    redact(text)


@pytest.mark.parametrize(
    "text",
    [
        *("user:hunter22@host/db", "//user:hunter22@host/db", "postgresql:user:hunter22@host"),
        *("postgresql:/user:hunter22@host", "postgresql//user:hunter22@host", "user:a hunter22@host"),
        *("user:hunter22@x@host", "user:hunter22", "postgres:hunter22", "postgresql:user:a hunter22@h"),
        *("host=h password = hunter22", "host=h password = 's3 hunter22'", "password = a hunter22"),
        *("postgresql:host=h password = hunter22", "PASSWORD =hunter22", "user=u\tpassword\t=\thunter22"),
        *("mysql://u:hunter22@h", "postgresql://user:a@b/hunter22@h/d", "ws:root:hunter22@host"),
        *("ws://root:1/hunter22@host:8000", "ws://root:a?hunter22@host", "ws://root:a#hunter22@host"),
        *("ws://root:hunter22@a/b@host", "ws://root:1@hunter22/x@host", "ws:/root:hunter22@h"),
    ],
)
def test_what_is_no_url_is_refused_and_shown_without_what_may_be_a_password(text: str) -> None:
    for read in (parse, lambda url: surreal_target(url, environ={})):
        with pytest.raises(UsageError) as caught:
            read(text)
        assert "hunter22" not in str(caught.value)
    shown = redacted_argv(["pg-connection-bench", "-u", text, f"--url={text}", "-q"])
    assert "hunter22" not in " ".join(shown)
    assert shown[-1] == "-q"


def test_more_than_one_at_belongs_to_the_password_not_to_the_host() -> None:
    found = surreal_target("ws://ro@ot:a@hunter22@host", environ={})
    assert (found.host, found.user, found.password) == ("host", "ro@ot", "a@hunter22")
    assert "hunter22" not in str(found) + repr(found)


@pytest.mark.parametrize(
    "kept",
    [
        *(
            "at postgresql://bench@127.0.0.1:5432/postgres?sslmode=disable",
            "12:30 [me@here]",
            "SELECT a::int",
        ),
        *(
            "C-0x55: postgres/postgres@127.0.0.1:1234 closing",
            "ws://root@127.0.0.1:8000/rpc",
            "127.0.0.1:5432",
        ),
    ],
)
def test_text_without_a_password_stays_as_it_is(kept: str) -> None:
    assert redact(kept) == kept
