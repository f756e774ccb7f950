"""The TLS of the null server: every way in works, nothing hides what a client wastes, and nothing is left."""

import select
import shutil
import socket
import ssl
import time
from pathlib import Path
from time import perf_counter_ns

import pytest

from pool_bench.drivers.base import DRIVER_NAMES, DriverName
from pool_bench.drivers.network.tls import wrap
from pool_bench.drivers.wire import dial
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.errors import Phase
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.servers.scripted.tls import can_make_certificates
from pool_bench.targets.postgres import parse_target
from tests.servers.scripted.test_server import READY, STARTUP, TERMINATE, WAIT_S, read_until, talk
from tests.support.generators import enough, run, target

pytestmark = pytest.mark.skipif(not can_make_certificates(), reason="needs the program openssl, on Linux")

_TRIES = 6
_ROUNDS = 6


def _handshake(server: ScriptedPostgres) -> ssl.SSLSocket:
    """A connection through TLS, verified, before its start-up message."""
    sock = socket.create_connection((server.host, server.port), timeout=WAIT_S)
    sock.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
    assert sock.recv(1) == b"S"
    context = ssl.create_default_context(cafile=server.certificate)
    return context.wrap_socket(sock, server_hostname=server.host)


@pytest.mark.parametrize("options", ["sslmode=require", "sslmode=verify-full", "sslmode=prefer"])
@pytest.mark.parametrize("driver", DRIVER_NAMES)
def test_every_driver_gets_in_through_tls_and_both_sides_count_alike(
    driver: DriverName, options: str
) -> None:
    with ScriptedPostgres(tls=True) as server:
        url = server.url(f"{options}&sslrootcert={server.certificate}" if "verify" in options else options)
        spec = ConnectSpec(
            targets=(target(url),),
            driver=driver,
            concurrency=3,
            warmup_s=0.0,
            duration_s=120.0,
            grace_s=60.0,
            connect_timeout_s=60.0,
            query="SELECT 1",
            tick_s=0.05,
        )
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok >= 10))
        truth = server.truth()
    total = outcome.total
    assert (total.failed, total.unfinished) == (0, 0)
    assert total.ok == truth.served == truth.queries
    if driver == "wire":
        assert total.phases[Phase.TLS].count == total.ok


def test_direct_negotiation_is_understood() -> None:
    with ScriptedPostgres(tls=True) as server:
        url = server.url("sslmode=require&sslnegotiation=direct")
        spec = ConnectSpec(targets=(target(url),), concurrency=1, warmup_s=0.0, duration_s=60.0, tick_s=0.05)
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok >= 3))
        assert server.truth().served == outcome.total.ok
    assert outcome.total.failed == 0


def test_who_wants_no_tls_is_served_by_the_same_server() -> None:
    with ScriptedPostgres(tls=True) as server:
        talk(server)
        assert server.truth().served == 1


def test_it_sends_no_session_tickets_as_they_would_acknowledge_by_the_way() -> None:
    with ScriptedPostgres(tls=True) as server, _handshake(server) as sock:
        assert sock.version() == "TLSv1.3"
        sock.sendall(STARTUP)
        data = b""
        while not data.endswith(READY):
            data += sock.recv(4096)
        # Those would have come before the answer.
        assert sock.session is not None
        assert not sock.session.has_ticket
        sock.sendall(TERMINATE)
        assert sock.recv(1) == b""
        assert server.truth().served == 1


def test_what_came_along_with_the_request_for_tls_is_not_taken_for_a_word_through_it() -> None:
    with ScriptedPostgres(tls=True) as server:
        sock = socket.create_connection((server.host, server.port), timeout=WAIT_S)
        with sock:
            sock.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f" + STARTUP)
            assert sock.recv(1) == b"S"
            context = ssl.create_default_context(cafile=server.certificate)
            with context.wrap_socket(sock, server_hostname=server.host) as tls:
                tls.sendall(STARTUP + TERMINATE)
                read_until(tls, READY)
        assert server.truth().served == 1


def test_who_breaks_tls_is_let_go_of_and_counted() -> None:
    with ScriptedPostgres(tls=True) as server:
        with socket.create_connection((server.host, server.port), timeout=WAIT_S) as sock:
            sock.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
            assert sock.recv(1) == b"S"
            sock.sendall(b"\x16this is no TLS")
            while sock.recv(4096):
                pass
        assert server.truth().abandoned == 1
        talk(server)


def test_its_key_is_in_no_file_and_its_certificate_goes_with_it() -> None:
    with ScriptedPostgres(tls=True) as server:
        certificate = Path(server.certificate)
        assert "PRIVATE KEY" not in certificate.read_text()
        kept = [str(entry.readlink()) for entry in Path(f"/proc/{server.pid}/fd").iterdir()]
        assert len([name for name in kept if "null server" in name]) == 1
    assert not certificate.exists()


def test_without_openssl_no_certificate_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert not can_make_certificates()


def _least_ns(url: str) -> int:
    """The shortest of some cycles of `wire`."""
    least = None
    for _ in range(_TRIES):
        plan = make_plan(parse_target(url, env={}, default_user="u"))
        assert plan.endpoints is not None
        one = Dial(plan, perf_counter_ns())
        want = one.begin(plan.endpoints, perf_counter_ns())
        while want != DONE:
            poll = select.poll()
            poll.register(one.fd, want)
            assert poll.poll(WAIT_S * 1000)
            want = one.step(perf_counter_ns())
        assert one.error is None, one.error
        least = min(one.total_ns, least or one.total_ns)
    assert least is not None
    return least


def test_a_client_that_leaves_nagles_algorithm_on_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_it_on(context: ssl.SSLContext, sock: socket.SocketType, name: str | None) -> ssl.SSLSocket:
        wrapped = wrap(context, sock, name)
        wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        return wrapped

    deadline = time.monotonic() + 300
    with ScriptedPostgres(tls=True) as server:
        url = server.url("sslmode=require")
        with monkeypatch.context() as patch:
            patch.setattr(dial, "wrap", leave_it_on)
            wasteful_ns = _least_ns(url)
        for _ in range(_ROUNDS):
            # All of one's tries may have been held up.
            if wasteful_ns >= 3 * _least_ns(url):
                return
            assert time.monotonic() < deadline
    pytest.fail("40 ms more did not show")
