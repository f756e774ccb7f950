"""The proxy loses and changes nothing unless told to, does what it is told, and counts right."""

import asyncio
import errno
import random
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.faults import PASS, Conditions, Cut, FaultProxy, Mode
from pool_bench.faults.link import reset_on_close
from tests.support.generators import nothing_left
from tests.support.peers import PATIENCE_S, Peer, client, echo, exchange, proxied, upstream

HOLE = Conditions(mode=Mode.HOLE)
REFUSE = Conditions(mode=Mode.REFUSE)
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

chunks = st.lists(st.binary(max_size=300_000) | st.binary(max_size=20), max_size=12)


def _bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


async def _nothing_comes(reader: asyncio.StreamReader, within_s: float = 0.1) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), within_s)


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
@settings(max_examples=25, deadline=None)
@given(data=chunks, delay_s=st.sampled_from([0.0, 0.005]), rate=st.sampled_from([None, 1e8, 3e7]))
def test_any_bytes_in_any_chunking_pass_unchanged_both_ways(
    new_loop: Callable[[], asyncio.AbstractEventLoop], data: list[bytes], delay_s: float, rate: float | None
) -> None:
    conditions = Conditions(to_server_delay_s=delay_s, to_client_delay_s=delay_s, bytes_per_s=rate)

    async def talk() -> None:
        async with proxied() as (proxy, server):
            proxy.set(conditions)
            async with client(proxy.port) as (reader, writer):

                async def write() -> None:
                    for chunk in data:
                        writer.write(chunk)
                        await writer.drain()
                    writer.write_eof()

                async with asyncio.TaskGroup() as group:
                    group.create_task(write())
                    answer = group.create_task(reader.read())
            whole = b"".join(data)
            assert answer.result() == whole == bytes(server.peers[0].received)
            await proxy.wait_until(lambda p: p.counts.finished == 1)
            assert (proxy.counts.to_server_bytes, proxy.counts.to_client_bytes) == (len(whole),) * 2

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(talk())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_change_of_conditions_while_bytes_flow_loses_or_swaps_any(seed: int) -> None:
    schedule = random.Random(seed)
    data = _bytes(400_000, seed)

    async def spoil(proxy: FaultProxy, over: asyncio.Event) -> None:
        while not over.is_set():
            proxy.set(
                Conditions(
                    mode=schedule.choice([Mode.PASS, Mode.HOLE, Mode.REFUSE, Mode.RESET]),
                    to_server_delay_s=schedule.choice([0, 0, 0.003]),
                    to_client_delay_s=schedule.choice([0, 0, 0.003]),
                    bytes_per_s=schedule.choice([None, 2e6, 5e7]),
                )
            )
            await asyncio.sleep(schedule.uniform(0, 0.004))

    async def talk() -> None:
        async with proxied() as (proxy, server), client(proxy.port) as (reader, writer):
            await proxy.wait_until(lambda p: p.counts.accepted == 1)
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(spoil(proxy, over))
                writer.write(data)
                writer.write_eof()
                answer = await reader.read()
                over.set()
            assert answer == data == bytes(server.peers[0].received)

    asyncio.run(talk())


async def test_a_half_closed_connection_goes_on_in_the_other_direction() -> None:
    async def answer_after_the_end(peer: Peer) -> None:
        peer.writer.write((await peer.read_all())[::-1])
        await peer.writer.drain()

    async with proxied(answer_after_the_end) as (proxy, _server):
        assert await exchange(proxy.port, b"drawkcab") == b"backward"


async def test_the_server_can_end_first_and_still_hears_the_client() -> None:
    async def end_first(peer: Peer) -> None:
        peer.writer.write(b"bye")
        peer.writer.write_eof()
        await peer.read_all()

    async with proxied(end_first) as (proxy, server), client(proxy.port) as (reader, writer):
        assert await reader.read() == b"bye"
        writer.write(b"one more thing")
        writer.write_eof()
        await proxy.wait_until(lambda p: p.counts.finished == 1)
        assert [bytes(peer.received) for peer in server.peers] == [b"one more thing"]


