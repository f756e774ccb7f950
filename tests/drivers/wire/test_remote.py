"""Connects whose end is awaited: one registration does for all of it, and nothing that arrives is missed."""

import select
import socket
from contextlib import ExitStack
from time import perf_counter_ns

import pytest

from pool_bench.drivers.network.poller import CONNECT, HUNG_UP, MORE, READ, WRITE, EpollPoller
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.errors import FailureKind, Phase
from pool_bench.load.spec import ConnectSpec
from tests.support import hostile_postgres as h
from tests.support.generators import go_far, nothing_left, run, target

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="edges are epoll's")

_WAIT_MS = 60_000
_TWICE_THE_BUFFER = h.OK + h.parameter("application_name", "x" * 12_000) + h.KEY + h.READY
_FILLED = h.OK + h.parameter("n", "x" * (8192 - len(h.OK + h.parameter("n", ""))))
_EXACTLY_THE_BUFFER = _FILLED + h.KEY + h.READY


def _spec(url: str, **changes: object) -> ConnectSpec:
    given: dict[str, object] = {
        "targets": (target(url),),
        "concurrency": 3,
        "warmup_s": 0.0,
        "duration_s": 0.3,
        "connect_timeout_s": 60.0,
        "tick_s": 0.1,
        "seed": 1,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


def _far_dial(patch: pytest.MonkeyPatch, server: h.HostileServer) -> Dial:
    """A dial that has begun to connect."""
    go_far(patch)
    plan = make_plan(target(server.url()))
    assert plan.endpoints is not None
    dial = Dial(plan, perf_counter_ns())
    assert dial.begin(plan.endpoints, perf_counter_ns()) == CONNECT
    return dial


def _await(dial: Dial, wanted: int) -> None:
    poll = select.poll()
    poll.register(dial.fd, wanted)
    assert poll.poll(_WAIT_MS)


def test_a_whole_cycle_takes_one_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"add": 0, "change": 0}
    add = EpollPoller.add

    def counted(poller: EpollPoller, fd: int, want: int) -> None:
        calls["add"] += 1
        add(poller, fd, want)

    def never(poller: EpollPoller, fd: int, want: int) -> None:
        calls["change"] += 1

    monkeypatch.setattr(EpollPoller, "add", counted)
    monkeypatch.setattr(EpollPoller, "change", never)
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(_spec(server.url()), poller="far")
    assert outcome.total.ok > 0
    assert outcome.total.failed == outcome.total.unfinished == 0
    assert calls == {"add": outcome.total.ok, "change": 0}


@pytest.mark.parametrize("welcome", [_TWICE_THE_BUFFER, _EXACTLY_THE_BUFFER], ids=["twice", "exactly"])
def test_an_answer_longer_than_one_read_is_read_to_its_end(welcome: bytes) -> None:
    script = (h.read_startup, h.send(welcome), h.read_message, h.hang_up)
    with nothing_left(), h.HostileServer(script) as server:
        outcome = run(_spec(server.url()), poller="far")
    assert outcome.total.ok > 0
    assert outcome.total.failed == outcome.total.unfinished == 0


def test_an_end_that_came_with_the_welcome_is_not_waited_for_again() -> None:
    script = (h.read_startup, h.send(h.WELCOME), h.hang_up)
    with nothing_left(), h.HostileServer(script) as server:
        outcome = run(_spec(server.url()), poller="far")
    assert outcome.total.ok > 0
    assert outcome.total.failed == outcome.total.unfinished == outcome.total.closed_by_us == 0


def test_what_a_server_says_before_we_do_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    greeting = b"SSH-2.0-OpenSSH_9.2p1\r\n"
    with nothing_left(), h.HostileServer((h.send(greeting), h.stall)) as server:
        dial = _far_dial(monkeypatch, server)
        _await(dial, READ)
        # Both at once, and so no edge for the greeting afterwards.
        assert dial.step(perf_counter_ns(), READ | WRITE) == MORE
        assert dial.step(perf_counter_ns(), READ | WRITE) == DONE
    assert dial.error is not None
    assert dial.error.kind is FailureKind.PROTOCOL
    assert "SSH" in dial.error.message


@pytest.mark.parametrize("events", [HUNG_UP, 0], ids=["told by epoll", "told by the first send"])
def test_a_connect_that_is_refused_later_is_a_refusal(monkeypatch: pytest.MonkeyPatch, events: int) -> None:
    go_far(monkeypatch)
    with nothing_left(), ExitStack() as stack:
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        stack.callback(server.close)
        plan = make_plan(target(f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d?sslmode=disable"))
        assert plan.endpoints is not None
        # One is let into the queue of accepted ones; the next finds it full and is not answered.
        stack.enter_context(socket.create_connection(server.getsockname()))
        dial = Dial(plan, perf_counter_ns())
        assert dial.begin(plan.endpoints, perf_counter_ns()) == CONNECT
        server.close()
        _await(dial, WRITE)
        assert dial.step(perf_counter_ns(), events) == DONE
    assert dial.error is not None
    assert (dial.error.kind, dial.error.phase) == (FailureKind.REFUSED, Phase.TCP)
