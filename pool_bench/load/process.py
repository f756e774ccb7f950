"""The process of a generator: what it says to its parent, and what it hears from it.

It imports what the run needs and nothing else of the tool: that time is part of what every run costs.
"""

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import cast

from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.drivers.network.port_loop import with_ports
from pool_bench.errors import ConnectError, UsageError
from pool_bench.load.gates import POINTS, Gates
from pool_bench.load.generator import generate
from pool_bench.load.messages import Failure, Hello, Message
from pool_bench.load.share import Share
from pool_bench.load.spec import Spec
from pool_bench.load.workload import ServerEvents
from pool_bench.processes import ignore_interrupts


def main(snapshots_fd: int, control_fd: int) -> None:
    """What `load/run.py` starts: be told what to generate, then do.

    Args:
        snapshots_fd, control_fd: pipes, see `run_generator`; the second brings the spec first.
    """
    ignore_interrupts()
    snapshots: Connection[Message, Message] = Connection(snapshots_fd, readable=False)
    control: Connection[str, str] = Connection(control_fd, writable=False)
    run_generator(cast("Spec", control.recv()), snapshots, control)


def run_generator(
    spec: Spec, snapshots: "Connection[Message, Message]", control: "Connection[str, str]"
) -> None:
    """Generate `spec` from beginning to end; the process's only work.

    Args:
        snapshots: where messages go.
        control: what is said while it runs: `stop`, or what happens to the server and when.
    """
    forget_pg_environment()
    forget_proxies()
    if spec.share is not None:
        _take_place(spec.share)
    # A parent that is busy drawing must not hold up the event loop, so a thread does the writing.
    outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    writer = threading.Thread(target=_write_all, args=(outbox, snapshots), name="writer")
    writer.start()

    async def main() -> None:
        stop, server_events = asyncio.Event(), ServerEvents()
        gates = None if spec.share is None else Gates(outbox.put)
        loop = asyncio.get_running_loop()
        outbox.put(Hello(type(loop).__module__.partition(".")[0]))
        reader = threading.Thread(
            target=_listen, args=(control, loop, stop, server_events, gates), name="control", daemon=True
        )
        reader.start()
        if sys.platform != "win32":
            # `timeout`, a terminal that is closed and service managers signal everybody at once.
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, stop.set)
        await generate(spec, outbox.put, stop, server_events, gates)

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())
    except UsageError as error:
        outbox.put(Failure(str(error), usage=True))
    except ConnectError as error:
        # Drivers keep secrets out of these.
        outbox.put(Failure(str(error), usage=False))
    except Exception as error:
        # Only the type: a message could quote a connection string.
        outbox.put(Failure(f"the generator failed: {type(error).__name__} {_where(error)}", usage=False))
    finally:
        outbox.put(None)
        writer.join()


def _take_place(share: Share) -> None:
    """Connect from this process's own ports, and stay on its own core, where that is wanted and possible."""
    if share.ports is not None:
        LOCAL_PORTS.confine(*share.ports)
    if share.cpu is not None and hasattr(os, "sched_setaffinity"):
        # A core that is not there any more is no reason not to measure.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {share.cpu})


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""


def _write_all(
    outbox: "queue.SimpleQueue[Message | None]", snapshots: "Connection[Message, Message]"
) -> None:
    while (message := outbox.get()) is not None:
        try:
            snapshots.send(message)
        except OSError:
            return  # the parent is gone; the control pipe ends the run


def _listen(
    control: "Connection[str, str]",
    loop: asyncio.AbstractEventLoop,
    stop: asyncio.Event,
    server_events: ServerEvents,
    gates: Gates | None,
) -> None:
    """Set `stop` when told to, pass on what else is said; end the process with its parent."""
    while True:
        try:
            message = control.recv()
        except (EOFError, OSError):
            os._exit(1)
        event, _, at_ns = message.partition(" ")
        # The run may have ended by itself in the meantime.
        with contextlib.suppress(RuntimeError):
            if event == "stop":
                loop.call_soon_threadsafe(stop.set)
            elif gates is not None and event in POINTS:
                loop.call_soon_threadsafe(gates.release, event, int(at_ns))
            else:
                loop.call_soon_threadsafe(server_events.on_event, event, int(at_ns))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The fastest event loop here that can watch plain sockets."""
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop
    make: Callable[[], asyncio.AbstractEventLoop]
    try:
        import uvloop
    except ImportError:
        make = asyncio.new_event_loop
    else:
        make = uvloop.new_event_loop
    return lambda: with_ports(make(), LOCAL_PORTS)


def forget_pg_environment() -> None:
    """Remove `PG*` variables: the targets hold them already, and libraries would apply them again."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def forget_proxies() -> None:
    """See that no library sends its connections through a proxy that the environment names.

    websockets, and so SurrealDB's official client, would, loopback included; the figures would be the
    proxy's. Set rather than removed: where the environment has nothing, systems have settings of their own.
    """
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
