"""Local addresses to connect from: used in turn, checked before anything is opened."""

import errno
import socket

import pytest

from pool_bench.drivers.network.source_addresses import SourceAddresses, check_sources
from pool_bench.errors import UsageError
from tests.support.generators import target


def _bound(sources: SourceAddresses, family: socket.AddressFamily) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sources.bind(sock, family)
        return str(sock.getsockname()[0])


def test_addresses_of_a_family_are_used_in_turn() -> None:
    sources = SourceAddresses(("127.0.0.2", "127.0.0.3", "127.0.0.4"))
    assert [_bound(sources, socket.AF_INET) for _ in range(5)] == [
        f"127.0.0.{last}" for last in (2, 3, 4, 2, 3)
    ]


def test_families_do_not_take_each_others_turns() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 on this machine")
    sources = SourceAddresses(("127.0.0.2", "::1", "127.0.0.3"))
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_INET, socket.AF_INET6)
    assert [_bound(sources, family) for family in families] == ["127.0.0.2", "::1", "127.0.0.3", "::1"]


def test_the_same_port_serves_again_for_another_peer() -> None:
    # Ports are chosen when connecting, so binding alone takes none.
    sources = SourceAddresses(("127.0.0.2",))
    with socket.socket() as sock:
        sources.bind(sock, socket.AF_INET)
        assert sock.getsockname()[1] == 0


def test_unix_sockets_are_left_alone_and_a_missing_family_is_an_error() -> None:
    sources = SourceAddresses(("127.0.0.2",))
    with socket.socket(socket.AF_UNIX) as sock:
        sources.bind(sock, socket.AF_UNIX)
        assert sock.getsockname() == ""
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(OSError, match="family") as caught:
        sources.bind(sock, socket.AF_INET6)
    assert caught.value.errno == errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    ("address", "url", "said"),
    [
        ("localhost", "postgresql://u@127.0.0.1/d", "not an IPv4 or IPv6 address"),
        ("127.0.0.256", "postgresql://u@127.0.0.1/d", "not an IPv4 or IPv6 address"),
        ("", "postgresql://u@127.0.0.1/d", "not an IPv4 or IPv6 address"),
        ("127.0.0.1:5432", "postgresql://u@127.0.0.1/d", "not an IPv4 or IPv6 address"),
        ("192.0.2.1", "postgresql://u@127.0.0.1/d", "not an address of this machine"),
        ("127.0.0.2", "postgresql://u@[::1]/d", "needs an IPv6 address"),
        ("127.0.0.2", "postgresql://u@/d?host=/tmp", "Unix socket"),
    ],
)
def test_what_cannot_be_used_is_the_users_mistake_in_one_line(address: str, url: str, said: str) -> None:
    with pytest.raises(UsageError, match="--source-ip") as caught:
        check_sources((address,), (target(url),))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_addresses_every_target_is_fine() -> None:
    check_sources((), (target("postgresql://u@/d?host=/tmp"), target("postgresql://u@[::1]/d")))
