"""Which SurrealDB the options mean, and what they cannot mean."""

import re
from typing import Any

import pytest

from pool_bench.cli.options.surreal import SurrealOptions
from pool_bench.cli.places.surreal import find_surreal
from pool_bench.errors import UsageError
from pool_bench.load.spec import ConnectSpec

_KNOWN: Any = {"user": "u", "password": "p"}


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this environment names a server."""
    for name in ("URL", "USER", "PASS", "NAMESPACE", "DATABASE"):
        monkeypatch.delenv(f"SURREAL_{name}", raising=False)


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ((), "the embedded server has no TLS"),
        (("ws://h",), "no TLS with ws://"),
        (("http://h", "ws://h", "http://i"), "no TLS with http:// and ws://"),
    ],
)
def test_authorities_to_trust_are_refused_where_there_is_no_tls(urls: tuple[str, ...], reason: str) -> None:
    place = find_surreal(SurrealOptions(urls=urls, ca_file="/nope", **_KNOWN))
    message = f"--ca-file needs a wss:// or https:// URL: {reason}"
    with pytest.raises(UsageError, match=re.escape(message)):
        place.check_ca_file()
    spec = ConnectSpec(targets=place.targets)
    with pytest.raises(UsageError, match=re.escape(message)):
        place.read_variants(("concurrency=3",), spec)
    # They are of use to a setting that has TLS.
    assert len(place.read_variants(("url=wss://h",), spec)) == 1


@pytest.mark.parametrize("urls", [("wss://h",), ("ws://h", "https://h")])
def test_authorities_to_trust_are_taken_where_there_is_tls(urls: tuple[str, ...]) -> None:
    find_surreal(SurrealOptions(urls=urls, ca_file="/nope", **_KNOWN)).check_ca_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"urls": ("",)}, "--url is empty"),
        ({"user": ""}, "--user must not be empty"),
        ({"user": "u", "password": ""}, "--pass must not be empty"),
        ({"namespace": "", "database": "d"}, "--namespace must not be empty"),
        ({"namespace": "n", "database": ""}, "--database must not be empty"),
        ({"ca_file": ""}, "--ca-file must not be empty"),
    ],
)
def test_an_option_that_is_there_and_empty_is_refused_by_its_name(wrong: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        find_surreal(SurrealOptions(**wrong))
