"""The server of known behaviour: it did what it says it did, and never outlives its parent."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time

import psutil
import pytest

from pool_bench.errors import Phase, ServerStartError
from pool_bench.servers.scripted.behaviour import Behaviour, Bimodal, Fixed, LogNormal, Stall
from pool_bench.servers.scripted.server import ScriptedPostgres

STARTUP = struct.pack("!ii", 8 + 8, 196608) + b"user\0u\0\0"
QUERY = b"Q" + struct.pack("!i", 13) + b"SELECT 1\0"
TERMINATE = b"X" + struct.pack("!i", 4)
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
WAIT_S = 60.0


def dial(server: ScriptedPostgres) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=WAIT_S)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        more = sock.recv(4096)
        assert more, data
        data += more
    return data


READY = b"Z\0\0\0\x05I"


def talk(server: ScriptedPostgres) -> None:
    """One whole conversation."""
    with dial(server) as sock:
        sock.sendall(STARTUP)
        assert read_until(sock, READY).startswith(b"R\0\0\0\x08\0\0\0\0")
        sock.sendall(QUERY)
        assert b"SELECT 1\0" in read_until(sock, READY)
        sock.sendall(TERMINATE)
        assert sock.recv(1) == b""


def test_the_truth_is_complete() -> None:
    with ScriptedPostgres() as server:
        for _ in range(3):
            talk(server)
        truth = server.truth()
        assert (truth.accepted, truth.served, truth.queries) == (3, 3, 3)
        assert (truth.resets, truth.refused, truth.abandoned, truth.open_peak) == (0, 0, 0, 1)
        assert truth.total.count == 3
        assert {phase: h.count for phase, h in truth.phases.items()} == dict.fromkeys(
            (Phase.AUTH, Phase.READY, Phase.QUERY, Phase.CLOSE), 3
        )
        assert 0 < truth.cpu_share < 1


@pytest.mark.parametrize("step", ["auth", "ready", "query", "close"])
def test_a_delay_is_never_shorter_than_it_was_to_be_and_what_it_was_is_on_record(step: str) -> None:
    with ScriptedPostgres(Behaviour(**{step: Fixed(0.02)})) as server:  # type: ignore[arg-type]
        began = time.perf_counter_ns()
        talk(server)
        took_ns = time.perf_counter_ns() - began
        truth = server.truth()
    recorded_ns = truth.phases[Phase(step)].max_ns
    assert 20e6 <= recorded_ns <= took_ns
    # What a delay exceeded its own length by is what the record of lateness says.
    assert recorded_ns - 20_000_000 == truth.late.max_ns


def test_messages_may_arrive_byte_by_byte_and_all_at_once() -> None:
    with ScriptedPostgres() as server:
        with dial(server) as sock:
            for index in range(len(STARTUP)):
                sock.sendall(STARTUP[index : index + 1])
            read_until(sock, READY)
            sock.sendall(QUERY + TERMINATE)
            assert read_until(sock, READY)
            assert sock.recv(1) == b""
        assert server.truth().served == 1


def test_tls_is_declined() -> None:
    with ScriptedPostgres() as server, dial(server) as sock:
        sock.sendall(SSL_REQUEST)
        assert sock.recv(1) == b"N"
        sock.sendall(STARTUP)
        read_until(sock, READY)


def test_who_leaves_without_a_word_or_speaks_nonsense_is_abandoned() -> None:
    with ScriptedPostgres() as server:
        dial(server).close()
        with dial(server) as sock:
            sock.sendall(STARTUP)
            read_until(sock, READY)
            sock.sendall(b"?" + struct.pack("!i", 4))
            assert sock.recv(1) == b""
        truth = server.truth()
        assert (truth.accepted, truth.abandoned, truth.served) == (2, 2, 0)


def test_what_is_over_the_cap_is_refused_and_does_not_count_as_open() -> None:
    with ScriptedPostgres(Behaviour(max_connections=1)) as server, dial(server) as first:
        first.sendall(STARTUP)
        read_until(first, READY)
        with dial(server) as second:
            second.sendall(STARTUP)
            assert b"C53300\0" in read_until(second, b"\0\0")
            assert second.recv(1) == b""
        first.sendall(TERMINATE)
        assert first.recv(1) == b""
        truth = server.truth()
        assert (truth.refused, truth.served, truth.open_peak) == (1, 1, 1)


def test_every_tenth_of_a_tenth_is_reset_and_no_other() -> None:
    with ScriptedPostgres(Behaviour(reset_share=0.1)) as server:
        ends = []
        for _ in range(20):
            with dial(server) as sock:
                sock.sendall(STARTUP)
                try:
                    ends.append(sock.recv(1))
                    sock.sendall(TERMINATE)
                    read_until(sock, READY)
                except ConnectionResetError:
                    ends.append(b"reset")
        assert [index for index, end in enumerate(ends) if end == b"reset"] == [9, 19]
        assert server.truth().resets == 2


def test_a_slow_acceptor_keeps_its_pauses() -> None:
    with ScriptedPostgres(Behaviour(accept=Fixed(0.02))) as server:
        for _ in range(4):
            talk(server)
        gaps = server.truth().phases[Phase.TCP]
    assert gaps.count == 3
    assert gaps.min_ns >= 20_000_000


def test_a_stall_is_as_long_as_it_says() -> None:
    with ScriptedPostgres(Behaviour(stall=Stall(at_s=0.0, for_s=0.3))) as server:
        began = time.perf_counter_ns()
        talk(server)
        took_ns = time.perf_counter_ns() - began
        stalled_ns = server.truth().stall_ns
    assert 300_000_000 <= stalled_ns <= took_ns


@pytest.mark.parametrize("delay", [Fixed(0.01), Bimodal(0.001, 0.1, 0.3), LogNormal(0.01, 0.5)])
def test_random_delays_are_repeatable(delay: Fixed | Bimodal | LogNormal) -> None:
    import random

    one, other = random.Random(7), random.Random(7)
    assert [delay.draw(one) for _ in range(50)] == [delay.draw(other) for _ in range(50)]
    assert all(delay.draw(one) > 0 for _ in range(50))


def test_shares_and_medians_are_those_asked_for() -> None:
    import random
    from statistics import median

    rng = random.Random(7)
    slow = sum(Bimodal(0.001, 0.1, 0.3).draw(rng) == 100_000_000 for _ in range(10_000))
    assert slow == pytest.approx(3000, rel=0.05)
    draws = [LogNormal(0.01, 0.5).draw(rng) for _ in range(10_000)]
    assert median(draws) == pytest.approx(10_000_000, rel=0.05)


def test_a_server_that_was_killed_says_so() -> None:
    with ScriptedPostgres() as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerStartError, match="ended"):
            server.truth()


def test_the_server_ends_with_its_parent_even_if_that_is_killed() -> None:
    script = (
        "from pool_bench.servers.scripted.server import ScriptedPostgres\n"
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    with ScriptedPostgres() as server:\n"
        "        print(server.pid, flush=True)\n"
        "        sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(WAIT_S)
    gone, alive = psutil.wait_procs([server], timeout=WAIT_S)
    parent.stdout.close()
    parent.stdin.close()
    assert gone or all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
