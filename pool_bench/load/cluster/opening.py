"""Connects to a cluster, or starts one here, and sees that its workers can generate one load together."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from multiprocessing import resource_tracker
from typing import Any, Final
from urllib.parse import urlsplit

import dask.config
from distributed import Client, LocalCluster

from pool_bench.errors import UsageError
from pool_bench.load.cluster import SETTINGS_FILE
from pool_bench.load.cluster.crew import ClusterCrew, Post
from pool_bench.load.cluster.preflight import Facts, differences, look
from pool_bench.processes import without_interrupts, without_secrets

_CONNECT_S: Final = 30.0
_WORKERS_S: Final = 120.0


@contextmanager
def gathered_crew(
    address: str | int, *, pin: bool, source_ips: tuple[str, ...], say: Callable[[str], None]
) -> Iterator[ClusterCrew]:
    """The workers of a cluster, for as long as the context lasts; all of them are alike.

    Args:
        address: of the scheduler; or how many workers to start on this machine.
        pin: each generator stays on a core of its own.
        source_ips: addresses to connect from; each worker uses those that are its own.
        say: takes what a person is to know, one line at a time.

    Raises:
        UsageError: there is no scheduler, it has no workers, or they are not alike.
    """
    # What goes wrong is said by us, in a line; a lost connection, by the run that loses it.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        client = stack.enter_context(
            started_here(address) if isinstance(address, int) else _there(address, say)
        )
        crew = stack.enter_context(crew_of(client, pin=pin, source_ips=source_ips))
        words = ", ".join(dict.fromkeys(post.facts.host for post in crew.posts))
        say(f"cluster: {len(crew.posts)} worker{'s' * (len(crew.posts) != 1)} ({words})")
        yield crew


@contextmanager
def crew_of(client: Client, *, pin: bool = False, source_ips: tuple[str, ...] = ()) -> Iterator[ClusterCrew]:
    """The workers of a scheduler that `client` is connected to; arguments and errors as `gathered_crew`."""
    crew = ClusterCrew(client, _alike(client, source_ips), pin=pin)
    try:
        yield crew
    finally:
        crew.close()


@contextmanager
def started_here(workers: int) -> Iterator[Client]:
    """A cluster on this machine, whose processes Ctrl-C does not reach, without our passwords."""
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_settings()))
        # Where it does not run yet, starting it along with a worker would unblock the signal again.
        resource_tracker.ensure_running()
        with without_secrets(), without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                host="127.0.0.1",
                # No dashboard; what serves it listens nevertheless, and must not want a certain port.
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            )
        stack.callback(_close, cluster)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        client.wait_for_workers(workers, timeout=_WORKERS_S)
        yield client


def _close(cluster: LocalCluster) -> None:
    # One that does not end in time, as while a worker is being replaced, ends with this process.
    with suppress(TimeoutError, OSError, RuntimeError):
        cluster.close(timeout=_CONNECT_S)


def _settings() -> dict[str, Any]:
    """The user's own (TLS, ports), and over them those of our file."""
    (settings,) = dask.config.collect_yaml([str(SETTINGS_FILE)])
    merged: dict[str, Any] = dask.config.merge(dask.config.config, settings)
    return merged


@contextmanager
def _there(address: str, say: Callable[[str], None]) -> Iterator[Client]:
    if address.startswith("tcp://") and not _is_loopback(address):
        say(
            f"{address} is a cluster without TLS: who reaches its scheduler or a worker can run any code "
            "there, and the target's password goes over that network in the clear (tls://, docs/scale.md)"
        )
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--cluster {address}: no scheduler answers there: {why}") from None
    with client:
        yield client


def _is_loopback(address: str) -> bool:
    name = urlsplit(address).hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _alike(client: Client, source_ips: tuple[str, ...]) -> list[Post]:
    """The workers, after a look at each.

    Raises:
        UsageError: there are none, or they differ in what matters.
    """
    answers: dict[str, Facts | BaseException] = client.run(look, source_ips, on_error="return")
    if not answers:
        raise UsageError("--cluster: the scheduler has no workers (dask worker SCHEDULER)")
    lines, facts = [], {}
    for address, answer in answers.items():
        if isinstance(answer, Facts):
            facts[address] = answer
        else:
            lines.append(f"pool_bench cannot be used on {address}: {type(answer).__name__}: {answer}")
    lines += differences(look(source_ips), facts)
    lines += [
        f"no --source-ip is an address of {each.host} ({address})"
        for address, each in facts.items()
        if source_ips and not each.source_ips
    ]
    if lines:
        raise UsageError("--cluster: the workers cannot generate one load together: " + "; ".join(lines))
    return [Post(address, each) for address, each in sorted(facts.items())]