async def test_a_reset_by_the_server_reaches_the_client_as_one() -> None:
    async def slam(peer: Peer) -> None:
        await peer.read()
        linger = struct.pack("ii", 1, 0)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.writer.transport.abort()

    async with proxied(slam) as (proxy, _server), client(proxy.port) as (reader, writer):
        writer.write(b"?")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await proxy.wait_until(lambda p: p.counts.finished == 1)


async def test_a_client_that_leaves_is_a_client_that_leaves_for_the_server() -> None:
    async with proxied() as (proxy, server):
        async with client(proxy.port) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"
        await proxy.wait_until(lambda p: p.counts.finished == 1)
        assert proxy.links == []
        assert len(server.peers) == 1


async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    gate = asyncio.Event()

    async def read_late(peer: Peer) -> None:
        await gate.wait()
        await peer.read_all()

    data = _bytes(64 * 1024 * 1024)
    async with proxied(read_late) as (proxy, server), client(proxy.port) as (_reader, writer):
        writer.write(data)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        # Sockets, their buffers and the proxy's own hold some of it, a few MB each at most.
        assert proxy.links[0].moved[0] < len(data) // 2
        gate.set()
        await writer.drain()
        writer.write_eof()
        await server.wait_until(lambda s: s.ends == ["eof"])
        assert server.peers[0].received == data


async def test_refusing_is_a_refusal_of_the_kernel_on_the_same_port_and_ends() -> None:
    async with proxied() as (proxy, server):
        port = proxy.port
        async with client(port) as (reader, writer):
            writer.write(b"a")
            assert await reader.read(1) == b"a"
            for _ in range(3):
                proxy.set(REFUSE)
                assert proxy.port == port
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                proxy.set(PASS)
                assert await exchange(port, b"again") == b"again"
            # What existed has been working all the time.
            writer.write(b"b")
            assert await reader.read(1) == b"b"
        assert proxy.counts.accepted == len(server.peers) == 4


async def test_nobody_else_gets_the_port_while_it_is_refused() -> None:
    async with proxied() as (proxy, _server):
        proxy.set(REFUSE)
        with socket.socket() as thief, pytest.raises(OSError, match="in use") as caught:
            thief.bind(("127.0.0.1", proxy.port))
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_proxy_can_begin_by_refusing() -> None:
    async with upstream() as server, FaultProxy("127.0.0.1", server.port, conditions=REFUSE) as proxy:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.set(PASS)
        assert await exchange(proxy.port, b"x") == b"x"


async def test_resetting_takes_a_connection_counts_it_and_throws_it_away() -> None:
    async with proxied() as (proxy, server):
        proxy.set(Conditions(mode=Mode.RESET))
        for _ in range(5):
            with pytest.raises(ConnectionResetError):
                await exchange(proxy.port, b"")
        assert (proxy.counts.accepted, proxy.counts.finished, len(server.peers)) == (5, 5, 0)
        assert len(proxy.counts.accepts_ns) == 5


async def test_a_black_hole_holds_new_connections_and_old_ones_and_gives_them_back() -> None:
    async with proxied() as (proxy, server), client(proxy.port) as (old, old_writer):
        old_writer.write(b"a")
        assert await old.read(1) == b"a"
        proxy.set(HOLE)
        old_writer.write(b"b")
        async with client(proxy.port) as (new, new_writer):
            new_writer.write(b"c")
            await _nothing_comes(old)
            await _nothing_comes(new)
            assert (len(server.peers), bytes(server.peers[0].received)) == (1, b"a")
            proxy.set(PASS)
            assert (await old.read(1), await new.read(1)) == (b"b", b"c")


async def test_what_is_on_its_way_when_a_black_hole_opens_does_not_arrive() -> None:
    loop = asyncio.get_running_loop()
    # Where the machine stands still for longer than it is on its way, it does arrive, and another is sent.
    for _ in range(10):
        async with proxied() as (proxy, server), client(proxy.port) as (reader, writer):
            await server.wait_until(lambda s: len(s.peers) == 1)
            proxy.set(Conditions(to_server_delay_s=0.1))
            began = loop.time()
            writer.write(b"a")
            await asyncio.sleep(0.02)
            proxy.set(HOLE)
            if loop.time() - began < 0.1:
                await _nothing_comes(reader, 0.2)
                assert [bytes(peer.received) for peer in server.peers] == [b""]
                return
    pytest.fail("the machine stood still each time")


