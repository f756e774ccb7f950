"""Where sockets are connected to: what is an address is taken as it is, what is a name is looked up."""

import asyncio
import socket

import pytest

from pool_bench.drivers.network.addresses import (
    SocketEndpoint,
    endpoints_of,
    literal_endpoint,
    look_up,
    resolve,
)
from pool_bench.drivers.network.connecting import Tried, connect
from pool_bench.drivers.network.failures import StreamError
from pool_bench.errors import FailureKind


@pytest.mark.parametrize(
    ("host", "expected", "label"),
    [
        ("127.0.0.1", SocketEndpoint(socket.AF_INET, ("127.0.0.1", 7), True), "127.0.0.1:7"),
        ("192.0.2.1", SocketEndpoint(socket.AF_INET, ("192.0.2.1", 7), False), "192.0.2.1:7"),
        ("::1", SocketEndpoint(socket.AF_INET6, ("::1", 7, 0, 0), True), "[::1]:7"),
    ],
)
def test_a_numeric_address_needs_no_look_up(host: str, expected: SocketEndpoint, label: str) -> None:
    endpoint = literal_endpoint(host, 7)
    assert endpoint == expected
    assert endpoint.label == label


@pytest.mark.parametrize("host", ["db.example", "localhost", "fe80::1%eth0", ""])
def test_a_name_and_an_address_with_an_interface_have_to_be_looked_up(host: str) -> None:
    assert literal_endpoint(host, 7) is None


def test_what_the_resolver_answers_keeps_its_order_and_the_scope_of_an_address() -> None:
    stream = (socket.SOCK_STREAM, 6, "")
    entries = [
        (socket.AF_INET6, *stream, ("fe80::1%eth0", 7, 0, 3)),
        (socket.AF_INET, *stream, ("127.0.0.2", 7)),
    ]
    assert endpoints_of(entries) == [
        SocketEndpoint(socket.AF_INET6, ("fe80::1%eth0", 7, 0, 3), False),
        SocketEndpoint(socket.AF_INET, ("127.0.0.2", 7), True),
    ]


async def test_both_ways_to_look_up_a_name_give_the_same_and_fail_alike() -> None:
    assert look_up("localhost", 7, "localhost") == await resolve("localhost", 7)
    for host in ("nowhere.invalid", "a" * 70):
        errors = []
        with pytest.raises(StreamError) as failure:
            look_up(host, 7, host)
        errors.append(failure.value)
        with pytest.raises(StreamError) as failure:
            await resolve(host, 7)
        errors.append(failure.value)
        assert [error.kind for error in errors] == [FailureKind.DNS] * 2
        assert errors[0].message == errors[1].message
        assert errors[0].message.startswith(f"cannot resolve '{host}': ")


async def test_the_first_endpoint_that_answers_is_connected_to_and_those_before_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refusing, answering = nobody.getsockname(), listener.getsockname()
        endpoints = [SocketEndpoint(socket.AF_INET, address, True) for address in (refusing, answering)]
        tried = Tried()
        async with asyncio.timeout(60):
            with await connect(endpoints, None, tried) as sock:
                assert sock.getpeername() == answering
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0, "the event loop's to set"
        assert (tried.at, tried.passed) == (answering, [(refusing, FailureKind.REFUSED)])
        with pytest.raises(StreamError) as failure:
            await connect(endpoints[:1])
        assert failure.value.kind is FailureKind.REFUSED
