"""What `surreal-bench serve` refuses before it starts anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from pool_bench.cli.commands.serve import (
    check_certificate,
    check_password,
    check_store,
    serve_forever,
)
from pool_bench.cli.options.serve import Served
from pool_bench.errors import UsageError
from pool_bench.servers.surreal.server import is_loopback

_SERVED = Served(
    bind="127.0.0.1:8000",
    user="root",
    password=None,
    path=None,
    certificate=None,
    key=None,
    namespace="bench",
    database="bench",
    sign_in_within_s=30.0,
    allowed_hosts=(),
)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, keys that are not its own, and what is no PEM."""
    place = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    own, another = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    of_another_type = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    own.cert_chain_pems[0].write_to_path(place / "cert")
    own.private_key_pem.write_to_path(place / "own")
    another.private_key_pem.write_to_path(place / "anothers")
    of_another_type.private_key_pem.write_to_path(place / "of-another-type")
    encrypted = load_pem_private_key(own.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (place / "encrypted").write_bytes(encrypted)
    (place / "none").write_text("not PEM")
    return place


def test_a_certificate_with_its_key_is_taken(pems: Path) -> None:
    check_certificate(pems / "cert", pems / "own")


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("missing", "own", "--certificate: cannot read .*missing: no such file or directory"),
        ("cert", "missing", "--key: cannot read .*missing: no such file or directory"),
        (".", "own", "--certificate: cannot read .*: is a directory"),
        ("none", "own", "--certificate: no certificate in PEM format in .*none"),
        ("own", "own", "--certificate: no certificate in PEM format in .*own"),
        ("cert", "none", "--key: no key in PEM format in .*none"),
        ("cert", "encrypted", "--key: .*encrypted is encrypted"),
        ("cert", "anothers", "--key: .*anothers is not the key of the certificate in .*cert"),
        ("cert", "of-another-type", "--key: .*type is not the key of the certificate in .*cert"),
    ],
)
def test_a_certificate_or_key_that_cannot_serve_is_refused_with_option_and_file(
    pems: Path, certificate: str, key: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        check_certificate(pems / certificate, pems / key)


def test_a_store_is_a_directory_or_can_become_one(tmp_path: Path) -> None:
    check_store(tmp_path)
    check_store(tmp_path / "new" / "store")
    assert list(tmp_path.iterdir()) == []
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to("nowhere")
    for wrong, named in ((file, file), (file / "store", file), (link, link)):
        with pytest.raises(UsageError, match=f"^--path: {named} is not a directory"):
            check_store(wrong)


def test_empty_names_and_passwords_are_refused_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^--user must not be empty"):
        serve_forever(replace(_SERVED, user=""))
    monkeypatch.setenv("SURREAL_PASS", "of the environment")
    with pytest.raises(UsageError, match=r"^--pass must not be empty"):
        serve_forever(replace(_SERVED, password=""))
    monkeypatch.setenv("SURREAL_PASS", "")
    with pytest.raises(UsageError, match=r"^SURREAL_PASS must not be empty"):
        serve_forever(_SERVED)
    # What the environment says does not matter where the option does.
    with pytest.raises(UsageError, match=r"^--namespace"):
        serve_forever(replace(_SERVED, password="said", namespace=""))


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("root", "has fewer than 12 characters"),
        ("Tr0ub4dor&3", "has fewer than 12 characters"),
        ("aaaaaaaaaaaaaaaa", "has fewer than 5 different characters"),
        ("121212121212", "has fewer than 5 different characters"),
        ("Password-1234", "is a common word"),
        ("12345root67890", "is a common word"),
        ("surrealdb!2026!", "is a common word"),
        ("Chief-of-2026!", "is a common word"),
    ],
)
def test_a_weak_password_is_refused_where_others_can_reach_the_server_and_is_not_repeated(
    password: str, fault: str
) -> None:
    user = "chief.of"
    with pytest.raises(UsageError, match=f"^the password {fault}") as refused:
        check_password(password, user)
    assert password not in str(refused.value)
    everywhere = replace(_SERVED, bind="0.0.0.0:8000", user=user, password=password)
    with pytest.raises(UsageError, match=f"^the password {fault}"):
        serve_forever(everywhere)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "8315-2094-7761", "zK4p-wTq7Lm2x", "пароль-двенадцать"]
)
def test_a_password_that_is_long_and_no_common_word_will_do(password: str) -> None:
    check_password(password, "root")


def test_only_what_this_machine_alone_can_reach_is_loopback() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.1.2.3", "fe80::1"):
        assert not is_loopback(host)


def test_a_store_that_has_a_user_needs_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURREAL_PASS", raising=False)
    (tmp_path / "manifest").touch()
    with pytest.raises(UsageError, match=r"has a user with a password already: give it in SURREAL_PASS"):
        serve_forever(replace(_SERVED, path=tmp_path))