async def test_the_death_of_a_client_in_a_black_hole_is_heard_of_afterwards() -> None:
    async with proxied() as (proxy, server):
        async with client(proxy.port) as (reader, writer):
            writer.write(b"a")
            await reader.read(1)
            proxy.set(HOLE)
        await asyncio.sleep(0.05)
        assert (server.ends, len(proxy.links)) == ([], 1)
        proxy.set(PASS)
        await proxy.wait_until(lambda p: p.counts.finished == 1)


@pytest.mark.parametrize(
    ("to_server_s", "to_client_s", "connect_s"), [(0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1), (0.06, 0.05, 0.04)]
)
async def test_delays_add_up_to_a_round_trip(
    to_server_s: float, to_client_s: float, connect_s: float
) -> None:
    loop = asyncio.get_running_loop()
    async with proxied() as (proxy, _server):
        proxy.set(
            Conditions(
                to_server_delay_s=to_server_s, to_client_delay_s=to_client_s, connect_delay_s=connect_s
            )
        )
        async with client(proxy.port) as (reader, writer):
            for round_trip in (to_server_s + to_client_s + connect_s, to_server_s + to_client_s):
                began = loop.time()
                writer.write(b"x")
                assert await reader.read(1) == b"x"
                assert loop.time() - began >= round_trip - 0.01


async def test_a_delay_is_one_for_many_bytes_not_one_for_each_chunk() -> None:
    data = _bytes(4_000_000)
    async with proxied() as (proxy, _server):
        proxy.set(Conditions(to_server_delay_s=0.5))
        # A chunk at a time, waiting each time, it would be 30 s or more.
        async with asyncio.timeout(20.0):
            assert await exchange(proxy.port, data) == data


async def test_a_throttle_lets_bytes_trickle() -> None:
    loop = asyncio.get_running_loop()
    sizes: list[int] = []
    async with proxied() as (proxy, _server):
        proxy.set(Conditions(bytes_per_s=20_000))
        began = loop.time()
        async with client(proxy.port) as (reader, writer):
            writer.write(b"x" * 6_000)
            writer.write_eof()
            while data := await reader.read(65536):
                sizes.append(len(data))
        assert loop.time() - began >= 0.25
        assert sum(sizes) == 6_000
        assert len(sizes) > 5


async def test_an_end_that_comes_to_a_client_that_has_gone_ends_the_connection() -> None:
    go = asyncio.Event()

    async def end_late(peer: Peer) -> None:
        await peer.read_all()
        await go.wait()

    async with proxied(end_late) as (proxy, _server):
        proxy.set(Conditions(to_client_delay_s=0.02))
        async with client(proxy.port) as (_reader, writer):
            writer.write_eof()
            await proxy.wait_until(lambda p: len(p.links) == 1)
            # Behind its own FIN, which was the last that was read of it.
            await asyncio.sleep(0.05)
            reset_on_close(writer.get_extra_info("socket"))
        await asyncio.sleep(0.05)
        go.set()
        await proxy.wait_until(lambda p: not p.links)


@pytest.mark.parametrize("how", list(Cut))
@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_cut_ends_both_sides_the_way_it_is_told(
    how: Cut, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def talk() -> None:
        async with proxied() as (proxy, server):
            async with client(proxy.port) as (reader, writer):
                writer.write(b"x")
                assert await reader.read(1) == b"x"
                assert proxy.cut(how) == 1
                if how is Cut.RST:
                    with pytest.raises(ConnectionResetError):
                        await reader.read()
                else:
                    assert await reader.read() == b""
            await proxy.wait_until(lambda p: p.counts.finished == 1)
            await server.wait_until(lambda s: bool(s.ends))
            assert server.ends == ["eof" if how is Cut.FIN else "ConnectionResetError"]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(talk())


async def test_one_connection_can_be_cut_and_the_others_live() -> None:
    async with (
        proxied() as (proxy, _server),
        client(proxy.port) as (one, _),
        client(proxy.port) as (two, two_writer),
    ):
        await proxy.wait_until(lambda p: len(p.links) == 2)
        proxy.links[0].cut(Cut.FIN)
        assert await one.read() == b""
        two_writer.write(b"x")
        assert await two.read(1) == b"x"


@pytest.mark.parametrize("conditions", [HOLE, Conditions(connect_delay_s=60)], ids=["hole", "delay"])
async def test_a_connection_that_has_not_reached_the_server_can_be_cut(conditions: Conditions) -> None:
    async with proxied() as (proxy, server):
        proxy.set(conditions)
        async with client(proxy.port) as (reader, _writer):
            await proxy.wait_until(lambda p: len(p.links) == 1)
            with pytest.raises(RuntimeError, match="open on both sides"):
                proxy.links[0].cut_after(1)
            proxy.links[0].cut(Cut.FIN)
            assert await reader.read() == b""
            await proxy.wait_until(lambda p: not p.links)
        assert server.peers == []


async def test_a_client_that_gives_up_before_the_server_is_reached_never_gets_there() -> None:
    async with proxied() as (proxy, server):
        proxy.set(HOLE)
        async with client(proxy.port) as (_reader, writer):
            await proxy.wait_until(lambda p: len(p.links) == 1)
            reset_on_close(writer.get_extra_info("socket"))
        while not proxy.links[0]._client.gone:  # noqa: ASYNC110 - nothing tells of it before the end
            await asyncio.sleep(0)
        proxy.set(PASS)
        await proxy.wait_until(lambda p: not p.links)
        assert server.peers == []


@pytest.mark.parametrize("ticks", range(12))
@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_cut_at_any_step_of_opening_ends_the_connection(
    ticks: int, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def talk() -> None:
        async with proxied() as (proxy, server), client(proxy.port) as (reader, _writer):
            await proxy.wait_until(lambda p: len(p.links) == 1)
            for _ in range(ticks):
                await asyncio.sleep(0)
            assert proxy.cut(Cut.FIN) == 1
            assert await reader.read() == b""
            await proxy.wait_until(lambda p: not p.links)
            await server.wait_until(lambda s: len(s.ends) == len(s.peers))

    with nothing_left(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(talk())


@pytest.mark.parametrize("count", [0, 1, 100_000])
async def test_a_connection_is_cut_after_exactly_so_many_bytes(count: int) -> None:
    async with proxied() as (proxy, _server), client(proxy.port) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.links[0].cut_after(count, Cut.FIN)
        if count:
            writer.write(_bytes(count + 1_000))
        assert await reader.read() == _bytes(count + 1_000)[:count]


@pytest.mark.parametrize("state", ["connecting", "in a hole", "open", "paused"])
@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "uvloop"])
def test_closing_leaves_nothing_whatever_a_connection_is_doing(
    state: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    conditions = {"connecting": Conditions(connect_delay_s=60), "in a hole": HOLE}.get(state, PASS)

    async def never_read(_peer: Peer) -> None:
        await asyncio.sleep(60)

    async def talk() -> None:
        async with asyncio.timeout(PATIENCE_S), upstream(never_read if state == "paused" else echo) as server:
            proxy = FaultProxy("127.0.0.1", server.port, conditions=conditions)
            proxy.start()
            async with client(proxy.port) as (_reader, writer), client(proxy.port):
                if state == "paused":
                    writer.write(bytes(8_000_000))
                await proxy.wait_until(lambda p: len(p.links) == 2)
                if state in ("open", "paused"):
                    await server.wait_until(lambda s: len(s.peers) == 2)
                await proxy.close()
                await proxy.close()
                assert proxy.links == []
                assert proxy.counts.finished == 2
                assert [task for task in asyncio.all_tasks() if "Link" in repr(task)] == []

    with nothing_left(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(talk())


async def test_closing_while_the_server_does_not_answer_the_connect_leaves_nothing() -> None:
    with nothing_left(), socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        # A full queue of a server that never accepts: the kernel drops the SYN.
        filler = socket.create_connection(deaf.getsockname())
        proxy = FaultProxy("127.0.0.1", deaf.getsockname()[1])
        async with proxy, client(proxy.port), client(proxy.port):
            await proxy.wait_until(lambda p: len(p.links) == 2)
            # Far enough to be in the middle of its connects.
            await asyncio.sleep(0.02)
        assert proxy.counts.finished == 2
        filler.close()


async def test_without_a_server_clients_are_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with FaultProxy("127.0.0.1", nobody.getsockname()[1]) as proxy:
            with pytest.raises(ConnectionResetError):
                await exchange(proxy.port, b"")
            await proxy.wait_until(lambda p: p.counts.finished == 1)


async def test_new_connections_go_where_it_points_and_old_ones_stay() -> None:
    async def shout(peer: Peer) -> None:
        while data := await peer.read():
            peer.writer.write(data.upper())

    async with proxied() as (proxy, _one), upstream(shout) as two, client(proxy.port) as (reader, writer):
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        proxy.point_at("127.0.0.1", two.port)
        assert await exchange(proxy.port, b"b") == b"B"
        writer.write(b"c")
        assert await reader.read(1) == b"c"


async def test_connections_are_counted_exactly() -> None:
    async with proxied() as (proxy, _server):
        for _ in range(3):
            await exchange(proxy.port, b"12345")
        await proxy.wait_until(lambda p: p.counts.finished == 3)
        async with client(proxy.port), client(proxy.port), client(proxy.port), client(proxy.port):
            await proxy.wait_until(lambda p: len(p.links) == 4)
        await proxy.wait_until(lambda p: not p.links)
        counts = proxy.counts
        assert (counts.accepted, counts.finished, counts.peak_open) == (7, 7, 4)
        assert counts.to_server_bytes == counts.to_client_bytes == 15
        assert counts.accepts_ns == sorted(counts.accepts_ns)
        assert len(counts.accepts_ns) == 7
        proxy.clear_counts()
        await exchange(proxy.port, b"x")
        assert (proxy.counts.accepted, proxy.counts.peak_open) == (1, 1)
        async with client(proxy.port), client(proxy.port):
            await proxy.wait_until(lambda p: p.counts.accepted == 3)
            proxy.clear_counts()
            assert (proxy.counts.accepted, proxy.counts.peak_open) == (0, 2)


async def test_who_stops_waiting_for_a_change_stops_nobody_else() -> None:
    async with proxied() as (proxy, _server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(proxy.wait_until(lambda p: p.counts.accepted == 1), 0.01)
        waiting = asyncio.create_task(proxy.wait_until(lambda p: p.counts.accepted == 1))
        await exchange(proxy.port, b"x")
        await waiting


@given(st.lists(st.integers(0, 200), max_size=40).map(sorted), st.integers(1, 50))
def test_the_peak_of_accepts_is_that_of_the_busiest_window(times_ms: list[int], window_ms: int) -> None:
    counts = FaultProxy("127.0.0.1", 1).counts
    counts.accepts_ns = [time_ms * 1_000_000 for time_ms in times_ms]
    expected = max((sum(t <= u < t + window_ms for u in times_ms) for t in times_ms), default=0)
    assert counts.peak_accepts(window_ms / 1000) == expected


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_delay_that_is_none_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="connect_delay_s"):
        Conditions(connect_delay_s=value)
    with pytest.raises(ValueError, match="to_server_delay_s"):
        Conditions(to_server_delay_s=value)
    with pytest.raises(ValueError, match="to_client_delay_s"):
        Conditions(to_client_delay_s=value)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_throughput_that_is_none_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_s"):
        Conditions(bytes_per_s=value)


async def test_its_url_leads_through_it() -> None:
    async with proxied() as (proxy, _server):
        url = proxy.url("a b", user="me", application_name="x&y")
        assert url == f"postgresql://me@127.0.0.1:{proxy.port}/a%20b?sslmode=disable&application_name=x%26y"


async def test_it_has_no_port_before_it_starts() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        FaultProxy("127.0.0.1", 1).url()


async def test_it_listens_on_the_address_of_loopback_that_it_is_told_and_on_no_other() -> None:
    async with upstream(echo) as server:
        for host in ("127.0.0.2", "::1"):
            async with FaultProxy("127.0.0.1", server.port, host=host) as proxy:
                reader, writer = await asyncio.open_connection(host, proxy.port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                writer.close()
                await writer.wait_closed()
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ValueError, match=r"host must be an address of loopback, not 192\.0\.2\.1"):
        FaultProxy("127.0.0.1", 1, host="192.0.2.1")
